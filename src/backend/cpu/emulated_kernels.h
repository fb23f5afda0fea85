#pragma once

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/matmul_kernels.h"

namespace kvasir::emulated {

// For tests: kernels without their instruction sets. All need AVX2.
extern const MatMulKernels kVnni256;                           ///< AVX-VNNI's
extern const MatMulKernels kVnni512, kPairs;                   ///< AVX-512's, and AVX512-BF16's
extern const MatMulKernels kTiles;                             ///< AMX's. One thread.
extern const AttentionKernels kVnniAttention, kPairAttention;  ///< AVX-512's, and AVX512-BF16's
extern const AttentionKernels kTileAttention;                  ///< AMX's. One thread.

}  // namespace kvasir::emulated
