// Shared by the kernels of avx512bf16: included once by each inside its own namespace. No include
// guard.

/// sum += the products of two pairs of bf16 in each lane, by vdpbf16ps.
inline __attribute__((always_inline)) __m512 AddPairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
