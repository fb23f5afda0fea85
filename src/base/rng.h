#pragma once

#include <array>
#include <cstdint>

namespace kvasir {

/// Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy
/// as 1, 2, 3" (SC'11). There is no state to carry: the numbers at (key, counter) are a pure
/// function, so a sequence's stream does not depend on who else is in the batch.
std::array<uint32_t, 4> Philox4x32(uint64_t key, std::array<uint32_t, 4> counter);

/// A stream of random numbers for one purpose: `key` is the seed, `stream` separates sequences of
/// one request, and the position is chosen by the caller (the index of the token to sample).
struct RandomStream {
  uint64_t key = 0;
  uint32_t stream = 0;

  /// Uniform in [0, 1) with 53 bits, at a position (token index) and a draw number within it.
  double Uniform(uint64_t position, uint32_t draw = 0) const;
};

}  // namespace kvasir
