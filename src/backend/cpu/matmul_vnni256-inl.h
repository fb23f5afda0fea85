// Products of integers by vpdpbusd in registers of 256 bits, after matmul_avx2-inl.h: of the
// avxvnni kernels, and of their test on machines without it. `Dpbusd` is the includer's. No include
// guard.

/// Before there were slabs 512 rows took 0.55 (Q4_0), 0.6 (Q4_K, Q6_K) and 0.3 (Q8_0) of the time
/// of the avx2 kernels; with three or six rows to a tile 0.95 to 1.02 times as fast (by AVX-512's
/// instruction of 256 bits, 2 threads of a Zen 4, 2026-11-27).
struct VnniProducts {
  static constexpr bool kSigned = false;
  template <PackFormat F>
  static constexpr int32_t kTimes = -kTakenOff<F>;

  template <PackFormat F, int R, int H>
  static KV_INLINE void Half(const int8_t* q, int64_t k, const auto& load, const auto& offset,
                             __m256i dot[R][2]) {
    for (int i = 0; i < R; ++i) dot[i][0] = dot[i][1] = _mm256_set1_epi32(offset(i));
    EachQuad([&]<int J, int P>() KV_LAMBDA {
      if constexpr (kHalves<F> == 1 || P == H) {
        const __m256i w0 = load.template operator()<J, P>(0),
                      w1 = load.template operator()<J, P>(1);
        for (int i = 0; i < R; ++i) {
          const __m256i x = Quad(q + i * k + P * 16 + J * 4);
          dot[i][0] = Dpbusd(dot[i][0], w0, x);
          dot[i][1] = Dpbusd(dot[i][1], w1, x);
        }
      }
    });
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
