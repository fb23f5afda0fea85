// Products in AVX-512 with VNNI, shared by the avx512 and the amx kernels, which are compiled with
// different flags: included once in each, inside their own namespace. No include guard.
//
// A panel's 16 columns are one register. vpdpbusd multiplies unsigned by signed bytes: weights of
// up to six bits are unsigned; eight-bit ones get 128 added (a flip of the top bit), which is taken
// off again as 128 * sum of the activations.

#include "backend/cpu/matmul_quads-inl.h"

KV_INLINE __m512 HalfToFloat(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KV_INLINE __m512 ByteToFloat(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

KV_INLINE __m512 SignedByteToFloat(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

/// Scales and minima of a group, by half of the group.
struct Scales {
  __m512 d[2], m[2];
};

template <PackFormat F>
KV_INLINE const uint8_t* GroupOf(const uint8_t* panel, int64_t g, Scales* s) {
  if constexpr (kSuper<F>) {
    const uint8_t* record = panel + static_cast<size_t>(g / 8) * kSuperBytes<F>;
    const uint8_t* scales = record + kSubScalesAt<F> + g % 8 * kHalves<F> * 16;
    const __m512 d = HalfToFloat(record + kSuperScalesAt);
    if constexpr (kHasMin<F>) {
      s->d[0] = _mm512_mul_ps(d, ByteToFloat(scales));
      s->m[0] = _mm512_xor_ps(_mm512_set1_ps(-0.0f),
                              _mm512_mul_ps(HalfToFloat(record + kSuperMinsAt<F>),
                                            ByteToFloat(record + kSubMinsAt<F> + g % 8 * 16)));
    } else {
      for (int h = 0; h < kHalves<F>; ++h)
        s->d[h] = _mm512_mul_ps(d, SignedByteToFloat(scales + h * 16));
    }
    return record + kSuperWeightsAt<F> + g % 8 * kWeightBytes<F>;
  } else {
    const uint8_t* record = panel + static_cast<size_t>(g) * kGroupStep<F>;
    for (int part = 0; part < kScaleParts<F>; ++part) {
      const uint8_t* at =
          record + kWeightBytes<F> + static_cast<size_t>(part) * 16 * kScaleBytes<F>;
      const __m512 v = kHalfScales<F> ? HalfToFloat(at) : _mm512_loadu_ps(at);
      if (part < kHalves<F>)
        s->d[part] = v;
      else
        s->m[part - kHalves<F>] = v;
    }
    return record;
  }
}

/// Adds a (half) group's integer dot of one row to its accumulator.
template <PackFormat F>
KV_INLINE __m512 Accumulate(const Scales& s, int h, float d, int32_t sum, __m512i dot, __m512 acc) {
  acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(s.d[h], _mm512_set1_ps(d)), acc);
  if constexpr (kHasMin<F>) {
    acc = _mm512_fmadd_ps(s.m[h], _mm512_set1_ps(d * static_cast<float>(sum)), acc);
  }
  return acc;
}

KV_INLINE __m512i Quad(const int8_t* q) {
  int32_t bytes;
  __builtin_memcpy(&bytes, q, 4);
  return _mm512_set1_epi32(bytes);
}

KV_INLINE void StoreRow(const PanelArgs& a, int64_t row, int64_t first, __m512 v) {
  float* out = a.out + row * a.out_stride + first;
  const int64_t left = a.columns - first;
  const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
  if (a.bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, a.bias + first));
  if (a.add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), v);
  _mm512_mask_storeu_ps(out, mask, v);
}

/// Weights as vpdpbusd takes them, kTakenOff too large: quad J (of 4) of a group, P = 0 of its
/// first 16 inputs.
template <PackFormat F, int J, int P>
KV_INLINE __m512i UnsignedWeights(const uint8_t* group) {
  if constexpr (kBits<F> == 8) {
    const __m512i v = _mm512_loadu_si512(group + (P * 4 + J) * 64);
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
  }
  const __m512i low = _mm512_set1_epi8(15), v = _mm512_loadu_si512(group + J * 64);
  const __m512i nibbles = _mm512_and_si512(P == 0 ? v : _mm512_srli_epi16(v, 4), low);
  if constexpr (kBits<F> == 4) {
    return nibbles;
  } else {
    constexpr int kBit = HighBitsAt<F>(J, P), kShift = kBit % 8;
    const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << (kBits<F> - 4)) - 1) << 4));
    __m512i high = _mm512_loadu_si512(group + 256 + kBit / 8 * 64);
    if constexpr (kShift < 4)
      high = _mm512_slli_epi16(high, 4 - kShift);
    else
      high = _mm512_srli_epi16(high, kShift - 4);
    return _mm512_ternarylogic_epi32(nibbles, high, mask, 0xf8);  // nibbles | (high & mask)
  }
}

/// acc += half H (where halves have scales of their own, else all) of group g of R rows from r on,
/// for N panels: an activation is loaded once for all of them. kUnpacked: `groups` hold what
/// UnsignedWeights gives, [P][J].
template <PackFormat F, int R, int N, bool kUnpacked, int H>
KV_INLINE void HalfRows(const uint8_t* const (&groups)[N], const Scales (&s)[N], const PanelArgs& a,
                        int64_t r, int64_t g, __m512 (&acc)[R][N]) {
  // The offset of the weights times the sum of the activations is taken off beforehand.
  __m512i dot[R][N];
  int32_t sum[R];
  const int8_t* q[R];
  for (int i = 0; i < R; ++i) {
    const int64_t at = (r + i) * (a.k / 32) + g;
    sum[i] = SumOfHalf<F>(a.sum, at, H);
    for (int n = 0; n < N; ++n) dot[i][n] = _mm512_set1_epi32(-kTakenOff<F> * sum[i]);
    q[i] = a.q + (r + i) * a.k + g * 32;
  }
  EachQuad([&]<int J, int P>() KV_LAMBDA {
    if constexpr (kHalves<F> == 1 || P == H) {
      __m512i w[N];
      for (int n = 0; n < N; ++n)
        w[n] = kUnpacked ? _mm512_load_si512(groups[n] + (P * 4 + J) * 64)
                         : UnsignedWeights<F, J, P>(groups[n]);
      for (int i = 0; i < R; ++i) {
        const __m512i x = Quad(q[i] + P * 16 + J * 4);
        for (int n = 0; n < N; ++n) dot[i][n] = _mm512_dpbusd_epi32(dot[i][n], w[n], x);
      }
    }
  });
  for (int i = 0; i < R; ++i) {
    const int64_t at = (r + i) * (a.k / 32) + g;
    for (int n = 0; n < N; ++n)
      acc[i][n] = Accumulate<F>(s[n], H, a.d[at], sum[i], dot[i][n], acc[i][n]);
  }
}

template <PackFormat F, int R, int N, bool kUnpacked = false>
KV_INLINE void GroupRows(const uint8_t* const (&groups)[N], const Scales (&s)[N],
                         const PanelArgs& a, int64_t r, int64_t g, __m512 (&acc)[R][N]) {
  HalfRows<F, R, N, kUnpacked, 0>(groups, s, a, r, g, acc);
  if constexpr (kHalves<F> == 2) HalfRows<F, R, N, kUnpacked, 1>(groups, s, a, r, g, acc);
}

/// Rows [r, r + R) of panels [p, p + N).
template <PackFormat F, int R, int N>
KV_INLINE void PanelRows(const PanelArgs& a, int64_t p, int64_t r) {
  __m512 acc[R][N];
  for (auto& row : acc) {
    for (__m512& x : row) x = _mm512_setzero_ps();
  }
  const uint8_t* panel[N];
  for (int n = 0; n < N; ++n) panel[n] = a.weights + static_cast<size_t>(p + n) * a.panel_bytes;
  for (int64_t g = 0; g < a.k / 32; ++g) {
    Scales s[N];
    const uint8_t* groups[N];
    for (int n = 0; n < N; ++n) groups[n] = GroupOf<F>(panel[n], g, &s[n]);
    // Whoever comes first brings the panel from memory; the others find it in the cache. 1 KiB
    // ahead is mostly the same page, where the second level's own prefetching follows: 30 GB/s
    // instead of 22 with 4 KiB (2 threads, Xeon, huge pages, loop of this kernel, 2026-11-25).
    if (r == 0) {
      for (int n = 0; n < N; ++n) {
        const uint8_t* ahead = panel[n] + static_cast<size_t>(g) * kGroupStep<F> + 1024;
        for (size_t line = 0; line < kGroupStep<F>; line += 64)
          _mm_prefetch(reinterpret_cast<const char*>(ahead + line), _MM_HINT_T0);
      }
    }
    GroupRows<F, R, N>(groups, s, a, r, g, acc);
  }
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) StoreRow(a, r + i, (p + n) * 16, acc[i][n]);
  }
}

/// Weights of five and six bits take as long to unpack as to use in eight rows: they are unpacked
/// for this many rows at once, some groups at a time. Q6_K, 256 rows: 35 ms instead of 54, 8 bits
/// with float scales 41; weights of four and eight bits are slower so (Q4_0: 31 ms instead of 28;
/// 2048 x 8192, 1 thread, EPYC with AVX-512, 2026-11-27).
template <PackFormat F>
constexpr bool kUnpackedFirst = kBits<F> == 5 || kBits<F> == 6;
constexpr int64_t kUnpackedRows = 64, kUnpackedGroups = 8;

/// Rows [r0, r0 + rows): at most kUnpackedRows, a multiple of R.
template <PackFormat F, int R, int N>
KV_INLINE void UnpackedRows(const PanelArgs& a, int64_t p, int64_t r0, int64_t rows) {
  alignas(64) float sums[kUnpackedRows][N][16] = {};
  alignas(64) uint8_t unpacked[kUnpackedGroups][N][512];
  const int64_t groups = a.k / 32;
  for (int64_t g0 = 0; g0 < groups; g0 += kUnpackedGroups) {
    const int64_t count = groups - g0 < kUnpackedGroups ? groups - g0 : kUnpackedGroups;
    Scales s[kUnpackedGroups][N];
    for (int64_t g = 0; g < count; ++g) {
      for (int n = 0; n < N; ++n) {
        const uint8_t* group =
            GroupOf<F>(a.weights + static_cast<size_t>(p + n) * a.panel_bytes, g0 + g, &s[g][n]);
        EachQuad([&]<int J, int P>() KV_LAMBDA {
          _mm512_store_si512(unpacked[g][n] + (P * 4 + J) * 64, UnsignedWeights<F, J, P>(group));
        });
      }
    }
    for (int64_t r = 0; r < rows; r += R) {
      __m512 acc[R][N];
      for (int i = 0; i < R; ++i) {
        for (int n = 0; n < N; ++n) acc[i][n] = _mm512_load_ps(sums[r + i][n]);
      }
      for (int64_t g = 0; g < count; ++g) {
        const uint8_t* at[N];
        for (int n = 0; n < N; ++n) at[n] = unpacked[g][n];
        GroupRows<F, R, N, true>(at, s[g], a, r0 + r, g0 + g, acc);
      }
      for (int i = 0; i < R; ++i) {
        for (int n = 0; n < N; ++n) _mm512_store_ps(sums[r + i][n], acc[i][n]);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int n = 0; n < N; ++n) StoreRow(a, r0 + r, (p + n) * 16, _mm512_load_ps(sums[r][n]));
  }
}

/// All rows of panels [p, p + N), R at a time while there are so many.
template <PackFormat F, int R, int N>
KV_INLINE void AllRows(const PanelArgs& a, int64_t p) {
  int64_t r = 0;
  while (kUnpackedFirst<F> && r + 16 <= a.rows) {
    const int64_t rows = (a.rows - r < kUnpackedRows ? a.rows - r : kUnpackedRows) / R * R;
    UnpackedRows<F, R, N>(a, p, r, rows);
    r += rows;
  }
  for (; r + R <= a.rows; r += R) PanelRows<F, R, N>(a, p, r);
  if constexpr (R > 4) {
    for (; r + 4 <= a.rows; r += 4) PanelRows<F, 4, N>(a, p, r);
  }
  for (; r + 2 <= a.rows; r += 2) PanelRows<F, 2, N>(a, p, r);
  for (; r < a.rows; ++r) PanelRows<F, 1, N>(a, p, r);
}

/// Of so many rows, four go through two panels together, which loads half as many activations as
/// eight through one. 512 rows of Q4_0 51.4 ms instead of 54.5, Q6_K 66.1 instead of 70, Q8_0 54
/// instead of 58.7; 8 rows 1.02 instead of 0.91, 32 rows the same, but of five and six bits, whose
/// 16 and 24 rows take 0.9 times as long; six rows through two panels are no better (2048 x 8192, 1
/// thread, EPYC with AVX-512, 2026-11-27).
template <PackFormat F>
constexpr int64_t kRowsForTwo = kUnpackedFirst<F> ? 16 : 32;

template <PackFormat F>
void VnniPanels(const PanelArgs& a) {
  int64_t p = 0;
  if (a.rows >= kRowsForTwo<F>) {
    for (; p + 2 <= a.panels; p += 2) AllRows<F, 4, 2>(a, p);
  }
  for (; p < a.panels; ++p) AllRows<F, 8, 1>(a, p);
}

/// Rows [r, r + R) of panels [p, p + N).
template <PackFormat F, int R, int N>
KV_INLINE void FloatRows(const PanelArgs& a, int64_t p, int64_t r) {
  __m512 acc[R][N];
  for (auto& row : acc) {
    for (__m512& v : row) v = _mm512_setzero_ps();
  }
  const float* x = a.x + r * a.x_stride;
  const uint8_t* panel[N];
  for (int n = 0; n < N; ++n) panel[n] = a.weights + static_cast<size_t>(p + n) * a.panel_bytes;
  const auto add = [&](const __m512(&w)[N], int64_t k) KV_LAMBDA {
    for (int i = 0; i < R; ++i) {
      const __m512 v = _mm512_set1_ps(x[i * a.x_stride + k]);
      for (int n = 0; n < N; ++n) acc[i][n] = _mm512_fmadd_ps(w[n], v, acc[i][n]);
    }
  };
  constexpr int64_t kStep = F == PackFormat::kBF16 ? 2 : 1;
  for (int64_t k = 0; k < a.k; k += kStep) {
    __m512 w[N], odd[N];
    for (int n = 0; n < N; ++n) {
      if constexpr (F == PackFormat::kF32) {
        w[n] = _mm512_loadu_ps(panel[n] + k * 64);
      } else if constexpr (F == PackFormat::kF16) {
        w[n] = HalfToFloat(panel[n] + k * 32);
      } else {
        const __m512i v = _mm512_loadu_si512(panel[n] + k * 32);
        w[n] = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
        odd[n] = _mm512_castsi512_ps(
            _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
      }
    }
    add(w, k);
    if (kStep == 2 && k + 1 < a.k) add(odd, k + 1);
  }
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) StoreRow(a, r + i, (p + n) * 16, acc[i][n]);
  }
}

/// Six rows through four panels load 10 operands for 24 products, twelve through one 13 for 12; of
/// one row, four panels are as many chains of additions, of which one takes longer than its weights
/// take to come. bf16: 512 rows 80 ms instead of 107, 2 rows 0.49 instead of 1.2, 1 row 0.51
/// instead of 0.58, the speed of memory (2048 x 8192, 2 threads, EPYC with AVX-512, 2026-11-27).
template <PackFormat F, int N>
KV_INLINE void AllFloatRows(const PanelArgs& a, int64_t p) {
  constexpr int R = N == 1 ? 12 : 6;
  int64_t r = 0;
  for (; r + R <= a.rows; r += R) FloatRows<F, R, N>(a, p, r);
  for (; r + 4 <= a.rows; r += 4) FloatRows<F, 4, N>(a, p, r);
  for (; r + 2 <= a.rows; r += 2) FloatRows<F, 2, N>(a, p, r);
  for (; r < a.rows; ++r) FloatRows<F, 1, N>(a, p, r);
}

template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  constexpr int N = 4;
  int64_t p = 0;
  for (; p + N <= a.panels; p += N) AllFloatRows<F, N>(a, p);
  for (; p < a.panels; ++p) AllFloatRows<F, 1>(a, p);
}
