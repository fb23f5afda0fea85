#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"

namespace kvasir {

/// The angles of a rotary embedding (Su et al. 2021) with context extension: linear (Chen et al.
/// 2023), per-frequency divisors (Llama 3.1) or YaRN (Peng et al. 2023, section 3).
class RopeTable {
 public:
  RopeTable() = default;
  explicit RopeTable(const RopeConfig& config);

  /// Pairs of channels that are rotated.
  int32_t pairs() const { return static_cast<int32_t>(frequency_.size()); }

  /// cos and sin [positions][pairs()], YaRN's magnitude included. Computed in double from the
  /// absolute position alone.
  void Fill(std::span<const int32_t> positions, float* cos, float* sin) const;

 private:
  std::vector<double> frequency_;  // radians a token, by pair
  double magnitude_ = 1.0;
};

}  // namespace kvasir
