#include <immintrin.h>

#include <type_traits>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The tile kernels with plain C++ for the tile instructions and for arithmetic on f16, so that
// machines without AMX test them too. Compiled as the kernels are: only intrinsics and this
// namespace.
namespace kvasir::emulated {
namespace {

uint8_t registers[8][1024];
uint8_t rows_of[8];  // as configured; a tile's rows are all 64 bytes long

struct TileConfig {
  uint8_t rows[8] = {16, 16, 16, 16, 16, 16, 16, 16};
  void Load() const {
    __builtin_memcpy(rows_of, rows, sizeof(rows));
    __builtin_memset(registers, 0xa5, sizeof(registers));
  }
};
void ReleaseTiles() {}
TileConfig WholeTiles() { return {}; }

template <int T>
void LoadTile(const void* p, size_t stride) {
  for (size_t i = 0; i < rows_of[T]; ++i)
    __builtin_memcpy(registers[T] + i * 64, static_cast<const uint8_t*>(p) + i * stride, 64);
}
template <int T>
void StreamTile(const void* p, size_t stride) {
  LoadTile<T>(p, stride);
}
template <int T>
void StoreTile(void* p, size_t stride) {
  for (size_t i = 0; i < rows_of[T]; ++i)
    __builtin_memcpy(static_cast<uint8_t*>(p) + i * stride, registers[T] + i * 64, 64);
}
template <int T>
void ZeroTile() {
  __builtin_memset(registers[T], 0, sizeof(registers[T]));
}
/// TDPBSSD (Intel SDM vol. 2): C [16][16] int32 += A [16][64] times B [16 fours][16][4].
template <int C, int A, int B>
void SignedProduct() {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum = 0;
      __builtin_memcpy(&sum, registers[C] + m * 64 + n * 4, 4);
      for (int k = 0; k < 64; ++k) {
        sum += static_cast<int8_t>(registers[A][m * 64 + k]) *
               static_cast<int8_t>(registers[B][k / 4 * 64 + n * 4 + k % 4]);
      }
      __builtin_memcpy(registers[C] + m * 64 + n * 4, &sum, 4);
    }
  }
}

float Flushed(float x) {  // what is subnormal is zero
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x;
}
float Bf16Of(const uint8_t* p) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, p, 2);
  return Flushed(__builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16));
}
/// TDPBF16PS (Intel SDM vol. 2): C [16][16] float += A [16][32] times B [16 pairs][16][2], in one
/// chain of the even and one of the odd columns of A.
template <int C, int A, int B>
void Bf16Product() {
  for (int m = 0; m < rows_of[C]; ++m) {
    for (int n = 0; n < 16; ++n) {
      float sum = 0, even = 0, odd = 0;
      for (int k = 0; k < 16; ++k) {
        const uint8_t *a = registers[A] + m * 64 + k * 4, *b = registers[B] + k * 64 + n * 4;
        even = Flushed(__builtin_fmaf(Bf16Of(a), Bf16Of(b), even));
        odd = Flushed(__builtin_fmaf(Bf16Of(a + 2), Bf16Of(b + 2), odd));
      }
      __builtin_memcpy(&sum, registers[C] + m * 64 + n * 4, 4);
      sum = Flushed(Flushed(sum) + Flushed(even + odd));
      __builtin_memcpy(registers[C] + m * 64 + n * 4, &sum, 4);
    }
  }
}

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
