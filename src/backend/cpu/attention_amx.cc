#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/tiles.h"
#include "base/exp_constants.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::amx {
namespace {

#include "backend/cpu/attention_steps-inl.h"

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

/// For products of whole tiles. Two groups of rows: tiles 0 and 2 are sums of the first, 1 and 3 of
/// the second, 4 and 5 rows of A of each, 6 and 7 B. One: 0 to 3 are sums, 4 A, 5 to 7 B.
template <bool kTwo>
void ConfigureWhole(const Split& s) {
  TileConfig config;
  for (int i = 0; i < 4; ++i) SetTile(config, i, kTwo && i % 2 == 1 ? s.second : s.first, 64);
  SetTile(config, 4, s.first, 64);
  SetTile(config, 5, kTwo ? s.second : 16, 64);
  SetTile(config, 6, 16, 64);
  SetTile(config, 7, 16, 64);
  config.Load();
}

constexpr size_t kQueryGroup = 16 * kTileRow, kQueryChunk = kSplitRows * kTileRow;

/// Scores of 16 tokens in tiles kSum and kSum + 1.
template <bool kTwo, int kSum>
inline void WholeScores(const SplitArgs& a, const uint8_t* k) {
  ZeroTile<kSum>();
  if constexpr (kTwo) ZeroTile<kSum + 1>();
  for (int c = 0; c < a.head_dim_padded / 32; ++c) {
    LoadTile<6>(k + c * kWholeTile);
    LoadTile<4>(a.q + c * kQueryChunk);
    Bf16Product<kSum, 4, 6>();
    if constexpr (kTwo) {
      LoadTile<5>(a.q + c * kQueryChunk + kQueryGroup);
      Bf16Product<kSum + 1, 5, 6>();
    }
  }
}

template <bool kTwo, int kSum>
inline void StoreScores(const Split& s, int tile) {
  StoreTile<kSum>(ScoresAt(s, tile, 0));
  if constexpr (kTwo) StoreTile<kSum + 1>(ScoresAt(s, tile, 16));
}

/// Scores of a step for all rows. Sums are stored one tile late, when they are ready.
template <bool kTwo>
void Bf16Scores(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const auto k_tile = [&](int tile) { return step.k[tile % (kStepTokens / 16)]; };
  WholeScores<kTwo, 0>(a, k_tile(step.first_tile));
  int tile = step.first_tile + 1;
  for (; tile + 1 < step.last_tile; tile += 2) {
    WholeScores<kTwo, 2>(a, k_tile(tile));
    StoreScores<kTwo, 0>(s, tile - 1);
    WholeScores<kTwo, 0>(a, k_tile(tile + 1));
    StoreScores<kTwo, 2>(s, tile);
  }
  if (tile < step.last_tile) {
    WholeScores<kTwo, 2>(a, k_tile(tile));
    StoreScores<kTwo, 0>(s, tile - 1);
    StoreScores<kTwo, 2>(s, tile);
  } else {
    StoreScores<kTwo, 0>(s, tile - 1);
  }
}

/// The same where the last channels are 16: tiles 0 and 1 are sums, 2 and 3 rows of q, 4 K; 5, 6
/// and 7 the same for the last channels.
template <bool kTwo>
void Bf16ScoresWithRest(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const int whole = a.head_dim_padded / 32;
  TileConfig config;
  for (int i = 0; i < (kTwo ? 2 : 1); ++i) {
    const int rows = i == 0 ? s.first : s.second;
    SetTile(config, i, rows, 64);
    SetTile(config, 2 + i, rows, 64);
    SetTile(config, 5 + i, rows, 32);
  }
  SetTile(config, 4, 16, 64);
  SetTile(config, 7, 8, 64);
  config.Load();
  for (int tile = step.first_tile; tile < step.last_tile; ++tile) {
    const uint8_t* k = step.k[tile % (kStepTokens / 16)];
    ZeroTile<0>();
    if constexpr (kTwo) ZeroTile<1>();
    for (int c = 0; c < whole; ++c) {
      LoadTile<4>(k + c * kWholeTile);
      LoadTile<2>(a.q + c * kQueryChunk);
      Bf16Product<0, 2, 4>();
      if constexpr (kTwo) {
        LoadTile<3>(a.q + c * kQueryChunk + kQueryGroup);
        Bf16Product<1, 3, 4>();
      }
    }
    LoadTile<7>(k + whole * kWholeTile);
    LoadTile<5>(a.q + whole * kQueryChunk);
    Bf16Product<0, 5, 7>();
    if constexpr (kTwo) {
      LoadTile<6>(a.q + whole * kQueryChunk + kQueryGroup);
      Bf16Product<1, 6, 7>();
    }
    StoreScores<kTwo, 0>(s, tile);
  }
}

/// A row's maximum has risen: what was summed up so far is taken down to the new one.
void Raise(const Split& s, int row, float to) {
  const SplitArgs& a = s.a;
  const float from = a.m[row];
  a.m[row] = to;
  if (from == -__builtin_inff()) return;
  const __m512 factor = Pow2(
      _mm512_fmadd_ps(_mm512_set1_ps(from), _mm512_set1_ps(kLog2E), _mm512_set1_ps(ShiftOf(to))));
  float* sums = s.sums + row * 16;
  _mm512_store_ps(sums, _mm512_mul_ps(_mm512_load_ps(sums), factor));
  float* acc = a.acc + static_cast<size_t>(row) * a.head_dim_padded;
  for (int c = 0; c < a.head_dim_padded; c += 16)
    _mm512_storeu_ps(acc + c, _mm512_mul_ps(_mm512_loadu_ps(acc + c), factor));
}

/// Scores of a step become weights, `kChunks` times 32 of a row (0: as many as there are).
template <int kChunks>
void Weights(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const int chunks = kChunks > 0 ? kChunks : (step.last_tile + 1) / 2 - step.first_tile / 2;
  const size_t next = static_cast<size_t>(s.capacity) * 16;
  float* const scores = ScoresAt(s, step.first_tile / 2 * 2, 0);
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  // All maxima first: a row's weights would wait for its own.
  for (int r = 0; r < a.rows; ++r) {
    const float* at = scores + r * 16;
    __m512 most = none;  // no NaN comes in: the second operand is taken where one is
#pragma GCC unroll 8
    for (int i = 0; i < 2 * chunks; ++i) most = _mm512_max_ps(_mm512_load_ps(at + i * next), most);
    if (_mm512_cmp_ps_mask(most, _mm512_set1_ps(a.m[r] + kRaise), _CMP_GT_OQ) != 0)
      Raise(s, r, _mm512_reduce_max_ps(most));
  }
  const __m512 scale = _mm512_set1_ps(kLog2E);
  for (int r = 0; r < a.rows; ++r) {
    float* at = scores + r * 16;
    const __m512 shift = _mm512_set1_ps(ShiftOf(a.m[r]));
    __m512 sum = _mm512_load_ps(s.sums + r * 16);
#pragma GCC unroll 4
    for (int i = 0; i < chunks; ++i, at += 2 * next) {
      const __m512 p = Pow2(_mm512_fmadd_ps(_mm512_load_ps(at), scale, shift));
      const __m512 q = Pow2(_mm512_fmadd_ps(_mm512_load_ps(at + next), scale, shift));
      sum = _mm512_add_ps(_mm512_add_ps(sum, p), q);
      _mm512_store_si512(at, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(q, p)));
    }
    _mm512_store_ps(s.sums + r * 16, sum);
  }
}

/// 32 tokens and 16 channels of V gathered from two blocks, with zeros for what no row attends to
/// (it may be stale, or not there).
const uint8_t* GatherBf16V(const Split& s, int chunk, int group, int turn) {
  const SplitArgs& a = s.a;
  uint8_t* to = s.gathered + turn * kWholeTile;
  const int t = chunk * 32;
  for (int pair = t; pair < t + 32; pair += 2, to += kTileRow) {
    const unsigned even = pair >= a.least && pair < a.most ? 0xffffu : 0;
    const unsigned odd = pair + 1 >= a.least && pair + 1 < a.most ? 0xffff0000u : 0;
    __m512i v = _mm512_setzero_si512();
    if ((even | odd) != 0) {
      const size_t at = static_cast<size_t>(group * a.block_tokens + pair % a.block_tokens) * 32;
      v = _mm512_loadu_si512(a.blocks[pair / a.block_tokens] + a.v_offset + at);
      v = _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(even | odd)));
    }
    _mm512_store_si512(to, v);
  }
  return s.gathered + turn * kWholeTile;
}

/// The B tile of V of 32 tokens and 16 channels.
inline const uint8_t* Bf16VTile(const Split& s, const Step& step, int chunk, int group, int turn) {
  const uint8_t* v = step.v[chunk % (kStepTokens / 32)];
  if (v == nullptr) return GatherBf16V(s, chunk, group, turn);
  return v + static_cast<size_t>(group) * static_cast<size_t>(s.a.block_tokens) * 32;
}

void FindBf16(const SplitArgs& a, Step& step) {
  for (int tile = step.first_tile; tile < step.last_tile; ++tile)
    step.k[tile % (kStepTokens / 16)] = Bf16KTile(a, tile);
  for (int chunk = step.first_tile / 2; chunk * 2 < step.last_tile; ++chunk) {
    const int t = chunk * 32;
    const bool whole = t >= a.least && t + 32 <= a.most && a.block_tokens >= 32;
    step.v[chunk % (kStepTokens / 32)] = whole ? a.blocks[t / a.block_tokens] + a.v_offset +
                                                     static_cast<size_t>(t % a.block_tokens) * 32
                                               : nullptr;
  }
}

template <int T>
inline void LoadSums(const Split& s, bool first, int row, int group) {
  if (first) {
    ZeroTile<T>();
  } else {
    LoadTile<T>(s.a.acc + static_cast<size_t>(row) * s.a.head_dim_padded + group * 16,
                static_cast<size_t>(s.a.head_dim_padded) * sizeof(float));
  }
}
template <int T>
inline void StoreSums(const Split& s, int row, int group) {
  StoreTile<T>(s.a.acc + static_cast<size_t>(row) * s.a.head_dim_padded + group * 16,
               static_cast<size_t>(s.a.head_dim_padded) * sizeof(float));
}

/// Adds a step to 16 channels, two groups of rows: tiles kSum and kSum + 1 are sums. Those of the
/// channels before (kBefore, if not negative) are stored on the way: a tile needs time to be ready,
/// and more than two stores at once fill the store buffer.
template <int kSum, int kBefore>
inline void ValuesOfTwo(const Split& s, const Step& step, int group) {
  LoadSums<kSum>(s, step.first, 0, group);
  LoadSums<kSum + 1>(s, step.first, 16, group);
  for (int chunk = step.first_tile / 2; chunk * 2 < step.last_tile; ++chunk) {
    const auto* p = reinterpret_cast<const uint8_t*>(ScoresAt(s, 2 * chunk, 0));
    LoadTile<6>(Bf16VTile(s, step, chunk, group, kSum / 2));
    LoadTile<4>(p);
    Bf16Product<kSum, 4, 6>();
    LoadTile<5>(p + 16 * kTileRow);
    Bf16Product<kSum + 1, 5, 6>();
    if constexpr (kBefore >= 0) {
      if (chunk == step.first_tile / 2) {
        StoreSums<kBefore>(s, 0, group - 1);
        StoreSums<kBefore + 1>(s, 16, group - 1);
      }
    }
  }
}

void ValuesOfTwoGroups(const Split& s, const Step& step) {
  const int groups = s.a.head_dim_padded / 16;
  ValuesOfTwo<0, -1>(s, step, 0);
  int g = 1;
  for (; g + 1 < groups; g += 2) {
    ValuesOfTwo<2, 0>(s, step, g);
    ValuesOfTwo<0, 2>(s, step, g + 1);
  }
  if (g < groups) {
    ValuesOfTwo<2, 0>(s, step, g);
    StoreSums<2>(s, 0, g);
    StoreSums<3>(s, 16, g);
  } else {
    StoreSums<0>(s, 0, g - 1);
    StoreSums<1>(s, 16, g - 1);
  }
}

/// Adds a step to N groups of 16 channels, one group of rows.
template <int N>
void ValuesOfOne(const Split& s, const Step& step, int group) {
  LoadSums<0>(s, step.first, 0, group);
  if constexpr (N > 1) LoadSums<1>(s, step.first, 0, group + 1);
  if constexpr (N > 2) LoadSums<2>(s, step.first, 0, group + 2);
  if constexpr (N > 3) LoadSums<3>(s, step.first, 0, group + 3);
  for (int chunk = step.first_tile / 2; chunk * 2 < step.last_tile; ++chunk) {
    LoadTile<4>(ScoresAt(s, 2 * chunk, 0));
    LoadTile<5>(Bf16VTile(s, step, chunk, group, 0));
    Bf16Product<0, 4, 5>();
    if constexpr (N > 1) {
      LoadTile<6>(Bf16VTile(s, step, chunk, group + 1, 1));
      Bf16Product<1, 4, 6>();
    }
    if constexpr (N > 2) {
      LoadTile<7>(Bf16VTile(s, step, chunk, group + 2, 2));
      Bf16Product<2, 4, 7>();
    }
    if constexpr (N > 3) {
      LoadTile<5>(Bf16VTile(s, step, chunk, group + 3, 3));
      Bf16Product<3, 4, 5>();
    }
  }
  StoreSums<0>(s, 0, group);
  if constexpr (N > 1) StoreSums<1>(s, 0, group + 1);
  if constexpr (N > 2) StoreSums<2>(s, 0, group + 2);
  if constexpr (N > 3) StoreSums<3>(s, 0, group + 3);
}

void ValuesOfOneGroup(const Split& s, const Step& step) {
  const int groups = s.a.head_dim_padded / 16;
  int g = 0;
  for (; g + 4 <= groups; g += 4) ValuesOfOne<4>(s, step, g);
  if (groups - g == 3) ValuesOfOne<3>(s, step, g);
  if (groups - g == 2) ValuesOfOne<2>(s, step, g);
  if (groups - g == 1) ValuesOfOne<1>(s, step, g);
}

/// Whether V is not finite in 32 tokens that some rows attend to and others do not: 0 times it
/// would not be 0.
bool NotFiniteAtEdges(const Split& s) {
  const SplitArgs& a = s.a;
  const __m512i exponents = _mm512_set1_epi16(0x7f80);
  __mmask32 bad = 0;
  for (int chunk = a.least / 32; chunk < (a.most + 31) / 32; ++chunk) {
    const int from = Most(a.least, chunk * 32), to = Least(a.most, chunk * 32 + 32);
    if (from >= s.common_begin && to <= s.common_end) continue;
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

template <bool kTwo>
void Bf16Steps(const Split& s) {
  const SplitArgs& a = s.a;
  const bool rest = a.head_dim_padded % 32 != 0;
  ConfigureWhole<kTwo>(s);
  for (int at = a.least / kStepTokens * kStepTokens; at < a.most; at += kStepTokens) {
    Step step;
    step.begin = Most(a.least, at);
    step.end = Least(a.most, at + kStepTokens);
    step.first = at <= a.least;
    step.first_tile = step.begin / 16;
    step.last_tile = (step.end + 15) / 16;
    FindBf16(a, step);
    if (rest) {
      Bf16ScoresWithRest<kTwo>(s, step);
      ConfigureWhole<kTwo>(s);
    } else {
      Bf16Scores<kTwo>(s, step);
    }
    const bool all = step.end - step.begin == kStepTokens;
    if (!all || step.begin < s.common_begin || step.end > s.common_end) Mask<2>(s, step);
    if (all) {
      Weights<kStepTokens / 32>(s, step);
    } else {
      Weights<0>(s, step);
    }
    if constexpr (kTwo) {
      ValuesOfTwoGroups(s, step);
    } else {
      ValuesOfOneGroup(s, step);
    }
  }
  ReleaseTiles();
}

void Bf16Split(const SplitArgs& a) {
  const Split s = Begin(a);
  if (NotFiniteAtEdges(s)) return scalar::kTileAttention.of[2].split(a);
  if (s.second > 0) {
    Bf16Steps<true>(s);
  } else {
    Bf16Steps<false>(s);
  }
  AddLanes(s);
}

}  // namespace

const AttentionKernels kTileAttention = {
    {{}, {}, {Bf16Queries, Bf16Split}, {Int8Queries, Int8Split}}};

}  // namespace kvasir::amx
