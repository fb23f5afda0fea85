#include <immintrin.h>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// AVX-VNNI's kernels with AVX2's instructions for theirs, so that machines without it test them,
// too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/matmul_avx2-inl.h"

/// Even and odd bytes apart, in words, whose products do not saturate.
KV_INLINE __m256i Dpbusd(__m256i sum, __m256i u, __m256i s) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(0xff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

#include "backend/cpu/matmul_vnni256-inl.h"

}  // namespace

constinit const MatMulKernels kVnni256 = KernelsOf<VnniProducts>(Int8Peak);

}  // namespace kvasir::emulated
