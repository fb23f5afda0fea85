#include <immintrin.h>

#include <type_traits>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The tile kernels of products with plain C++ for the tile instructions and for arithmetic on f16,
// so that machines without AMX test them too. Compiled as the kernels are: only intrinsics and this
// namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/emulated_tiles-inl.h"

#include "backend/cpu/matmul_avx512-inl.h"
#include "backend/cpu/matmul_blocks_avx512-inl.h"

#include "backend/cpu/matmul_blocks_amx-inl.h"

// AVX-512 has no arithmetic on f16: f32 and f64 are wide enough for all but the last rounding.
__m512 LowF16(__m512i v) { return _mm512_cvtph_ps(_mm512_castsi512_si256(v)); }
__m512 HighF16(__m512i v) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1)); }
__m512i ToF16(__m512 low, __m512 high) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(low, kNearest)),
                            _mm512_cvtps_ph(high, kNearest), 1);
}
__m512i MulF16(__m512i a, __m512i b) {
  return ToF16(_mm512_mul_ps(LowF16(a), LowF16(b)), _mm512_mul_ps(HighF16(a), HighF16(b)));
}
/// a b + c rounded to odd, so that a rounding to f16 is the only one.
__m512 MulAddToOdd(__m512 a, __m512 b, __m512 c) {
  alignas(64) float x[16], y[16], z[16];
  _mm512_store_ps(x, a);
  _mm512_store_ps(y, b);
  _mm512_store_ps(z, c);
  for (int i = 0; i < 16; ++i) {
    const double exact =
        static_cast<double>(x[i]) * static_cast<double>(y[i]) + static_cast<double>(z[i]);
    const auto nearest = static_cast<float>(exact);
    auto bits = __builtin_bit_cast(uint32_t, nearest);
    if (static_cast<double>(nearest) != exact && nearest == nearest) {
      if (__builtin_fabs(static_cast<double>(nearest)) > __builtin_fabs(exact)) --bits;
      bits |= 1;
    }
    x[i] = __builtin_bit_cast(float, bits);
  }
  return _mm512_load_ps(x);
}
__m512i MulAddF16(__m512i a, __m512i b, __m512i c) {
  return ToF16(MulAddToOdd(LowF16(a), LowF16(b), LowF16(c)),
               MulAddToOdd(HighF16(a), HighF16(b), HighF16(c)));
}
__m512i F16OfWords(__m512i words) {
  const auto floats = [](__m256i w) { return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(w)); };
  return ToF16(floats(_mm512_castsi512_si256(words)), floats(_mm512_extracti64x4_epi64(words, 1)));
}

#include "backend/cpu/matmul_tiles_amx-inl.h"

void ToTiles(const float* x, int64_t x_stride, int64_t rows, int64_t k, TileOrder order,
             int64_t block, uint8_t* out) {
  scalar::kMatMulTiles.to_tiles(x, x_stride, rows, k, order, block, out);
}

}  // namespace

constinit const MatMulKernels kTiles = WithPanels({.quantize = nullptr,
                                                   .to_tiles = ToTiles,
                                                   .int8_peak = nullptr,
                                                   .float_peak = FloatPeak,
                                                   .bf16_peak = nullptr,
                                                   .quantize_blocks = QuantizeBlocks});

}  // namespace kvasir::emulated
