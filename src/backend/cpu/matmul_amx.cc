#include <immintrin.h>

#include <type_traits>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/tiles.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::amx {
namespace {

#include "backend/cpu/matmul_avx512-inl.h"
#include "backend/cpu/matmul_blocks_avx512-inl.h"

#include "backend/cpu/matmul_blocks_amx-inl.h"

#include "backend/cpu/matmul_tiles_amx-inl.h"
#include "backend/cpu/peaks_avx512-inl.h"

}  // namespace

constinit const MatMulKernels kMatMul = WithTilePanels({.quantize = avx2::QuantizeRow,
                                                        .int8_peak = TilePeak<true>,
                                                        .float_peak = FloatPeak,
                                                        .bf16_peak = TilePeak<false>,
                                                        .quantize_blocks = QuantizeBlocks});

}  // namespace kvasir::amx
