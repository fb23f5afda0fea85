#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/exp_constants.h"
#include "backend/cpu/tiles_bf16.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::amx {
namespace {

constexpr int kAheadBytes = 4096;  // of K and V, fetched ahead of their use by few rows

/// Everything of one call that does not change.
struct Split {
  const SplitArgs& a;
  float* scores;  // [kSplitTokens / 16][capacity][16]; the weights of 32 tokens as bf16, in rows of
                  // 64 bytes, take the place of the first 16 scores
  float* sums;    // [kSplitRows][16] lanes of l
  float* most;    // [kSplitRows][16] lanes of m
  uint8_t* gathered;  // two tiles of V in turn
  int capacity;       // rows of a tile of scores: 16 or kSplitRows
  int first, second;  // rows of the two groups of at most 16
};

inline float* ScoresAt(const Split& s, int tile, int row) {
  return s.scores + (static_cast<size_t>(tile) * s.capacity + row) * 16;
}

inline int Least(int a, int b) { return a < b ? a : b; }
inline int Most(int a, int b) { return a > b ? a : b; }

/// Which of the 16 tokens from `at` lie in [begin, end).
inline __mmask16 Inside(int begin, int end, int at) {
  const int from = Least(Most(begin - at, 0), 16), to = Least(Most(end - at, 0), 16);
  return static_cast<__mmask16>((1u << to) - (1u << from)) & (to > from ? 0xffffu : 0u);
}

inline void Prefetch(const uint8_t* from, int lines) {
  for (int i = 0; i < lines; ++i)
    _mm_prefetch(reinterpret_cast<const char*>(from) + i * 64, _MM_HINT_T0);
}

void Bf16Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t c = 0; c < head_dim_padded; c += 16) {
      const __m512 x = _mm512_loadu_ps(q + static_cast<size_t>(r) * head_dim_padded + c);
      const size_t at = static_cast<size_t>(c / 32 * kSplitRows + r) * 32 + c % 32;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at * 2),
                          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
    }
  }
}

inline const uint8_t* Bf16KTile(const SplitArgs& a, int tile) {
  const int t = tile * 16;
  return a.blocks[t / a.block_tokens] + a.k_offset +
         static_cast<size_t>(t % a.block_tokens / 16) * a.head_dim_padded * 32;
}

/// Scores of all rows for tiles of 16 tokens: tiles 0 and 1 are sums, 2 and 3 rows of q, 4 K; 5, 6
/// and 7 the same for 16 last channels.
template <bool kTwo>
void Bf16Scores(const Split& s, int from, int to) {
  const SplitArgs& a = s.a;
  const int whole = a.head_dim_padded / 32, rest = a.head_dim_padded % 32;
  TileConfig config;
  for (int i = 0; i < 2; ++i) {
    const int rows = i == 0 ? s.first : s.second;
    if (rows == 0) continue;
    SetTile(config, i, rows, 64);
    SetTile(config, 2 + i, rows, 64);
    if (rest > 0) SetTile(config, 5 + i, rows, rest * 2);
  }
  SetTile(config, 4, 16, 64);
  if (rest > 0) SetTile(config, 7, rest / 2, 64);
  config.Load();
  constexpr size_t kGroup = 16 * kTileRow, kChunk = kSplitRows * kTileRow;
  const int tile_bytes = a.head_dim_padded * 32, ahead = kAheadBytes / tile_bytes + 1;
  for (int tile = from; tile < to; ++tile) {
    const uint8_t* k = Bf16KTile(a, tile);
    if (!kTwo && tile + ahead < to) Prefetch(Bf16KTile(a, tile + ahead), tile_bytes / 64);
    TileZero<0>();
    if constexpr (kTwo) TileZero<1>();
    for (int c = 0; c < whole; ++c) {
      TileLoad<4>(k + c * kTileBytes);
      TileLoad<2>(a.q + c * kChunk);
      TileDotBf16<0, 2, 4>();
      if constexpr (kTwo) {
        TileLoad<3>(a.q + c * kChunk + kGroup);
        TileDotBf16<1, 3, 4>();
      }
    }
    if (rest > 0) {
      TileLoad<7>(k + whole * kTileBytes);
      TileLoad<5>(a.q + whole * kChunk);
      TileDotBf16<0, 5, 7>();
      if constexpr (kTwo) {
        TileLoad<6>(a.q + whole * kChunk + kGroup);
        TileDotBf16<1, 6, 7>();
      }
    }
    TileStore<0>(ScoresAt(s, tile, 0));
    if constexpr (kTwo) TileStore<1>(ScoresAt(s, tile, 16));
  }
}

/// Lanes of the maximum of up to R rows over tiles [from, to), which all of them attend to wholly.
template <int R>
void MostOfTiles(const Split& s, int row, int from, int to) {
  __m512 most[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) most[r] = _mm512_load_ps(s.most + (row + r) * 16);
  for (int tile = from; tile < to; ++tile) {
    const float* scores = ScoresAt(s, tile, row);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) most[r] = _mm512_max_ps(_mm512_load_ps(scores + r * 16), most[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) _mm512_store_ps(s.most + (row + r) * 16, most[r]);
}

/// What all rows that attend to something of the split attend to.
struct Common {
  int begin, end;
};

Common CommonOf(const SplitArgs& a) {
  Common common = {a.least, a.most};
  for (int r = 0; r < a.rows; ++r) {
    if (a.begin[r] >= a.end[r]) continue;
    common.begin = Most(common.begin, a.begin[r]);
    common.end = Least(common.end, a.end[r]);
  }
  return common;
}

/// m of all rows, and the lanes of l set to 0.
void MostOfScores(const Split& s, Common common, int from, int to) {
  const SplitArgs& a = s.a;
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  for (int r = 0; r < s.capacity; ++r) {
    _mm512_store_ps(s.most + r * 16, none);
    _mm512_store_ps(s.sums + r * 16, _mm512_setzero_ps());
  }
  const int first = (common.begin + 15) / 16, last = common.end / 16;
  if (first < last) {
    if (a.rows <= 4) {
      MostOfTiles<4>(s, 0, first, last);
    } else {
      for (int row = 0; row < a.rows; row += 16) MostOfTiles<16>(s, row, first, last);
    }
  }
  for (int r = 0; r < a.rows; ++r) {
    __m512 most = _mm512_load_ps(s.most + r * 16);
    for (int tile = from; tile < to; ++tile) {
      if (tile == first && first < last) tile = last;
      if (tile >= to) break;
      const __mmask16 mask = Inside(a.begin[r], a.end[r], tile * 16);
      most = _mm512_mask_max_ps(most, mask, _mm512_load_ps(ScoresAt(s, tile, r)), most);
    }
    // Rows that attend to nothing have read tiles of others.
    a.m[r] = a.begin[r] < a.end[r] ? _mm512_reduce_max_ps(most) : -__builtin_inff();
  }
}

inline __m512 Pow2(__m512 t, __mmask16 mask) {
  const __m512 r = _mm512_reduce_ps(t, 0x09);  // t - floor(t)
  __m512 q = _mm512_fmadd_ps(_mm512_set1_ps(kPow2c), r, _mm512_set1_ps(kPow2b));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(kPow2a));
  return _mm512_maskz_scalef_ps(mask, _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f)), t);
}

/// Scores of 32 tokens become weights.
template <bool kWhole>
void Weights(const Split& s, int chunk) {
  const SplitArgs& a = s.a;
  const __m512 scale = _mm512_set1_ps(kLog2E);
  float* scores = ScoresAt(s, 2 * chunk, 0);
  const size_t next = static_cast<size_t>(s.capacity) * 16;
  for (int r = 0; r < a.rows; ++r) {
    __mmask16 low = 0xffff, high = 0xffff;
    if constexpr (!kWhole) {
      low = Inside(a.begin[r], a.end[r], chunk * 32);
      high = Inside(a.begin[r], a.end[r], chunk * 32 + 16);
    }
    float* at = scores + r * 16;
    const __m512 shift = _mm512_set1_ps(-(a.m[r] * kLog2E));
    const __m512 p = Pow2(_mm512_fmadd_ps(_mm512_load_ps(at), scale, shift), low);
    const __m512 q = Pow2(_mm512_fmadd_ps(_mm512_load_ps(at + next), scale, shift), high);
    const __m512 sum = _mm512_load_ps(s.sums + r * 16);
    _mm512_store_ps(s.sums + r * 16, _mm512_add_ps(_mm512_add_ps(sum, p), q));
    _mm512_store_si512(at, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(q, p)));
  }
}

/// The B tile of V of 32 tokens and 16 channels: where it lies, or gathered from two blocks, with
/// zeros for what no row attends to (it may be stale, or not there).
inline const uint8_t* Bf16VTile(const Split& s, int chunk, int group, int turn) {
  const SplitArgs& a = s.a;
  const int t = chunk * 32;
  const size_t group_bytes = static_cast<size_t>(a.block_tokens) * 32;
  if (t >= a.least && t + 32 <= a.most && a.block_tokens >= 32) {
    return a.blocks[t / a.block_tokens] + a.v_offset + group * group_bytes +
           static_cast<size_t>(t % a.block_tokens) * 32;
  }
  uint8_t* to = s.gathered + turn * kTileBytes;
  for (int pair = t; pair < t + 32; pair += 2, to += kTileRow) {
    const unsigned even = pair >= a.least && pair < a.most ? 0xffffu : 0;
    const unsigned odd = pair + 1 >= a.least && pair + 1 < a.most ? 0xffff0000u : 0;
    __m512i v = _mm512_setzero_si512();
    if ((even | odd) != 0) {
      v = _mm512_loadu_si512(a.blocks[pair / a.block_tokens] + a.v_offset + group * group_bytes +
                             static_cast<size_t>(pair % a.block_tokens) * 32);
      v = _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(even | odd)));
    }
    _mm512_store_si512(to, v);
  }
  return s.gathered + turn * kTileBytes;
}

/// Adds 32 tokens to N groups of 16 channels. Two groups of rows: tiles 2n and 2n + 1 are sums, 4
/// and 5 weights, 6 and 7 V. One: tiles 0 to 3 are sums, 4 weights, 5 to 7 V.
template <bool kTwo, int N>
inline void Bf16ValueStep(const Split& s, int chunk, int group) {
  const auto* p = reinterpret_cast<const uint8_t*>(ScoresAt(s, 2 * chunk, 0));
  TileLoad<4>(p);
  if constexpr (kTwo) {
    TileLoad<5>(p + 16 * kTileRow);
    TileLoad<6>(Bf16VTile(s, chunk, group, 0));
    TileDotBf16<0, 4, 6>();
    TileDotBf16<1, 5, 6>();
    if constexpr (N > 1) {
      TileLoad<7>(Bf16VTile(s, chunk, group + 1, 1));
      TileDotBf16<2, 4, 7>();
      TileDotBf16<3, 5, 7>();
    }
  } else {
    TileLoad<5>(Bf16VTile(s, chunk, group, 0));
    TileDotBf16<0, 4, 5>();
    if constexpr (N > 1) {
      TileLoad<6>(Bf16VTile(s, chunk, group + 1, 1));
      TileDotBf16<1, 4, 6>();
    }
    if constexpr (N > 2) {
      TileLoad<7>(Bf16VTile(s, chunk, group + 2, 2));
      TileDotBf16<2, 4, 7>();
    }
    if constexpr (N > 3) {
      TileLoad<5>(Bf16VTile(s, chunk, group + 3, 3));
      TileDotBf16<3, 4, 5>();
    }
  }
}

template <int T>
inline void StoreSums(const Split& s, int row, int group) {
  TileStore<T>(s.a.acc + static_cast<size_t>(row) * s.a.head_dim_padded + group * 16,
               static_cast<size_t>(s.a.head_dim_padded) * sizeof(float));
}

/// Sums over tokens of N groups of 16 channels. The first time the weights are computed on the way,
/// each 32 tokens' while the tiles are busy with the 32 before.
template <bool kTwo, int N>
void Bf16Values(const Split& s, Common common, int group) {
  const SplitArgs& a = s.a;
  const int from = a.least / 32, to = (a.most + 31) / 32;
  TileZero<0>();
  TileZero<1>();
  TileZero<2>();
  TileZero<3>();
  for (int chunk = from; chunk < to; ++chunk) {
    if (!kTwo && chunk + 1 < to) {
      for (int n = 0; n < N; ++n) {
        const int t = (chunk + 1) * 32;
        Prefetch(a.blocks[t / a.block_tokens] + a.v_offset +
                     (static_cast<size_t>(group + n) * a.block_tokens + t % a.block_tokens) * 32,
                 16);
      }
    }
    if (group == 0) {
      if (chunk > from) Bf16ValueStep<kTwo, N>(s, chunk - 1, group);
      if (chunk * 32 >= common.begin && chunk * 32 + 32 <= common.end) {
        Weights<true>(s, chunk);
      } else {
        Weights<false>(s, chunk);
      }
    } else {
      Bf16ValueStep<kTwo, N>(s, chunk, group);
    }
  }
  if (group == 0) Bf16ValueStep<kTwo, N>(s, to - 1, group);
  StoreSums<0>(s, 0, group);
  if constexpr (kTwo) {
    StoreSums<1>(s, 16, group);
    if constexpr (N > 1) {
      StoreSums<2>(s, 0, group + 1);
      StoreSums<3>(s, 16, group + 1);
    }
  } else {
    if constexpr (N > 1) StoreSums<1>(s, 0, group + 1);
    if constexpr (N > 2) StoreSums<2>(s, 0, group + 2);
    if constexpr (N > 3) StoreSums<3>(s, 0, group + 3);
  }
}

template <bool kTwo>
void Bf16AllValues(const Split& s, Common common) {
  TileConfig config;
  for (int i = 0; i < 4; ++i) SetTile(config, i, kTwo && i % 2 == 1 ? s.second : s.first, 64);
  SetTile(config, 4, s.first, 64);
  SetTile(config, 5, kTwo ? s.second : 16, 64);
  SetTile(config, 6, 16, 64);
  SetTile(config, 7, 16, 64);
  config.Load();
  const int groups = s.a.head_dim_padded / 16;
  int g = 0;
  if constexpr (kTwo) {
    for (; g + 2 <= groups; g += 2) Bf16Values<true, 2>(s, common, g);
    if (g < groups) Bf16Values<true, 1>(s, common, g);
  } else {
    for (; g + 4 <= groups; g += 4) Bf16Values<false, 4>(s, common, g);
    if (groups - g == 3) Bf16Values<false, 3>(s, common, g);
    if (groups - g == 2) Bf16Values<false, 2>(s, common, g);
    if (groups - g == 1) Bf16Values<false, 1>(s, common, g);
  }
}

/// Whether V is not finite in 32 tokens that some rows attend to and others do not: 0 times it
/// would not be 0.
bool NotFiniteAtEdges(const SplitArgs& a, Common common) {
  const __m512i exponents = _mm512_set1_epi16(0x7f80);
  __mmask32 bad = 0;
  for (int chunk = a.least / 32; chunk < (a.most + 31) / 32; ++chunk) {
    const int from = Most(a.least, chunk * 32), to = Least(a.most, chunk * 32 + 32);
    if (from >= common.begin && to <= common.end) continue;
    for (int t = from; t < to; t += 2 - t % 2) {
      const __mmask32 held =
          (t % 2 == 0 ? 0x55555555u : 0) | (t % 2 == 1 || t + 1 < to ? 0xaaaaaaaau : 0);
      const uint8_t* v = a.blocks[t / a.block_tokens] + a.v_offset +
                         static_cast<size_t>(t % a.block_tokens / 2) * 64;
      for (int g = 0; g < a.head_dim_padded / 16; ++g) {
        const __m512i x = _mm512_and_si512(
            _mm512_loadu_si512(v + static_cast<size_t>(g) * a.block_tokens * 32), exponents);
        bad |= _mm512_mask_cmpeq_epi16_mask(held, x, exponents);
      }
    }
  }
  return bad != 0;
}

void Bf16Split(const SplitArgs& a) {
  const Common common = CommonOf(a);
  if (NotFiniteAtEdges(a, common)) return scalar::kTileAttention.of[2].split(a);
  Split s = {a, reinterpret_cast<float*>(a.scratch), nullptr, nullptr, nullptr, 0, 0, 0};
  s.sums = s.scores + static_cast<size_t>(kSplitRows) * kSplitTokens;
  s.most = s.sums + kSplitRows * 16;
  s.gathered = reinterpret_cast<uint8_t*>(s.most + kSplitRows * 16);
  s.capacity = a.rows <= 16 ? 16 : kSplitRows;
  s.first = Least(a.rows, 16);
  s.second = a.rows - s.first;
  const int from = a.least / 16, to = (a.most + 15) / 16;
  if (s.second > 0) {
    Bf16Scores<true>(s, from, to);
    MostOfScores(s, common, from, to);
    Bf16AllValues<true>(s, common);
  } else {
    Bf16Scores<false>(s, from, to);
    MostOfScores(s, common, from, to);
    Bf16AllValues<false>(s, common);
  }
  ReleaseTiles();
  for (int r = 0; r < a.rows; ++r) {
    // Lanes are added in halves: 8, 4, 2, 1.
    const __m512 lanes = _mm512_load_ps(s.sums + r * 16);
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    a.l[r] = _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
}

}  // namespace

const AttentionKernels kTileAttention = {{{}, {}, {Bf16Queries, Bf16Split}, {}}};

}  // namespace kvasir::amx
