// What the limits of AVX-512's arithmetics are measured with: included once by each set of kernels
// inside its own namespace, after matmul_avx512-inl.h. No include guard.

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

[[maybe_unused]] uint64_t FloatPeak(int64_t rounds) {
  PeakLoop(rounds, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), _mm512_set1_ps(2),
           [](__m512 v, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, v); });
  return static_cast<uint64_t>(rounds) * 16 * 16 * 2;
}
