#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace kvasir {
namespace {

/// The (fractional) pair whose wavelength fits `rotations` times into the original context.
double YarnCorrectionPair(const RopeConfig& c, double rotations) {
  return c.dims *
         std::log(static_cast<double>(c.original_context) / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(c.base));
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& c) {
  const int32_t pairs = c.dims / 2;
  CHECK(c.freq_divisors.empty() || c.freq_divisors.size() == static_cast<size_t>(pairs));
  frequency_.resize(pairs);
  magnitude_ = c.attn_factor;
  double low = 0, high = 0;
  if (c.scaling == RopeScaling::kYarn) {
    low = std::max(0.0, std::floor(YarnCorrectionPair(c, c.yarn_beta_fast)));
    high = std::min(c.dims - 1.0, std::ceil(YarnCorrectionPair(c, c.yarn_beta_slow)));
    magnitude_ *= 1.0 + 0.1 * std::log(std::max(1.0, c.factor));
  }
  for (int32_t i = 0; i < pairs; ++i) {
    double f = std::pow(c.base, -2.0 * i / c.dims);
    if (!c.freq_divisors.empty()) f /= static_cast<double>(c.freq_divisors[i]);
    switch (c.scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        f /= c.factor;
        break;
      case RopeScaling::kYarn: {
        // 1 where the wavelength is short and stays, 0 where it is long and is interpolated.
        const double ramp = (i - low) / std::max(0.001, high - low);
        const double keep = 1.0 - std::clamp(ramp, 0.0, 1.0);
        f = f / c.factor * (1.0 - keep) + f * keep;
        break;
      }
    }
    frequency_[i] = f;
  }
}

void RopeTable::Fill(std::span<const int32_t> positions, float* cos, float* sin) const {
  const size_t n = frequency_.size();
  for (size_t r = 0; r < positions.size(); ++r) {
    for (size_t i = 0; i < n; ++i) {
      const double angle = positions[r] * frequency_[i];
      cos[r * n + i] = static_cast<float>(std::cos(angle) * magnitude_);
      sin[r * n + i] = static_cast<float>(std::sin(angle) * magnitude_);
    }
  }
}

}  // namespace kvasir
