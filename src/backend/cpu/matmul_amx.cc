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

KV_INLINE __m512i MulF16(__m512i a, __m512i b) {
  return _mm512_castph_si512(_mm512_mul_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b)));
}
KV_INLINE __m512i MulAddF16(__m512i a, __m512i b, __m512i c) {
  return _mm512_castph_si512(
      _mm512_fmadd_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b), _mm512_castsi512_ph(c)));
}
KV_INLINE __m512i F16OfWords(__m512i words) {
  return _mm512_castph_si512(_mm512_cvtepi16_ph(words));
}

#include "backend/cpu/matmul_tiles_amx-inl.h"

/// 32 floats of a row, those from `left` on as zeros.
KV_INLINE __m512i RoundGroup(const float* x, int64_t left) {
  const auto bits = static_cast<uint32_t>(left >= 32 ? 0xffffffffu : (uint32_t{1} << left) - 1);
  const __m512 up = _mm512_set1_ps(static_cast<float>(int64_t{1} << kTileShift));
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(bits), x);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(bits >> 16), x + 16);
  const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_mul_ps(high, up), _mm512_mul_ps(low, up));
  __m512i out;
  __builtin_memcpy(&out, &both, sizeof(out));
  return out;
}

void ToTiles(const float* x, int64_t x_stride, int64_t rows, int64_t k, TileOrder order,
             int64_t block, uint8_t* out) {
  alignas(64) uint16_t index[32];
  for (int j = 0; j < 4; ++j) {
    constexpr int kFirst[4] = {0, 16, 1, 17};
    for (int s = 0; s < 4; ++s) {
      index[8 * j + 2 * s] = static_cast<uint16_t>(4 * j + kFirst[s]);
      index[8 * j + 2 * s + 1] = static_cast<uint16_t>(4 * j + kFirst[s] + 2);
    }
  }
  const __m512i permutation = _mm512_load_si512(index);
  const int64_t blocks = (rows + kTileRows - 1) / kTileRows, groups = (k + 31) / 32;
  for (int64_t i = 0; i < kTileRows; ++i) {
    const int64_t row = block * kTileRows + i;
    for (int64_t g = 0; g < groups; ++g) {
      __m512i v = _mm512_setzero_si512();
      if (row < rows) v = RoundGroup(x + row * x_stride + g * 32, k - g * 32);
      if (order == TileOrder::kPacked) v = _mm512_permutexvar_epi16(permutation, v);
      _mm512_store_si512(out + TileOffset(block, g, blocks, groups) + i * 64, v);
    }
  }
}

}  // namespace

constinit const MatMulKernels kMatMul = WithPanels({.quantize = avx2::QuantizeRow,
                                                    .to_tiles = ToTiles,
                                                    .int8_peak = TilePeak<true>,
                                                    .float_peak = FloatPeak,
                                                    .bf16_peak = TilePeak<false>,
                                                    .quantize_blocks = QuantizeBlocks});

}  // namespace kvasir::amx
