#pragma once

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/matmul_kernels.h"

namespace kvasir::emulated {

// For tests; they need AVX-512 with VNNI.
extern const MatMulKernels kTiles;    ///< AMX's kernels without AMX. One thread
extern const MatMulKernels kVnni256;  ///< AVX-VNNI's kernels without AVX-VNNI
/// AMX's without AMX; needs AVX512-BF16 too. One thread.
extern const AttentionKernels kTileAttention;

}  // namespace kvasir::emulated
