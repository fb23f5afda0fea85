// VPDPBUSD by AVX2, for tests on machines without it: included once by each, inside its own
// namespace. No include guard.

/// Even and odd bytes apart, in words, whose products do not saturate.
[[maybe_unused]] inline __attribute__((always_inline)) __m256i Dpbusd(__m256i sum, __m256i u,
                                                                      __m256i s) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(0xff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
