#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx2 {

#define KV_INLINE inline __attribute__((always_inline))

void QuantizeRow(const float* x, int64_t k, int8_t* q, int16_t* q16, float* d, int32_t* sum) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (int64_t g = 0; g < k / 32; ++g) {
    __m256 v[4];
    __m256i bits = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + g * 32 + i * 8);
      // As integers magnitudes order like the floats, with infinity and NaN above all.
      bits = _mm256_max_epi32(bits, _mm256_castps_si256(_mm256_and_ps(v[i], magnitude)));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    const bool finite = _mm_cvtsi128_si32(m) < 0x7f800000;
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(m));
    d[g] = finite ? largest / 127.0f : __builtin_nanf("");
    const float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
    // The inverse of a subnormal overflows: such groups are zero.
    const bool zero = !finite || !(inverse <= 3.0e38f);
    __m256i words[2];
    for (int h = 0; h < 2; ++h) {
      __m256i a = _mm256_setzero_si256(), b = a;
      if (!zero) {
        a = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * h], _mm256_set1_ps(inverse)));
        b = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * h + 1], _mm256_set1_ps(inverse)));
      }
      __m256i s = _mm256_add_epi32(a, b);
      __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
      t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
      t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1));
      sum[2 * g + h] = _mm_cvtsi128_si32(t);
      words[h] = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q16 + g * 32 + h * 16), words[h]);
    }
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(words[0], words[1]), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + g * 32), bytes);
  }
}

namespace {

KV_INLINE __m256 HalfToFloat(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
KV_INLINE __m256 ByteToFloat(const uint8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

KV_INLINE __m256 SignedByteToFloat(const uint8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

/// Scales and minima of a group: [half of the group][half of the columns].
struct Scales {
  __m256 d[2][2], m[2][2];
};

template <PackFormat F>
KV_INLINE const uint8_t* GroupOf(const uint8_t* panel, int64_t g, Scales* s) {
  if constexpr (kSuper<F>) {
    const uint8_t* record = panel + static_cast<size_t>(g / 8) * kSuperBytes<F>;
    const uint8_t* scales = record + kSubScalesAt<F> + g % 8 * kHalves<F> * 16;
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int c = 0; c < 2; ++c) {
      const __m256 d = HalfToFloat(record + kSuperScalesAt + c * 16);
      if constexpr (kHasMin<F>) {
        const uint8_t* mins = record + kSubMinsAt<F> + g % 8 * 16;
        s->d[0][c] = _mm256_mul_ps(d, ByteToFloat(scales + c * 8));
        s->m[0][c] =
            _mm256_xor_ps(sign, _mm256_mul_ps(HalfToFloat(record + kSuperMinsAt<F> + c * 16),
                                              ByteToFloat(mins + c * 8)));
      } else {
        for (int h = 0; h < kHalves<F>; ++h)
          s->d[h][c] = _mm256_mul_ps(d, SignedByteToFloat(scales + h * 16 + c * 8));
      }
    }
    return record + kSuperWeightsAt<F> + g % 8 * kWeightBytes<F>;
  } else {
    const uint8_t* record = panel + static_cast<size_t>(g) * kGroupStep<F>;
    for (int part = 0; part < kScaleParts<F>; ++part) {
      for (int c = 0; c < 2; ++c) {
        const uint8_t* at =
            record + kWeightBytes<F> + (static_cast<size_t>(part) * 16 + c * 8) * kScaleBytes<F>;
        const __m256 v =
            kHalfScales<F> ? HalfToFloat(at) : _mm256_loadu_ps(reinterpret_cast<const float*>(at));
        if (part < kHalves<F>)
          s->d[part][c] = v;
        else
          s->m[part - kHalves<F>][c] = v;
      }
    }
    return record;
  }
}

/// Adds a (half) group's integer dot of one row to its accumulators.
template <PackFormat F>
KV_INLINE void Accumulate(const Scales& s, int h, float d, int32_t sum, __m256i dot0, __m256i dot1,
                          __m256 acc[2]) {
  const __m256 scale = _mm256_set1_ps(d);
  acc[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot0), _mm256_mul_ps(s.d[h][0], scale), acc[0]);
  acc[1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot1), _mm256_mul_ps(s.d[h][1], scale), acc[1]);
  if constexpr (kHasMin<F>) {
    const __m256 total = _mm256_set1_ps(d * static_cast<float>(sum));
    acc[0] = _mm256_fmadd_ps(s.m[h][0], total, acc[0]);
    acc[1] = _mm256_fmadd_ps(s.m[h][1], total, acc[1]);
  }
}

KV_INLINE __m256i Quad(const int8_t* q) {
  int32_t bytes;
  __builtin_memcpy(&bytes, q, 4);
  return _mm256_set1_epi32(bytes);
}

/// Four-bit weights: eight products of u4 x s8 pairs are at most 8 * 2 * 15 * 127 = 30480 in 16
/// bits, so a whole group is added up there before it is widened.
template <PackFormat F, int R>
KV_INLINE void Group4(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                      int64_t g, __m256 acc[R][2]) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256i sums[R][2];
  for (int i = 0; i < R; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_si256();
  const int8_t* q = a.q + r * a.k + g * 32;
  for (int j = 0; j < 4; ++j) {
    const __m256i v0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + j * 64));
    const __m256i v1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + j * 64 + 32));
    const __m256i l0 = _mm256_and_si256(v0, low), l1 = _mm256_and_si256(v1, low);
    const __m256i h0 = _mm256_and_si256(_mm256_srli_epi16(v0, 4), low);
    const __m256i h1 = _mm256_and_si256(_mm256_srli_epi16(v1, 4), low);
    for (int i = 0; i < R; ++i) {
      const __m256i x = Quad(q + i * a.k + j * 4), y = Quad(q + i * a.k + 16 + j * 4);
      sums[i][0] = _mm256_add_epi16(sums[i][0], _mm256_maddubs_epi16(l0, x));
      sums[i][1] = _mm256_add_epi16(sums[i][1], _mm256_maddubs_epi16(l1, x));
      sums[i][0] = _mm256_add_epi16(sums[i][0], _mm256_maddubs_epi16(h0, y));
      sums[i][1] = _mm256_add_epi16(sums[i][1], _mm256_maddubs_epi16(h1, y));
    }
  }
  for (int i = 0; i < R; ++i) {
    const int64_t at = (r + i) * (a.k / 32) + g;
    const int32_t sum = a.sum[2 * at] + a.sum[2 * at + 1];
    __m256i dot0 = _mm256_madd_epi16(sums[i][0], ones), dot1 = _mm256_madd_epi16(sums[i][1], ones);
    if constexpr (F == PackFormat::kQ4) {
      const __m256i offset = _mm256_set1_epi32(8 * sum);
      dot0 = _mm256_sub_epi32(dot0, offset);
      dot1 = _mm256_sub_epi32(dot1, offset);
    }
    Accumulate<F>(s, 0, a.d[at], sum, dot0, dot1, acc[i]);
  }
}

/// Half C of the columns of unsigned weights of five or six bits: quad j (of 4) of a group, P = 0
/// of its first 16 inputs.
template <PackFormat F, int J, int P>
KV_INLINE __m256i UnsignedWeights(const uint8_t* group, int c) {
  constexpr int kBit = HighBitsAt<F>(J, P), kShift = kBit % 8;
  const auto load = [](const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  };
  const __m256i v = load(group + J * 64 + c * 32), b = load(group + 256 + kBit / 8 * 64 + c * 32);
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << (kBits<F> - 4)) - 1) << 4));
  const __m256i high =
      kShift < 4 ? _mm256_slli_epi16(b, (4 - kShift) & 7) : _mm256_srli_epi16(b, (kShift - 4) & 7);
  return _mm256_or_si256(
      _mm256_and_si256(P == 0 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15)),
      _mm256_and_si256(high, mask));
}

/// Weights of five and six bits: products of u6 x s8 pairs are at most 2 * 63 * 127 = 16002, so two
/// of them are added up in 16 bits.
template <PackFormat F, int R>
KV_INLINE void Group6(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                      int64_t g, __m256 acc[R][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int8_t* q = a.q + r * a.k + g * 32;
  __m256i dot[R][2];
  const auto quads = [&]<int J, int P>() __attribute__((always_inline)) {  // J and J + 1
    for (int c = 0; c < 2; ++c) {
      const __m256i w0 = UnsignedWeights<F, J, P>(group, c);
      const __m256i w1 = UnsignedWeights<F, J + 1, P>(group, c);
      for (int i = 0; i < R; ++i) {
        const int8_t* x = q + i * a.k + P * 16 + J * 4;
        const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w0, Quad(x)),
                                               _mm256_maddubs_epi16(w1, Quad(x + 4)));
        dot[i][c] = _mm256_add_epi32(dot[i][c], _mm256_madd_epi16(pairs, ones));
      }
    }
  };
  for (int h = 0; h < kHalves<F>; ++h) {
    for (int i = 0; i < R; ++i) dot[i][0] = dot[i][1] = _mm256_setzero_si256();
    if (kHalves<F> == 1 || h == 0) {
      quads.template operator()<0, 0>();
      quads.template operator()<2, 0>();
    }
    if (kHalves<F> == 1 || h == 1) {
      quads.template operator()<0, 1>();
      quads.template operator()<2, 1>();
    }
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      const int32_t sum = kHalves<F> == 2 ? a.sum[2 * at + h] : a.sum[2 * at] + a.sum[2 * at + 1];
      const __m256i offset = _mm256_set1_epi32(kOffset<F> * sum);
      Accumulate<F>(s, h, a.d[at], sum, _mm256_sub_epi32(dot[i][0], offset),
                    _mm256_sub_epi32(dot[i][1], offset), acc[i]);
    }
  }
}

/// Columns in order from four sums of [column][pair of k].
KV_INLINE void Reduce(const __m256i t[4], __m256i* dot0, __m256i* dot1) {
  *dot0 = _mm256_permute4x64_epi64(_mm256_hadd_epi32(t[0], t[1]), 0xd8);
  *dot1 = _mm256_permute4x64_epi64(_mm256_hadd_epi32(t[2], t[3]), 0xd8);
}

/// Eight-bit weights are widened to 16 bits: vpmaddubsw would saturate.
template <PackFormat F, int R>
KV_INLINE void Group8(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                      int64_t g, __m256 acc[R][2]) {
  constexpr int kQuads = 8 / kHalves<F>;
  for (int h = 0; h < kHalves<F>; ++h) {
    __m256i sums[R][4];
    for (int i = 0; i < R; ++i) {
      for (int c = 0; c < 4; ++c) sums[i][c] = _mm256_setzero_si256();
    }
    for (int j = h * kQuads; j < (h + 1) * kQuads; ++j) {
      __m256i x[R];
      for (int i = 0; i < R; ++i) {
        long long words;
        __builtin_memcpy(&words, a.q16 + (r + i) * a.k + g * 32 + j * 4, 8);
        x[i] = _mm256_set1_epi64x(words);
      }
      for (int c = 0; c < 4; ++c) {
        const __m256i w = _mm256_cvtepi8_epi16(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(group + j * 64 + c * 16)));
        for (int i = 0; i < R; ++i)
          sums[i][c] = _mm256_add_epi32(sums[i][c], _mm256_madd_epi16(w, x[i]));
      }
    }
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      const int32_t sum = kHalves<F> == 2 ? a.sum[2 * at + h] : a.sum[2 * at] + a.sum[2 * at + 1];
      __m256i dot0, dot1;
      Reduce(sums[i], &dot0, &dot1);
      Accumulate<F>(s, h, a.d[at], sum, dot0, dot1, acc[i]);
    }
  }
}

KV_INLINE void StoreRow(const PanelArgs& a, int64_t row, int64_t first, __m256 acc[2]) {
  float* out = a.out + row * a.out_stride + first;
  if (first + 16 <= a.columns) {
    for (int c = 0; c < 2; ++c) {
      __m256 v = acc[c];
      if (a.bias != nullptr) v = _mm256_add_ps(v, _mm256_loadu_ps(a.bias + first + c * 8));
      if (a.add) v = _mm256_add_ps(_mm256_loadu_ps(out + c * 8), v);
      _mm256_storeu_ps(out + c * 8, v);
    }
    return;
  }
  float values[16];
  _mm256_storeu_ps(values, acc[0]);
  _mm256_storeu_ps(values + 8, acc[1]);
  for (int64_t n = 0; first + n < a.columns; ++n) {
    float v = values[n];
    if (a.bias != nullptr) v += a.bias[first + n];
    out[n] = a.add ? out[n] + v : v;
  }
}

template <PackFormat F, int R>
KV_INLINE void PanelRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  __m256 acc[R][2];
  for (int i = 0; i < R; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < a.k / 32; ++g) {
    Scales s;
    const uint8_t* group = GroupOf<F>(panel, g, &s);
    if constexpr (R == 1) {
      // One row streams the weights from memory: ask for them ahead of the hardware prefetcher,
      // which stops at page ends.
      const uint8_t* ahead = panel + static_cast<size_t>(g) * kGroupStep<F> + 4096;
      for (size_t line = 0; line < kGroupStep<F>; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(ahead + line), _MM_HINT_T0);
    }
    if constexpr (kBits<F> == 4)
      Group4<F, R>(group, s, a, r, g, acc);
    else if constexpr (kBits<F> < 8)
      Group6<F, R>(group, s, a, r, g, acc);
    else
      Group8<F, R>(group, s, a, r, g, acc);
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

/// Rows that share the unpacking of a group: as many as fit the 16 registers.
template <PackFormat F>
constexpr int kTile = kBits<F> < 8 ? 4 : 2;

template <PackFormat F>
void Panels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + kTile<F> <= a.rows; r += kTile<F>) PanelRows<F, kTile<F>>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) PanelRows<F, 1>(a, panel, r, p * 16);
  }
}

/// Weights of input k (bf16: k must be even; gives k and k + 1) for 16 columns.
template <PackFormat F>
KV_INLINE void LoadFloats(const uint8_t* panel, int64_t k, __m256 w[2]) {
  if constexpr (F == PackFormat::kF32) {
    const float* at = reinterpret_cast<const float*>(panel) + k * 16;
    w[0] = _mm256_loadu_ps(at);
    w[1] = _mm256_loadu_ps(at + 8);
  } else {
    w[0] = HalfToFloat(panel + k * 32);
    w[1] = HalfToFloat(panel + k * 32 + 16);
  }
}

template <PackFormat F, int R>
KV_INLINE void FloatRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  __m256 acc[R][2];
  for (int i = 0; i < R; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
  const float* x = a.x + r * a.x_stride;
  const auto step = [&](int64_t k, const __m256 w[2]) __attribute__((always_inline)) {
    for (int i = 0; i < R; ++i) {
      const __m256 v = _mm256_set1_ps(x[i * a.x_stride + k]);
      acc[i][0] = _mm256_fmadd_ps(w[0], v, acc[i][0]);
      acc[i][1] = _mm256_fmadd_ps(w[1], v, acc[i][1]);
    }
  };
  if constexpr (F == PackFormat::kBF16) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    for (int64_t k = 0; k < a.k; k += 2) {
      const auto* at = reinterpret_cast<const __m256i*>(panel + k * 32);
      const __m256i v0 = _mm256_loadu_si256(at), v1 = _mm256_loadu_si256(at + 1);
      const __m256 even[2] = {_mm256_castsi256_ps(_mm256_slli_epi32(v0, 16)),
                              _mm256_castsi256_ps(_mm256_slli_epi32(v1, 16))};
      step(k, even);
      if (k + 1 < a.k) {
        const __m256 odd[2] = {_mm256_castsi256_ps(_mm256_and_si256(v0, high)),
                               _mm256_castsi256_ps(_mm256_and_si256(v1, high))};
        step(k + 1, odd);
      }
    }
  } else {
    for (int64_t k = 0; k < a.k; ++k) {
      __m256 w[2];
      LoadFloats<F>(panel, k, w);
      step(k, w);
    }
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + 6 <= a.rows; r += 6) FloatRows<F, 6>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) FloatRows<F, 1>(a, panel, r, p * 16);
  }
}

/// Registers that an asm statement claims to change cannot be computed ahead of it. Bytes are
/// multiplied as words, as the kernels do.
uint64_t Int8Peak(int64_t rounds) {
  __m256i acc[8];
  for (__m256i& v : acc) v = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi16(1), b = _mm256_set1_epi16(2);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(a), "+x"(b));
    for (__m256i& v : acc) {
      asm volatile("" : "+x"(a));  // one product for each sum
      v = _mm256_add_epi32(v, _mm256_madd_epi16(a, b));
    }
  }
  for (__m256i& v : acc) asm volatile("" : "+x"(v));
  return static_cast<uint64_t>(rounds) * 8 * 16 * 2;
}

uint64_t FloatPeak(int64_t rounds) {
  __m256 acc[8];
  for (__m256& v : acc) v = _mm256_setzero_ps();
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(2);
  for (int64_t i = 0; i < rounds; ++i) {
    for (__m256& v : acc) v = _mm256_fmadd_ps(a, b, v);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (__m256& v : acc) asm volatile("" : "+x"(v));
  return static_cast<uint64_t>(rounds) * 8 * 8 * 2;
}

}  // namespace

const MatMulKernels kMatMul = {
    QuantizeRow,
    nullptr,
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
     Panels<PackFormat::kQ4>, Panels<PackFormat::kQ4M>, Panels<PackFormat::kQ4K>,
     Panels<PackFormat::kQ5K>, Panels<PackFormat::kQ6K>, Panels<PackFormat::kQ8>,
     Panels<PackFormat::kQ8M>, Panels<PackFormat::kQ8F>, Panels<PackFormat::kQ8F2>,
     Panels<PackFormat::kQ8FM2>},
    Int8Peak,
    FloatPeak,
    nullptr};

}  // namespace kvasir::avx2
