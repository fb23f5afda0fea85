// Products in registers of 256 bits, shared by the avx2 and the avxvnni kernels, which are compiled
// with different flags: included once in each, inside their own namespace. No include guard.
//
// A panel's 16 columns are two registers. How integers are multiplied is the includer's.

#include "backend/cpu/matmul_quads-inl.h"

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

/// Adds a (half) group's integer dot of one row to its sums: `d` and, with minima, `total` = d
/// times the sum of its activations.
template <PackFormat F>
KV_INLINE void Accumulate(const Scales& s, int h, float d, float total, const __m256i dot[2],
                          __m256 acc[2]) {
  const __m256 scale = _mm256_set1_ps(d);
  acc[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[0]), _mm256_mul_ps(s.d[h][0], scale), acc[0]);
  acc[1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[1]), _mm256_mul_ps(s.d[h][1], scale), acc[1]);
  if constexpr (kHasMin<F>) {
    const __m256 t = _mm256_set1_ps(total);
    acc[0] = _mm256_fmadd_ps(s.m[h][0], t, acc[0]);
    acc[1] = _mm256_fmadd_ps(s.m[h][1], t, acc[1]);
  }
}

KV_INLINE __m256i Quad(const int8_t* q) {
  int32_t bytes;
  __builtin_memcpy(&bytes, q, 4);
  return _mm256_set1_epi32(bytes);
}

/// Half C of the columns of weights as unsigned bytes, kTakenOff too large: quad J (of 4) of a
/// group, P = 0 of its first 16 inputs.
template <PackFormat F, int J, int P>
KV_INLINE __m256i UnsignedWeights(const uint8_t* group, int c) {
  const auto load = [](const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  };
  if constexpr (kBits<F> == 8) {
    return _mm256_xor_si256(load(group + (P * 4 + J) * 64 + c * 32), _mm256_set1_epi8(-128));
  }
  const __m256i v = load(group + J * 64 + c * 32);
  const __m256i nibbles =
      _mm256_and_si256(P == 0 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
  if constexpr (kBits<F> == 4) {
    return nibbles;
  } else {
    constexpr int kBit = HighBitsAt<F>(J, P), kShift = kBit % 8;
    const __m256i b = load(group + 256 + kBit / 8 * 64 + c * 32);
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << (kBits<F> - 4)) - 1) << 4));
    const __m256i high = kShift < 4 ? _mm256_slli_epi16(b, (4 - kShift) & 7)
                                    : _mm256_srli_epi16(b, (kShift - 4) & 7);
    return _mm256_or_si256(nibbles, _mm256_and_si256(high, mask));
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

/// The weights of quad J, P of a group as the products take them: signed bytes, or unsigned ones
/// that are kTakenOff too large.
template <class Products, PackFormat F, int J, int P>
KV_INLINE __m256i Weights(const uint8_t* group, int c) {
  if constexpr (kBits<F> == 8 && Products::kSigned) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + (P * 4 + J) * 64 + c * 32));
  } else {
    return UnsignedWeights<F, J, P>(group, c);
  }
}

// Products::Half<F, R, H>(q, k, load, offset, dot): the integer dots [R][2] of R rows, whose
// activations q lie k bytes apart, with half H (where halves have scales of their own, else all) of
// a group. load<J, P>(c) gives its weights, offset(i) kTimes<F> times the sum of row i's
// activations, which the weights' offset takes off the dot.

/// The first rows stream the weights from memory: asks for them ahead of the hardware prefetcher,
/// which stops at page ends. With 2 KiB ahead instead of 4 decode takes 0.93 of the time, with 1
/// KiB 0.91 (Q4_0) and 1.06 (Q4_K_M; 1B shape, 2 threads, medians of 14 and 7 runs in turn, Zen 3,
/// 2026-11-28).
template <PackFormat F>
KV_INLINE void Prefetch(const uint8_t* panel, int64_t g) {
  const uint8_t* ahead = panel + static_cast<size_t>(g) * kGroupStep<F> + 2048;
  for (size_t line = 0; line < kGroupStep<F>; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(ahead + line), _MM_HINT_T0);
}

/// tile<R>(i) for tiles of R rows from row i on, of all `rows`: as many share what is loaded as fit
/// the 16 registers.
template <typename Tile>
KV_INLINE void EachTile(int64_t rows, const Tile& tile) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) tile.template operator()<4>(i);
  for (; i + 2 <= rows; i += 2) tile.template operator()<2>(i);
  for (; i < rows; ++i) tile.template operator()<1>(i);
}

/// Rows [r, r + R) of a panel, whose groups are unpacked for them alone.
template <class Products, PackFormat F, int R>
KV_INLINE void PanelRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  __m256 acc[R][2];
  for (int i = 0; i < R; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < a.k / 32; ++g) {
    Scales s;
    const uint8_t* group = GroupOf<F>(panel, g, &s);
    if (r == 0) Prefetch<F>(panel, g);
    EachHalf<F>([&]<int H>() KV_LAMBDA {
      int32_t sum[R];
      for (int i = 0; i < R; ++i) sum[i] = SumOfHalf<F>(a.sum, (r + i) * (a.k / 32) + g, H);
      __m256i dot[R][2];
      Products::template Half<F, R, H>(
          a.q + r * a.k + g * 32, a.k,
          [&]<int J, int P>(int c) KV_LAMBDA { return Weights<Products, F, J, P>(group, c); },
          [&](int i) KV_LAMBDA { return Products::template kTimes<F> * sum[i]; }, dot);
      for (int i = 0; i < R; ++i) {
        const float d = a.d[(r + i) * (a.k / 32) + g];
        Accumulate<F>(s, H, d, d * static_cast<float>(sum[i]), dot[i], acc[i]);
      }
    });
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

/// Groups of a panel, unpacked for many rows.
constexpr int kSlab = 8;
struct Slab {
  alignas(64) uint8_t weights[kSlab][512];  ///< quads [P][J] of 64 bytes
  Scales scales[kSlab];
};

template <class Products, PackFormat F>
KV_INLINE void UnpackSlab(const uint8_t* panel, int64_t first, int groups, Slab* slab) {
  for (int g = 0; g < groups; ++g) {
    const uint8_t* group = GroupOf<F>(panel, first + g, &slab->scales[g]);
    Prefetch<F>(panel, first + g);
    EachQuad([&]<int J, int P>() KV_LAMBDA {
      auto* const to = reinterpret_cast<__m256i*>(slab->weights[g] + (P * 4 + J) * 64);
      for (int c = 0; c < 2; ++c) _mm256_store_si256(to + c, Weights<Products, F, J, P>(group, c));
    });
  }
}

/// What the dots of a row's groups need of its activations: kTimes, unless it is 0, their sum, and
/// with minima their scale times their sum.
template <PackFormat F>
struct RowTerms {
  alignas(32) int32_t offset[kHalves<F>][kSlab];
  alignas(32) float total[kHalves<F>][kSlab];
};

template <class Products, PackFormat F>
KV_INLINE void TermsOf(const float* d, const int32_t* sums, int groups, RowTerms<F>* terms) {
  for (int h = 0; h < kHalves<F>; ++h) {
    for (int g = 0; g < groups; ++g) {
      const int32_t s = SumOfHalf<F>(sums, g, h);
      if constexpr (Products::template kTimes<F> != 0)
        terms->offset[h][g] = Products::template kTimes<F> * s;
      if constexpr (kHasMin<F>) terms->total[h][g] = d[g] * static_cast<float>(s);
    }
  }
}

/// Adds a slab's products of rows [r, r + R) to their sums [R][16].
template <class Products, PackFormat F, int R>
KV_INLINE void SlabRows(const PanelArgs& a, const Slab& slab, int64_t first, int groups, int64_t r,
                        float* sums) {
  const int64_t at = r * (a.k / 32) + first;
  RowTerms<F> terms[R];
  for (int i = 0; i < R; ++i) {
    const float* d = a.d + at + i * (a.k / 32);
    const int32_t* sum = a.sum + 2 * (at + i * (a.k / 32));
    if (groups == kSlab)
      TermsOf<Products, F>(d, sum, kSlab, &terms[i]);  // unrolled
    else
      TermsOf<Products, F>(d, sum, groups, &terms[i]);
  }
  for (int g = 0; g < groups; ++g) {
    const uint8_t* group = slab.weights[g];
    EachHalf<F>([&]<int H>() KV_LAMBDA {
      __m256i dot[R][2];
      Products::template Half<F, R, H>(
          a.q + r * a.k + (first + g) * 32, a.k,
          [&]<int J, int P>(int c) KV_LAMBDA {
            return _mm256_load_si256(
                reinterpret_cast<const __m256i*>(group + (P * 4 + J) * 64 + c * 32));
          },
          [&](int i)
              KV_LAMBDA { return Products::template kTimes<F> == 0 ? 0 : terms[i].offset[H][g]; },
          dot);
      for (int i = 0; i < R; ++i) {
        float* const to = sums + i * 16;
        __m256 acc[2] = {_mm256_load_ps(to), _mm256_load_ps(to + 8)};
        Accumulate<F>(slab.scales[g], H, a.d[at + i * (a.k / 32) + g], terms[i].total[H][g], dot[i],
                      acc);
        _mm256_store_ps(to, acc[0]);
        _mm256_store_ps(to + 8, acc[1]);
      }
    });
  }
}

/// Rows that share the unpacking of a slab, whose weights and sums (12 KiB) stay in the first level
/// cache.
constexpr int kSlabRows = 96;
/// From so many rows on a slab pays: of 192 rows it takes 0.66 of the time that unpacking for every
/// four took (Q4_0, Q4_1, Q4_K, Q6_K; 0.81 Q5_K), of 8 0.8 (AVX2, 1 thread of a Zen 3, 2026-11-28;
/// of AVX-VNNI llvm-mca expects 0.94, 0.74 and 0.7 for Q4_0, Q4_K and Q6_K). Tiles of six rows are
/// as fast as of four, of three slower. Eight bits are not packed.
template <PackFormat F>
constexpr int kLeastSlabRows = F == PackFormat::kQ4 ? 16
                               : kBits<F> == 4      ? 8
                                                    : 4;

/// Rows [r, r + rows) of a panel, at most kSlabRows.
template <class Products, PackFormat F>
KV_INLINE void PanelSlabs(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t rows,
                          int64_t first) {
  Slab slab;
  alignas(64) float sums[kSlabRows][16];
  for (int64_t i = 0; i < rows; ++i) {
    _mm256_store_ps(sums[i], _mm256_setzero_ps());
    _mm256_store_ps(sums[i] + 8, _mm256_setzero_ps());
  }
  for (int64_t g = 0; g < a.k / 32; g += kSlab) {
    const int groups = a.k / 32 - g < kSlab ? static_cast<int>(a.k / 32 - g) : kSlab;
    UnpackSlab<Products, F>(panel, g, groups, &slab);
    EachTile(rows, [&]<int R>(int64_t i)
                       KV_LAMBDA { SlabRows<Products, F, R>(a, slab, g, groups, r + i, sums[i]); });
  }
  for (int64_t i = 0; i < rows; ++i) {
    __m256 acc[2] = {_mm256_load_ps(sums[i]), _mm256_load_ps(sums[i] + 8)};
    StoreRow(a, r + i, first, acc);
  }
}

template <class Products, PackFormat F>
void Panels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    while (kBits<F> < 8 && a.rows - r >= kLeastSlabRows<F>) {
      const int64_t rows = a.rows - r < kSlabRows ? a.rows - r : kSlabRows;
      PanelSlabs<Products, F>(a, panel, r, rows, p * 16);
      r += rows;
    }
    EachTile(a.rows - r, [&]<int R>(int64_t i)
                             KV_LAMBDA { PanelRows<Products, F, R>(a, panel, r + i, p * 16); });
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

/// Rows [r, r + R) of panels [p, p + N).
template <PackFormat F, int R, int N>
KV_INLINE void FloatRows(const PanelArgs& a, int64_t p, int64_t r) {
  __m256 acc[R][N][2];
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) acc[i][n][0] = acc[i][n][1] = _mm256_setzero_ps();
  }
  const float* x = a.x + r * a.x_stride;
  const uint8_t* panel[N];
  for (int n = 0; n < N; ++n) panel[n] = a.weights + static_cast<size_t>(p + n) * a.panel_bytes;
  const auto add = [&](int64_t k, int n, __m256 w0, __m256 w1) KV_LAMBDA {
    for (int i = 0; i < R; ++i) {
      const __m256 v = _mm256_set1_ps(x[i * a.x_stride + k]);
      acc[i][n][0] = _mm256_fmadd_ps(w0, v, acc[i][n][0]);
      acc[i][n][1] = _mm256_fmadd_ps(w1, v, acc[i][n][1]);
    }
  };
  if constexpr (F == PackFormat::kBF16) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    for (int64_t k = 0; k < a.k; k += 2) {
      for (int n = 0; n < N; ++n) {
        const auto* at = reinterpret_cast<const __m256i*>(panel[n] + k * 32);
        const __m256i v0 = _mm256_loadu_si256(at), v1 = _mm256_loadu_si256(at + 1);
        add(k, n, _mm256_castsi256_ps(_mm256_slli_epi32(v0, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(v1, 16)));
        if (k + 1 < a.k) {
          add(k + 1, n, _mm256_castsi256_ps(_mm256_and_si256(v0, high)),
              _mm256_castsi256_ps(_mm256_and_si256(v1, high)));
        }
      }
    }
  } else {
    for (int64_t k = 0; k < a.k; ++k) {
      for (int n = 0; n < N; ++n) {
        __m256 w[2];
        LoadFloats<F>(panel[n], k, w);
        add(k, n, w[0], w[1]);
      }
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) StoreRow(a, r + i, (p + n) * 16, acc[i][n]);
  }
}

/// Six rows of a panel are twelve chains of additions; fewer go through as many panels as make
/// enough chains, since one takes longer than its weights take to come.
template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  constexpr int N = 4;
  int64_t p = 0;
  for (; p + N <= a.panels; p += N) {
    int64_t r = 0;
    for (; r + 6 <= a.rows; r += 6) {
      for (int n = 0; n < N; ++n) FloatRows<F, 6, 1>(a, p + n, r);
    }
    for (; r + 2 <= a.rows; r += 2) {
      for (int n = 0; n < N; n += 2) FloatRows<F, 2, 2>(a, p + n, r);
    }
    for (; r < a.rows; ++r) FloatRows<F, 1, N>(a, p, r);
  }
  for (; p < a.panels; ++p) {
    int64_t r = 0;
    for (; r + 6 <= a.rows; r += 6) FloatRows<F, 6, 1>(a, p, r);
    for (; r < a.rows; ++r) FloatRows<F, 1, 1>(a, p, r);
  }
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

/// The kernels of one set.
template <class Products>
constexpr MatMulKernels KernelsOf(MatMulKernels::Peak int8_peak) {
  return {
      avx2::QuantizeRow,
      nullptr,
      {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
       Panels<Products, PackFormat::kQ4>, Panels<Products, PackFormat::kQ4M>,
       Panels<Products, PackFormat::kQ4K>, Panels<Products, PackFormat::kQ5K>,
       Panels<Products, PackFormat::kQ6K>, Panels<Products, PackFormat::kQ8>,
       Panels<Products, PackFormat::kQ8M>, Panels<Products, PackFormat::kQ8F>,
       Panels<Products, PackFormat::kQ8F2>, Panels<Products, PackFormat::kQ8FM2>},
      int8_peak,
      FloatPeak,
      nullptr};
}
