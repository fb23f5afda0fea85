#pragma once

#include "backend/cpu/matmul_kernels.h"

namespace kvasir::emulated {

/// AMX's kernels without AMX, for tests; needs AVX-512 with VNNI. One thread.
extern const MatMulKernels kMatMul;

}  // namespace kvasir::emulated
