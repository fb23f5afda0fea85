#include <immintrin.h>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// AVX-VNNI's kernels with AVX-512's instruction of the same name, so that machines with that alone
// test them, too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/matmul_avx2-inl.h"

KV_INLINE __m256i Dpbusd(__m256i sum, __m256i u, __m256i s) {
  return _mm256_dpbusd_epi32(sum, u, s);
}

#include "backend/cpu/matmul_vnni256-inl.h"

}  // namespace

constinit const MatMulKernels kVnni256 = VnniKernels();

}  // namespace kvasir::emulated
