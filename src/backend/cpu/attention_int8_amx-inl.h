// Attention to int8 K and V in tiles: included by attention_int8_amx.cc, and by the test that
// emulates tiles, after attention_steps-inl.h and attention_int8-inl.h. No include guard. The tile
// instructions of tiles.h are the includer's.

/// Tiles 0 and 1 are high sums of the first and second 16 rows, 2 and 3 low sums; 4 rows of A, 6 B;
/// 5 and 7 the same for the last channels where they are fewer than 64.
template <bool kTwo>
void Configure(const Split& s) {
  const int rows = kTwo ? 16 : s.first, rest = s.a.head_dim_padded % 64;
  TileConfig config;
  for (int i = 0; i < 5; ++i) SetTile(config, i, rows, 64);
  SetTile(config, 6, 16, 64);
  if (rest > 0) {
    SetTile(config, 5, rows, rest);
    SetTile(config, 7, rest / 4, 64);
  }
  config.Load();
}

inline void ZeroSums() {
  ZeroTile<0>();
  ZeroTile<1>();
  ZeroTile<2>();
  ZeroTile<3>();
}

template <bool kTwo>
inline void StoreSums(int32_t (*sums)[16 * 16]) {
  StoreTile<0>(sums[0]);
  StoreTile<2>(sums[2]);
  if constexpr (kTwo) {
    StoreTile<1>(sums[1]);
    StoreTile<3>(sums[3]);
  }
}

/// Row r of sums: 256 * high + low.
inline __m512 SumOf(const int32_t (*sums)[16 * 16], int row) {
  const int group = row / 16, at = row % 16 * 16;
  const __m512i high = _mm512_slli_epi32(_mm512_load_si512(sums[group] + at), 8);
  return _mm512_cvtepi32_ps(_mm512_add_epi32(high, _mm512_load_si512(sums[2 + group] + at)));
}

/// Adds the products of q and 64 channels of K (kA 4, kB 6), or of the last ones (5, 7).
template <bool kTwo, int kA, int kB>
inline void AddScores(const uint8_t* high, const uint8_t* low, const uint8_t* k) {
  LoadTile<kB>(k);
  LoadTile<kA>(high);
  SignedProduct<0, kA, kB>();
  if constexpr (kTwo) {
    LoadTile<kA>(high + kQueryGroup);
    SignedProduct<1, kA, kB>();
  }
  LoadTile<kA>(low);
  UnsignedProduct<2, kA, kB>();
  if constexpr (kTwo) {
    LoadTile<kA>(low + kQueryGroup);
    UnsignedProduct<3, kA, kB>();
  }
}

void StoreScores(const Split& s, int tile) {
  const __m512 k_scale = _mm512_loadu_ps(ScalesAt(s.a, s.a.kv.k_scale_offset, tile));
  for (int r = 0; r < s.a.rows; ++r)
    StoreScore(s, tile, r, SumOf(RestOf(s).sums[tile % 2], r), k_scale);
}

/// As in attention_bf16_amx-inl.h: K, and the scales, that will be read a step after this tile.
KV_INLINE void PrefetchK(const SplitArgs& a, int tile) {
  const uint8_t* at = KSoon(a, tile);
  const size_t bytes = static_cast<size_t>(a.head_dim_padded) * 16;
  for (size_t i = 0; at != nullptr && i < bytes; i += kTileRow) Prefetch(at + i);
}

/// V of 64 tokens from `tile` on and 16 channels, a step later.
KV_INLINE void PrefetchV(const SplitArgs& a, int tile, int group) {
  for (int i = 0; i < kUnit; ++i) {
    const uint8_t* at = VSoon(a, tile + i, group);
    for (size_t line = 0; at != nullptr && line < kWholeTile / kUnit; line += kTileRow)
      Prefetch(at + line);
  }
}

/// Scores of a step. Sums become scores one tile late, while the next are made.
template <bool kTwo>
void Scores(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const int whole = a.head_dim_padded / 64;
  const bool rest = a.head_dim_padded % 64 != 0;
  const uint8_t *high = a.q, *low = a.q + Int8QueryBytes(a.head_dim_padded);
  for (int tile = step.first_tile; tile < step.last_tile; ++tile) {
    const uint8_t* k = KTile(a, tile);
    if constexpr (!kTwo) PrefetchK(a, tile);
    ZeroSums();
    for (int c = 0; c < whole; ++c)
      AddScores<kTwo, 4, 6>(high + c * kQueryChunk, low + c * kQueryChunk, k + c * kWholeTile);
    if (rest) {
      AddScores<kTwo, 5, 7>(high + whole * kQueryChunk, low + whole * kQueryChunk,
                            k + whole * kWholeTile);
    }
    StoreSums<kTwo>(RestOf(s).sums[tile % 2]);
    if (tile > step.first_tile) StoreScores(s, tile - 1);
  }
  StoreScores(s, step.last_tile - 1);
}

void AddValues(const Split& s, const Step& step, int group) {
  for (int r = 0; r < s.a.rows; ++r)
    AddValue(s, step, group, r, SumOf(RestOf(s).sums[group % 2], r));
}

template <bool kTwo>
void Values(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const int groups = a.head_dim_padded / 16;
  const int from = step.first_tile / kUnit * kUnit;
  for (int g = 0; g < groups; ++g) {
    ZeroSums();
    for (int tile = from; tile < step.last_tile; tile += kUnit) {
      const auto* high = reinterpret_cast<const uint8_t*>(ScoresAt(s, tile, 0));
      const auto* low = reinterpret_cast<const uint8_t*>(ScoresAt(s, tile + 1, 0));
      if constexpr (!kTwo) PrefetchV(a, tile, g);
      LoadTile<6>(VTile(s, tile, g));
      LoadTile<4>(high);
      UnsignedProduct<0, 4, 6>();
      LoadTile<4>(low);
      UnsignedProduct<2, 4, 6>();
      if constexpr (kTwo) {
        LoadTile<4>(high + kQueryGroup);
        UnsignedProduct<1, 4, 6>();
        LoadTile<4>(low + kQueryGroup);
        UnsignedProduct<3, 4, 6>();
      }
    }
    StoreSums<kTwo>(RestOf(s).sums[g % 2]);
    if (g > 0) AddValues(s, step, g - 1);
  }
  AddValues(s, step, groups - 1);
}

template <bool kTwo>
void Steps(const Split& s) {
  Configure<kTwo>(s);
  EachStep(
      s, [&](const Step& step) { Scores<kTwo>(s, step); },
      [&](const Step& step) { Values<kTwo>(s, step); });
  ReleaseTiles();
}

void Split8(const SplitArgs& a) {
  const Split s = Begin(a);
  if (s.second > 0)
    Steps<true>(s);
  else
    Steps<false>(s);
}
