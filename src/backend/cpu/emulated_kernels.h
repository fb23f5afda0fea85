#pragma once

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/matmul_kernels.h"

namespace kvasir::emulated {

// For tests.
extern const MatMulKernels kVnni256;  ///< AVX-VNNI's kernels without AVX-VNNI; needs AVX2
/// AMX's kernels without AMX; needs AVX-512 with VNNI. One thread.
extern const MatMulKernels kTiles;
/// AMX's without AMX; needs AVX512-BF16. One thread.
extern const AttentionKernels kTileAttention;

}  // namespace kvasir::emulated
