// Products of integers by vpdpbusd in registers of 256 bits, after matmul_avx2-inl.h: of the
// avxvnni kernels, and of their test on machines that have it in AVX-512 only. `Dpbusd` is the
// includer's. No include guard.

/// Of 512 rows this takes 0.55 (Q4_0), 0.6 (Q4_K, Q6_K) and 0.3 (Q8_0) of the time of the avx2
/// kernels; with three or six rows to a tile it is 0.95 to 1.02 times as fast (by AVX-512's
/// instruction of 256 bits, 2 threads of a Zen 4, 2026-11-27).
struct VnniProducts {
  /// acc += half H of the group (where halves have scales of their own, else all).
  template <PackFormat F, int R, int H>
  static KV_INLINE void Half(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                             int64_t g, __m256 acc[R][2]) {
    __m256i dot[R][2];
    int32_t sum[R];
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      sum[i] = SumOfHalf<F>(a, at, H);
      dot[i][0] = dot[i][1] = _mm256_set1_epi32(-kTakenOff<F> * sum[i]);
    }
    const int8_t* q = a.q + r * a.k + g * 32;
    EachQuad([&]<int J, int P>() __attribute__((always_inline)) {
      if constexpr (kHalves<F> == 1 || P == H) {
        const __m256i w0 = UnsignedWeights<F, J, P>(group, 0),
                      w1 = UnsignedWeights<F, J, P>(group, 1);
        for (int i = 0; i < R; ++i) {
          const __m256i x = Quad(q + i * a.k + P * 16 + J * 4);
          dot[i][0] = Dpbusd(dot[i][0], w0, x);
          dot[i][1] = Dpbusd(dot[i][1], w1, x);
        }
      }
    });
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      Accumulate<F>(s, H, a.d[at], sum[i], dot[i][0], dot[i][1], acc[i]);
    }
  }

  template <PackFormat F, int R>
  static KV_INLINE void Group(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                              int64_t g, __m256 acc[R][2]) {
    Half<F, R, 0>(group, s, a, r, g, acc);
    if constexpr (kHalves<F> == 2) Half<F, R, 1>(group, s, a, r, g, acc);
  }
};

uint64_t Int8Peak(int64_t rounds) {
  __m256i acc[8];
  for (__m256i& v : acc) v = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(a), "+x"(b));
    for (__m256i& v : acc) v = Dpbusd(v, a, b);
  }
  for (__m256i& v : acc) asm volatile("" : "+x"(v));
  return static_cast<uint64_t>(rounds) * 8 * 32 * 2;
}

/// The kernels of one set.
constexpr MatMulKernels VnniKernels() {
  return {
      avx2::QuantizeRow,
      nullptr,
      {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
       Panels<VnniProducts, PackFormat::kQ4>, Panels<VnniProducts, PackFormat::kQ4M>,
       Panels<VnniProducts, PackFormat::kQ4K>, Panels<VnniProducts, PackFormat::kQ5K>,
       Panels<VnniProducts, PackFormat::kQ6K>, Panels<VnniProducts, PackFormat::kQ8>,
       Panels<VnniProducts, PackFormat::kQ8M>, Panels<VnniProducts, PackFormat::kQ8F>,
       Panels<VnniProducts, PackFormat::kQ8F2>, Panels<VnniProducts, PackFormat::kQ8FM2>},
      Int8Peak,
      FloatPeak,
      nullptr};
}
