// Attention to bf16 K and V in tiles: included by attention_amx.cc, and by the test that emulates
// tiles, after attention_steps-inl.h and attention_bf16-inl.h. No include guard. The tile
// instructions of tiles.h are the includer's.

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

/// K that will be read a step after this tile, where there is one group of rows only: two groups
/// compute for so long that it counts little. (It is AVX512-BF16's prefetching, without which
/// decoding 8 sequences after 8,192 tokens takes 6.0 ms there instead of 3.3; on AMX its effect is
/// not measured yet.)
template <bool kTwo>
KV_INLINE void PrefetchK(const SplitArgs& a, int tile) {
  if constexpr (kTwo) return;
  const uint8_t* at = Bf16KSoon(a, tile);
  for (size_t i = 0; at != nullptr && i < Bf16KTileBytes(a); i += kTileRow) Prefetch(at + i);
}

/// The same for V of N groups of channels from `group` on, of 32 tokens.
template <int N>
KV_INLINE void PrefetchV(const SplitArgs& a, int chunk, int group) {
  for (int n = 0; n < N; ++n) {
    const uint8_t* at = Bf16VSoon(a, chunk, group + n);
    for (size_t i = 0; at != nullptr && i < kWholeTile; i += kTileRow) Prefetch(at + i);
  }
}

/// Adds the products of q and the channels of K in one B tile to tiles kSum and kSum + 1; rows of q
/// come into tiles kQ and kQ + 1, K into kK.
template <bool kTwo, int kSum, int kQ, int kK>
inline void AddScores(const uint8_t* q, const uint8_t* k) {
  LoadTile<kK>(k);
  LoadTile<kQ>(q);
  Bf16Product<kSum, kQ, kK>();
  if constexpr (kTwo) {
    LoadTile<kQ + 1>(q + kQueryGroup);
    Bf16Product<kSum + 1, kQ + 1, kK>();
  }
}

/// Scores of 16 tokens in tiles kSum and kSum + 1.
template <bool kTwo, int kSum>
inline void WholeScores(const SplitArgs& a, const uint8_t* k) {
  ZeroTile<kSum>();
  if constexpr (kTwo) ZeroTile<kSum + 1>();
  for (int c = 0; c < a.head_dim_padded / 32; ++c)
    AddScores<kTwo, kSum, 4, 6>(a.q + c * kQueryChunk, k + c * kWholeTile);
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
  const auto k_tile = [&](int tile) {
    PrefetchK<kTwo>(a, tile);
    return step.k[tile % kTiles];
  };
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
    PrefetchK<kTwo>(a, tile);
    const uint8_t* k = step.k[tile % kTiles];
    ZeroTile<0>();
    if constexpr (kTwo) ZeroTile<1>();
    for (int c = 0; c < whole; ++c)
      AddScores<kTwo, 0, 2, 4>(a.q + c * kQueryChunk, k + c * kWholeTile);
    AddScores<kTwo, 0, 5, 7>(a.q + whole * kQueryChunk, k + whole * kWholeTile);
    StoreScores<kTwo, 0>(s, tile);
  }
}

/// The B tile of V of 32 tokens and 16 channels.
inline const uint8_t* Bf16VTile(const Split& s, const Step& step, int chunk, int group, int turn) {
  const uint8_t* v = step.v[chunk % (kStepTokens / 32)];
  if (v == nullptr) {
    uint8_t* const gathered = s.gathered + turn * kWholeTile;
    GatherBf16V(s, chunk, group, gathered);
    return gathered;
  }
  return v + static_cast<size_t>(group) * static_cast<size_t>(s.a.block_tokens) * 32;
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
    PrefetchV<N>(s.a, chunk, group);
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

template <bool kTwo>
void Bf16Steps(const Split& s) {
  const bool rest = s.a.head_dim_padded % 32 != 0;
  ConfigureWhole<kTwo>(s);
  const auto scores = [&](const Step& step) {
    if (!rest) return Bf16Scores<kTwo>(s, step);
    Bf16ScoresWithRest<kTwo>(s, step);
    ConfigureWhole<kTwo>(s);
  };
  const auto values = [&](const Step& step) {
    if constexpr (kTwo) {
      ValuesOfTwoGroups(s, step);
    } else {
      ValuesOfOneGroup(s, step);
    }
  };
  EachBf16Step(s, scores, values);
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
