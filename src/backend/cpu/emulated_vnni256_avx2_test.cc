#include <immintrin.h>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// AVX-VNNI's kernels with AVX2's instructions for theirs, so that machines without it test them,
// too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/matmul_avx2-inl.h"

#include "backend/cpu/emulated_dpbusd-inl.h"

#include "backend/cpu/matmul_vnni256-inl.h"

}  // namespace

constinit const MatMulKernels kVnni256 = KernelsOf<VnniProducts>(Int8Peak);

}  // namespace kvasir::emulated
