#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

// What instructions for bf16 compute, in plain C++: for the scalar twins of the kernels that use
// them.
namespace kvasir::scalar {

/// Instructions on bf16 take and give zero for what is subnormal.
inline float Flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

/// One output of TDPBF16PS (Intel SDM vol. 2): the even products in one chain of fma from 0, the
/// odd ones in another, then sum + (even + odd). a and b [2 pairs].
inline float TileDotBf16(float sum, const float* a, const float* b, int32_t pairs) {
  float even = 0, odd = 0;
  for (int32_t i = 0; i < pairs; ++i) {
    even = Flush(std::fma(Flush(a[2 * i]), Flush(b[2 * i]), even));
    odd = Flush(std::fma(Flush(a[2 * i + 1]), Flush(b[2 * i + 1]), odd));
  }
  return Flush(Flush(sum) + Flush(even + odd));
}

/// One lane of `pairs` VDPBF16PS one after another (Intel SDM vol. 2): of each pair the odd product
/// is added first, by fma, then the even one. a and b [2 pairs].
inline float PairDotBf16(float sum, const float* a, const float* b, int32_t pairs) {
  for (int32_t i = 0; i < pairs; ++i) {
    sum = Flush(std::fma(Flush(a[2 * i + 1]), Flush(b[2 * i + 1]), Flush(sum)));
    sum = Flush(std::fma(Flush(a[2 * i]), Flush(b[2 * i]), sum));
  }
  return sum;
}

}  // namespace kvasir::scalar
