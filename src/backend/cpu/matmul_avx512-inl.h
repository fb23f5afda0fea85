// Products in AVX-512 with VNNI, shared by the avx512 and the amx kernels, which are compiled with
// different flags: included once in each, inside their own namespace. No include guard.
//
// A panel's 16 columns are one register. vpdpbusd multiplies unsigned by signed bytes: four-bit
// weights are unsigned; eight-bit ones get 128 added (a flip of the top bit), which is taken off
// again as 128 * sum of the activations.

#define KV_INLINE inline __attribute__((always_inline))

KV_INLINE __m512 HalfToFloat(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KV_INLINE __m512 ByteToFloat(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

/// Scales and minima of a group, by half of the group.
struct Scales {
  __m512 d[2], m[2];
};

template <PackFormat F>
KV_INLINE const uint8_t* GroupOf(const uint8_t* panel, int64_t g, Scales* s) {
  if constexpr (F == PackFormat::kQ4K) {
    const uint8_t* record = panel + static_cast<size_t>(g / 8) * kQ4KBytes;
    s->d[0] = _mm512_mul_ps(HalfToFloat(record + kQ4KScalesAt),
                            ByteToFloat(record + kQ4KSubScalesAt + g % 8 * 16));
    s->m[0] = _mm512_xor_ps(_mm512_set1_ps(-0.0f),
                            _mm512_mul_ps(HalfToFloat(record + kQ4KMinsAt),
                                          ByteToFloat(record + kQ4KSubMinsAt + g % 8 * 16)));
    return record + g % 8 * 256;
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

template <PackFormat F, int R>
KV_INLINE void GroupRows(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                         int64_t g, __m512 acc[R]) {
  const __m512i low = _mm512_set1_epi8(15), flip = _mm512_set1_epi8(-128);
  constexpr int kQuads = 8 / kHalves<F>;
  constexpr int32_t kOffset = F == PackFormat::kQ4 ? 8 : kFourBit<F> ? 0 : 128;
  for (int h = 0; h < kHalves<F>; ++h) {
    // The offset of the weights times the sum of the activations is taken off beforehand.
    __m512i dot[R];
    int32_t sum[R];
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      sum[i] = kHalves<F> == 2 ? a.sum[2 * at + h] : a.sum[2 * at] + a.sum[2 * at + 1];
      dot[i] = _mm512_set1_epi32(-kOffset * sum[i]);
    }
    if constexpr (kFourBit<F>) {
      for (int j = 0; j < 4; ++j) {
        const __m512i v = _mm512_loadu_si512(group + j * 64);
        const __m512i lo = _mm512_and_si512(v, low);
        const __m512i hi = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        for (int i = 0; i < R; ++i) {
          const int8_t* q = a.q + (r + i) * a.k + g * 32 + j * 4;
          dot[i] = _mm512_dpbusd_epi32(dot[i], lo, Quad(q));
          dot[i] = _mm512_dpbusd_epi32(dot[i], hi, Quad(q + 16));
        }
      }
    } else {
      for (int j = h * kQuads; j < (h + 1) * kQuads; ++j) {
        const __m512i w = _mm512_xor_si512(_mm512_loadu_si512(group + j * 64), flip);
        for (int i = 0; i < R; ++i) {
          dot[i] = _mm512_dpbusd_epi32(dot[i], w, Quad(a.q + (r + i) * a.k + g * 32 + j * 4));
        }
      }
    }
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      acc[i] = Accumulate<F>(s, h, a.d[at], sum[i], dot[i], acc[i]);
    }
  }
}

template <PackFormat F, int R>
KV_INLINE void PanelRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  __m512 acc[R];
  for (int i = 0; i < R; ++i) acc[i] = _mm512_setzero_ps();
  for (int64_t g = 0; g < a.k / 32; ++g) {
    Scales s;
    const uint8_t* group = GroupOf<F>(panel, g, &s);
    // Whoever comes first brings the panel from memory; the others find it in the cache. 1 KiB
    // ahead is mostly the same page, where the second level's own prefetching follows: 30 GB/s
    // instead of 22 with 4 KiB (2 threads, Xeon, huge pages, loop of this kernel, 2026-11-25).
    if (r == 0) {
      for (size_t line = 0; line < (kFourBit<F> ? 320 : 576); line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(group) + 1024 + line, _MM_HINT_T0);
      }
    }
    GroupRows<F, R>(group, s, a, r, g, acc);
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

template <PackFormat F>
void VnniPanel(const PanelArgs& a, const uint8_t* panel, int64_t first, int64_t r) {
  for (; r + 8 <= a.rows; r += 8) PanelRows<F, 8>(a, panel, r, first);
  for (; r + 4 <= a.rows; r += 4) PanelRows<F, 4>(a, panel, r, first);
  for (; r + 2 <= a.rows; r += 2) PanelRows<F, 2>(a, panel, r, first);
  for (; r < a.rows; ++r) PanelRows<F, 1>(a, panel, r, first);
}

template <PackFormat F, int R>
KV_INLINE void FloatRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  __m512 acc[R];
  for (int i = 0; i < R; ++i) acc[i] = _mm512_setzero_ps();
  const float* x = a.x + r * a.x_stride;
  constexpr int64_t kStep = F == PackFormat::kBF16 ? 2 : 1;
  for (int64_t k = 0; k < a.k; k += kStep) {
    __m512 w, odd = _mm512_setzero_ps();
    if constexpr (F == PackFormat::kF32) {
      w = _mm512_loadu_ps(panel + k * 64);
    } else if constexpr (F == PackFormat::kF16) {
      w = HalfToFloat(panel + k * 32);
    } else {
      const __m512i v = _mm512_loadu_si512(panel + k * 32);
      w = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
      odd = _mm512_castsi512_ps(
          _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    for (int i = 0; i < R; ++i) {
      acc[i] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[i * a.x_stride + k]), acc[i]);
    }
    if (kStep == 2 && k + 1 < a.k) {
      for (int i = 0; i < R; ++i) {
        acc[i] = _mm512_fmadd_ps(odd, _mm512_set1_ps(x[i * a.x_stride + k + 1]), acc[i]);
      }
    }
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + 12 <= a.rows; r += 12) FloatRows<F, 12>(a, panel, r, p * 16);
    for (; r + 4 <= a.rows; r += 4) FloatRows<F, 4>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) FloatRows<F, 1>(a, panel, r, p * 16);
  }
}

/// Sixteen independent chains of `step` on registers alone. Registers that an asm statement claims
/// to change cannot be computed ahead of it.
template <typename V, typename F>
KV_INLINE void PeakLoop(int64_t rounds, V acc, V a, V b, const F& step) {
  V chains[16];
  for (V& v : chains) v = acc;
  asm volatile("" : "+v"(a), "+v"(b));
  for (int64_t i = 0; i < rounds; ++i) {
    for (V& v : chains) v = step(v, a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (V& v : chains) asm volatile("" : "+v"(v));
}

uint64_t FloatPeak(int64_t rounds) {
  PeakLoop(rounds, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), _mm512_set1_ps(2),
           [](__m512 v, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, v); });
  return static_cast<uint64_t>(rounds) * 16 * 16 * 2;
}
