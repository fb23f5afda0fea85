#pragma once

#include <bit>
#include <cstdint>

namespace kvasir {

/// IEEE half and bfloat16 as their bits, with exact widening and round-to-nearest-even narrowing.
/// Portable scalar code: the kernels have their own.
float F16ToF32(uint16_t bits);
uint16_t F32ToF16(float value);

inline float Bf16ToF32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
/// NaNs stay NaNs (quieted); everything else is rounded to nearest, ties to even.
inline uint16_t F32ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace kvasir
