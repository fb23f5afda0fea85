#include <immintrin.h>

#include <type_traits>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The tile kernels of products with plain C++ for the tile instructions and AVX-512, so that
// machines without either test them too. Compiled as the kernels are: only intrinsics and this
// namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/emulated_avx512-inl.h"
#include "backend/cpu/emulated_tiles-inl.h"

#include "backend/cpu/matmul_avx512-inl.h"
#include "backend/cpu/matmul_blocks_avx512-inl.h"

#include "backend/cpu/matmul_blocks_amx-inl.h"
#include "backend/cpu/matmul_tiles_amx-inl.h"

}  // namespace

constinit const MatMulKernels kTiles =
    WithTilePanels({.quantize = avx2::QuantizeRow, .quantize_blocks = QuantizeBlocks});

}  // namespace kvasir::emulated
