#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avxvnni {
namespace {

#include "backend/cpu/matmul_avx2-inl.h"

KV_INLINE __m256i Dpbusd(__m256i sum, __m256i u, __m256i s) {
  return _mm256_dpbusd_avx_epi32(sum, u, s);
}

#include "backend/cpu/matmul_vnni256-inl.h"

}  // namespace

constinit const MatMulKernels kMatMul = KernelsOf<VnniProducts>(Int8Peak);

}  // namespace kvasir::avxvnni
