// Attention to int8 K and V by vpdpbusd: included once by each inside its own namespace. No include
// guard.

constexpr size_t kTileRow = 64, kWholeTile = 1024;  // bytes

#include "backend/cpu/attention_steps-inl.h"

#include "backend/cpu/attention_int8-inl.h"

// vpdpbusd multiplies unsigned by signed bytes: queries and weights are taken apart into unsigned
// high and low bytes, K and V are the signed ones. High bytes of queries are 128 too large, which
// is taken off again as 128 times the sum of the keys.

/// 256 * high + low.
KV_INLINE __m512 Together(__m512i high, __m512i low) {
  return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
}

/// f(row, number of rows) over all rows.
template <typename F>
KV_INLINE void ForRows(int rows, const F& f) {
  int r = 0;
  for (; r + 8 <= rows; r += 8) f.template operator()<8>(r);
  for (; r + 4 <= rows; r += 4) f.template operator()<4>(r);
  for (; r < rows; ++r) f.template operator()<1>(r);
}

template <int R>
KV_INLINE void ScoreRows(const Split& s, int tile, int row, const uint8_t* soon) {
  const SplitArgs& a = s.a;
  const uint8_t* k = KTile(a, tile);
  const uint8_t *high = a.q + row * kTileRow, *low = high + Int8QueryBytes(a.head_dim_padded);
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i highs[R], lows[R], keys = _mm512_setzero_si512();
  for (int i = 0; i < R; ++i) highs[i] = lows[i] = _mm512_setzero_si512();
  for (int c = 0; c < a.head_dim_padded; c += 4) {
    const __m512i v = _mm512_loadu_si512(k + c * 16);
    if (soon != nullptr) Prefetch(soon + c * 16);
    keys = _mm512_dpbusd_epi32(keys, ones, v);
    const size_t at = static_cast<size_t>(c / 64) * kQueryChunk + static_cast<size_t>(c % 64);
    for (int i = 0; i < R; ++i) {
      highs[i] = _mm512_dpbusd_epi32(highs[i], Quad(high + at + i * kTileRow), v);
      lows[i] = _mm512_dpbusd_epi32(lows[i], Quad(low + at + i * kTileRow), v);
    }
  }
  const __m512i taken_off = _mm512_slli_epi32(keys, 7);
  const __m512 k_scale = _mm512_loadu_ps(ScalesAt(a, a.kv.k_scale_offset, tile));
  for (int i = 0; i < R; ++i) {
    StoreScore(s, tile, row + i, Together(_mm512_sub_epi32(highs[i], taken_off), lows[i]), k_scale);
  }
}

void Scores(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  for (int tile = step.first_tile; tile < step.last_tile; ++tile) {
    const uint8_t* const k = KSoon(a, tile);
    ForRows(
        a.rows, [&]<int R>(int row) __attribute__((always_inline)) {
          ScoreRows<R>(s, tile, row, row == 0 ? k : nullptr);
        });
  }
}

template <int R>
KV_INLINE void ValueRows(const Split& s, const Step& step, int group, int row,
                         const uint8_t* const* v, const uint8_t* const (*soon)[kUnit]) {
  const int from = step.first_tile / kUnit * kUnit;
  __m512i highs[R], lows[R];
  for (int i = 0; i < R; ++i) highs[i] = lows[i] = _mm512_setzero_si512();
  for (int tile = from, unit = 0; tile < step.last_tile; tile += kUnit, ++unit) {
    const auto* high = reinterpret_cast<const uint8_t*>(ScoresAt(s, tile, row));
    const auto* low = reinterpret_cast<const uint8_t*>(ScoresAt(s, tile + 1, row));
    for (int t = 0; t < 64; t += 4) {
      const __m512i x = _mm512_loadu_si512(v[unit] + t * 16);
      if (soon != nullptr && soon[unit][t / 16] != nullptr)
        Prefetch(soon[unit][t / 16] + t % 16 * 16);
      for (int i = 0; i < R; ++i) {
        highs[i] = _mm512_dpbusd_epi32(highs[i], Quad(high + i * kTileRow + t), x);
        lows[i] = _mm512_dpbusd_epi32(lows[i], Quad(low + i * kTileRow + t), x);
      }
    }
  }
  for (int i = 0; i < R; ++i) AddValue(s, step, group, row + i, Together(highs[i], lows[i]));
}

void Values(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const int groups = a.head_dim_padded / 16;
  const int from = step.first_tile / kUnit * kUnit;
  for (int g = 0; g < groups; ++g) {
    constexpr int kUnits = kTiles / kUnit;
    const uint8_t *v[kUnits] = {}, *soon[kUnits][kUnit] = {};
    for (int tile = from, unit = 0; tile < step.last_tile; tile += kUnit, ++unit) {
      v[unit] = VTile(s, tile, g);
      for (int i = 0; i < kUnit; ++i) soon[unit][i] = VSoon(a, tile + i, g);
    }
    ForRows(
        a.rows, [&]<int R>(int row) __attribute__((always_inline)) {
          ValueRows<R>(s, step, g, row, v, row == 0 ? soon : nullptr);
        });
  }
}

void ByteQueries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  PackQueries(q, rows, head_dim_padded, to, 0x80);
}

void ByteSplit(const SplitArgs& a) {
  const Split s = Begin(a);
  EachStep(
      s, [&](const Step& step) { Scores(s, step); }, [&](const Step& step) { Values(s, step); });
}
