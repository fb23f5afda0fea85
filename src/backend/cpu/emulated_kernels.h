#pragma once

#include "backend/cpu/matmul_kernels.h"

namespace kvasir::emulated {

// For tests; they need AVX-512 with VNNI.
extern const MatMulKernels kTiles;    ///< AMX's kernels without AMX. One thread
extern const MatMulKernels kVnni256;  ///< AVX-VNNI's kernels without AVX-VNNI

}  // namespace kvasir::emulated
