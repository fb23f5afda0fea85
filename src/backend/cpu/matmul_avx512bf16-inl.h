// Products with bf16 weights by vdpbf16ps: included once by each inside its own namespace, after
// matmul_avx512-inl.h. No include guard.

#include "backend/cpu/bf16_pairs-inl.h"

/// Rows [r, r + R) of panels [p, p + N). A pair of inputs of a panel is an operand as it lies.
template <int R, int N>
KV_INLINE void PairRows(const PanelArgs& a, int64_t p, int64_t r) {
  __m512 sums[R][N];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  const size_t row_bytes = PairBytes(a.k);
  const auto* const x =
      reinterpret_cast<const int8_t*>(a.pairs) + static_cast<size_t>(r) * row_bytes;
  const uint8_t* panel[N];
  for (int n = 0; n < N; ++n) panel[n] = a.weights + static_cast<size_t>(p + n) * a.panel_bytes;
  for (size_t i = 0; i * 4 < row_bytes; ++i) {
    __m512i w[N];
    for (int n = 0; n < N; ++n) w[n] = _mm512_loadu_si512(panel[n] + i * 64);
    for (int j = 0; j < R; ++j) {
      const __m512i pair = Quad(x + static_cast<size_t>(j) * row_bytes + i * 4);
      for (int n = 0; n < N; ++n) sums[j][n] = AddPairs(sums[j][n], pair, w[n]);
    }
  }
  for (int j = 0; j < R; ++j) {
    for (int n = 0; n < N; ++n) StoreRow(a, r + j, (p + n) * 16, sums[j][n]);
  }
}

template <int N>
KV_INLINE void AllPairRows(const PanelArgs& a, int64_t p) {
  constexpr int R = N == 1 ? 12 : 6;
  int64_t r = 0;
  for (; r + R <= a.rows; r += R) PairRows<R, N>(a, p, r);
  for (; r + 4 <= a.rows; r += 4) PairRows<4, N>(a, p, r);
  for (; r + 2 <= a.rows; r += 2) PairRows<2, N>(a, p, r);
  for (; r < a.rows; ++r) PairRows<1, N>(a, p, r);
}

void PairPanels(const PanelArgs& a) {
  constexpr int N = 4;
  int64_t p = 0;
  for (; p + N <= a.panels; p += N) AllPairRows<N>(a, p);
  for (; p < a.panels; ++p) AllPairRows<1>(a, p);
}

void PairsOf(const float* x, int64_t k, uint8_t* out) {
  for (int64_t i = 0; i < k; i += 16) {
    const int64_t left = k - i, words = left + left % 2;
    const auto from = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
    const auto to = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << words) - 1);
    const auto bits =
        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(from, x + i)));
    _mm256_mask_storeu_epi16(out + i * 2, to, bits);
  }
}
