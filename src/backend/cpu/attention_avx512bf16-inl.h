// Attention to bf16 K and V by vdpbf16ps: included once by each inside its own namespace. No
// include guard.

constexpr size_t kTileRow = 64, kWholeTile = 1024;  // bytes

#include "backend/cpu/attention_steps-inl.h"

#include "backend/cpu/attention_bf16-inl.h"

#include "backend/cpu/bf16_pairs-inl.h"

// Blocks hold K as pairs of channels of 16 tokens, and V as pairs of tokens of 16 channels: each
// 64 bytes of them are an operand of vdpbf16ps, whose other one is a pair of q or of weights in all
// lanes.

/// Four rows by four operands: 8 loads for 16 products. Six rows by four operands, or eight by two
/// or three, took as long (512 tokens after 8,192: 97 to 99 ms; in f32 200; 2 threads, EPYC with
/// AVX-512, 2026-11-27).
constexpr int kRows = 4, kWide = 4;

/// f(first row) for all rows, kRows at a time; fewer at the end.
template <typename F>
KV_INLINE void ForRows(int rows, const F& f) {
  int r = 0;
  for (; r + kRows <= rows; r += kRows) f.template operator()<kRows>(r);
  static_assert(kRows == 4);
  if (rows - r == 3) f.template operator()<3>(r);
  if (rows - r == 2) f.template operator()<2>(r);
  if (rows - r == 1) f.template operator()<1>(r);
}

/// Tiles of K a step later, T of them, which are prefetched line after line: so the hardware's own
/// prefetching follows.
template <int T>
struct TilesAhead {
  const uint8_t* tiles[T];  // null where not known
  size_t tile_bytes;
  int tile = 0;
  size_t at = 0;

  KV_INLINE void Next() {  // T lines
    if (tiles[tile] != nullptr) {
      for (int i = 0; i < T; ++i) Prefetch(tiles[tile] + at + static_cast<size_t>(i) * kTileRow);
    }
    at += T * kTileRow;
    if (at < tile_bytes) return;
    at = 0;
    ++tile;
  }
};

/// Scores of R rows and T tiles.
template <int R, int T>
KV_INLINE void ScoreRows(const Split& s, const Step& step, int tile, int row,
                         TilesAhead<T>* ahead) {
  const SplitArgs& a = s.a;
  __m512 sums[R][T];
  for (auto& of_row : sums) {
    for (__m512& sum : of_row) sum = _mm512_setzero_ps();
  }
  const uint8_t* k[T];
  for (int t = 0; t < T; ++t) k[t] = step.k[(tile + t) % kTiles];
  const uint8_t* q = a.q + row * kTileRow;
  for (int c = 0; c < a.head_dim_padded; c += 32, q += kQueryChunk) {
    const int pairs = Least(a.head_dim_padded - c, 32) / 2;
    for (int i = 0; i < pairs; ++i) {
      __m512i keys[T];
      for (int t = 0; t < T; ++t) {
        keys[t] = _mm512_loadu_si512(k[t] + static_cast<size_t>(c / 2 + i) * kTileRow);
      }
      if (ahead != nullptr) ahead->Next();
      for (int r = 0; r < R; ++r) {
        const __m512i pair = Quad(q + r * kTileRow + i * 4);
        for (int t = 0; t < T; ++t) sums[r][t] = AddPairs(sums[r][t], pair, keys[t]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) _mm512_store_ps(ScoresAt(s, tile + t, row + r), sums[r][t]);
  }
}

template <int T>
KV_INLINE void ScoreTiles(const Split& s, const Step& step, int tile) {
  const SplitArgs& a = s.a;
  TilesAhead<T> ahead = {.tiles = {}, .tile_bytes = Bf16KTileBytes(a)};
  for (int t = 0; t < T; ++t) ahead.tiles[t] = Bf16KSoon(a, tile + t);
  ForRows(
      a.rows, [&]<int R>(int row) __attribute__((always_inline)) {
        ScoreRows<R, T>(s, step, tile, row, row == 0 ? &ahead : nullptr);
      });
}

void Scores(const Split& s, const Step& step) {
  int tile = step.first_tile;
  for (; tile + kWide <= step.last_tile; tile += kWide) ScoreTiles<kWide>(s, step, tile);
  for (; tile < step.last_tile; ++tile) ScoreTiles<1>(s, step, tile);
}

/// Operands of a step's values: by chunk of 32 tokens and group of 16 channels.
struct Operands {
  const uint8_t* v[kTiles / 2][kWide];
  const uint8_t* soon[kTiles / 2];  // V of the first group a step later, or null
};

/// Adds a step to N groups of 16 channels of R rows.
template <int R, int N>
KV_INLINE void ValueRows(const Split& s, const Step& step, int group, int row, const Operands& of,
                         bool prefetch) {
  const SplitArgs& a = s.a;
  const auto stride = static_cast<size_t>(a.head_dim_padded);
  float* const acc = a.acc + static_cast<size_t>(row) * stride + group * 16;
  __m512 sums[R][N];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) {
      sums[r][n] = step.first ? _mm512_setzero_ps()
                              : _mm512_loadu_ps(acc + static_cast<size_t>(r) * stride + n * 16);
    }
  }
  for (int chunk = step.first_tile / 2; chunk * 2 < step.last_tile; ++chunk) {
    const int index = chunk % (kTiles / 2);
    const auto* p = reinterpret_cast<const uint8_t*>(ScoresAt(s, 2 * chunk, row));
    const uint8_t* const* v = of.v[index];
    const uint8_t* soon = prefetch ? of.soon[index] : nullptr;
    for (int i = 0; i < 16; ++i) {
      __m512i values[N];
      for (int n = 0; n < N; ++n) {
        values[n] = _mm512_loadu_si512(v[n] + i * kTileRow);
        const int line = i * N + n;  // line after line, too
        if (soon != nullptr)
          Prefetch(soon + static_cast<size_t>(line / 16 * a.block_tokens) * 32 +
                   line % 16 * kTileRow);
      }
      for (int r = 0; r < R; ++r) {
        const __m512i pair = Quad(p + r * kTileRow + i * 4);
        for (int n = 0; n < N; ++n) sums[r][n] = AddPairs(sums[r][n], pair, values[n]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n)
      _mm512_storeu_ps(acc + static_cast<size_t>(r) * stride + n * 16, sums[r][n]);
  }
}

template <int N>
KV_INLINE void ValueGroups(const Split& s, const Step& step, int group) {
  static_assert(size_t{kTiles / 2 * kWide} * kWholeTile <= kRestBytes);
  const SplitArgs& a = s.a;
  Operands of;
  for (int chunk = step.first_tile / 2; chunk * 2 < step.last_tile; ++chunk) {
    const int index = chunk % (kTiles / 2);
    const uint8_t* const whole = step.v[index];
    for (int n = 0; n < N; ++n) {
      if (whole != nullptr) {
        of.v[index][n] =
            whole + static_cast<size_t>(group + n) * static_cast<size_t>(a.block_tokens) * 32;
        continue;
      }
      uint8_t* const gathered = s.rest + static_cast<size_t>(index * kWide + n) * kWholeTile;
      GatherBf16V(s, chunk, group + n, gathered);
      of.v[index][n] = gathered;
    }
    of.soon[index] = Bf16VSoon(a, chunk, group);
  }
  ForRows(
      a.rows, [&]<int R>(int row) __attribute__((always_inline)) {
        ValueRows<R, N>(s, step, group, row, of, row == 0);
      });
}

void Values(const Split& s, const Step& step) {
  const int groups = s.a.head_dim_padded / 16;
  int g = 0;
  for (; g + kWide <= groups; g += kWide) ValueGroups<kWide>(s, step, g);
  for (; g < groups; ++g) ValueGroups<1>(s, step, g);
}

void Bf16Split(const SplitArgs& a) {
  const Split s = Begin(a);
  if (NotFiniteAtEdges(s)) return scalar::kPairAttention.of[2].split(a);
  EachBf16Step(
      s, [&](const Step& step) { Scores(s, step); }, [&](const Step& step) { Values(s, step); });
  AddLanes(s);
}
