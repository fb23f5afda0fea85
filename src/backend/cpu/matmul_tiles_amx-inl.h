// The kernels of bf16 tiles, shared by the amx kernels and by those that emulate tiles in tests:
// included once in each, inside their own namespace, after matmul_avx512-inl.h and
// matmul_blocks_amx-inl.h. No include guard. The tile instructions are the includer's.

KV_INLINE __m512i MulF16(__m512i a, __m512i b) {
  return _mm512_castph_si512(_mm512_mul_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b)));
}
KV_INLINE __m512i MulAddF16(__m512i a, __m512i b, __m512i c) {
  return _mm512_castph_si512(
      _mm512_fmadd_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b), _mm512_castsi512_ph(c)));
}
/// a 2^b.
KV_INLINE __m512i ScaleF16(__m512i a, __m512i b) {
  return _mm512_castph_si512(_mm512_scalef_ph(_mm512_castsi512_ph(a), _mm512_castsi512_ph(b)));
}
KV_INLINE __m512i F16OfWords(__m512i words) {
  return _mm512_castph_si512(_mm512_cvtepi16_ph(words));
}

/// A bf16 tile's element of an f16 weight: rounded to 8 bits, and 2^kTileExponent times as large.
KV_INLINE __m512i TileBits(__m512i w) {
  // (w + 4) >> 3 of signed words in one instruction; where the sign is set it fills the bits above
  // the exponent too.
  const __m512i rounded = _mm512_mulhrs_epi16(w, _mm512_set1_epi16(1 << 12));
  return _mm512_and_si512(rounded, _mm512_set1_epi16(static_cast<int16_t>(0x8fff)));
}

struct ByteTable {
  alignas(64) uint8_t bytes[64];
};
/// For vpermb: of the first 16 words each twice.
constexpr ByteTable MakeTwice() {
  ByteTable table{};
  for (int i = 0; i < 64; ++i) table.bytes[i] = static_cast<uint8_t>(i / 4 * 2 + i % 2);
  return table;
}
constexpr ByteTable kTwice = MakeTwice();

/// 16 numbers of f16, each twice: for the two inputs of its column in a tile's row.
KV_INLINE __m512i Twice(__m512i halves) {
  return _mm512_permutexvar_epi8(_mm512_load_si512(kTwice.bytes), halves);
}
KV_INLINE __m512i TwiceAsF16(__m512 v) {
  const __m256i half = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return Twice(_mm512_castsi256_si512(half));
}

constexpr uint16_t F16OfInt(int value) {
  int magnitude = value < 0 ? -value : value, exponent = 25;  // magnitude = 1.f 2^(exponent - 15)
  if (magnitude == 0) return 0;
  for (; magnitude < 1024; magnitude *= 2) --exponent;
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | exponent << 10 | (magnitude & 1023));
}

/// The upper bytes of -8 to 7 in f16, whose lower ones are zero. vpermb looks at six bits of an
/// index: those of four come four times.
constexpr ByteTable MakeNibbles() {
  ByteTable table{};
  for (int i = 0; i < 64; ++i) {
    const uint16_t bits = F16OfInt(i % 16 - 8);
    if ((bits & 0xff) != 0) throw "more than a byte";
    table.bytes[i] = static_cast<uint8_t>(bits >> 8);
  }
  return table;
}
constexpr ByteTable kNibbles = MakeNibbles();
constexpr uint64_t kUpperBytes = 0xaaaaaaaaaaaaaaaa;

/// 0 to 31 in f16, for vpermw, which looks at five bits of an index.
struct WordTable {
  alignas(64) uint16_t words[32];
};
constexpr WordTable MakeFiveBits() {
  WordTable table{};
  for (int i = 0; i < 32; ++i) table.words[i] = F16OfInt(i);
  return table;
}
constexpr WordTable kFiveBits = MakeFiveBits();

/// Scales of a group in f16, by half of the group: w = q d + m in the range of f16, where q of four
/// bits is 8 less than in the file.
struct TileScales {
  __m512i d[2], m[2];
};

/// What brings the scales of a panel into the range of f16: in registers, where what tiles do to
/// memory makes nobody read or compute it again.
struct TileFactors {
  __m512i d_power, m_power;  ///< kHalfScales: exponents, as vscalefph takes them
  __m512 d, m;               ///< others: factors
};

/// e of 2^e in f16.
KV_INLINE __m512i Exponent(float power) {
  uint32_t bits = 0;
  __builtin_memcpy(&bits, &power, sizeof(bits));
  return F16OfWords(_mm512_set1_epi16(static_cast<int16_t>(static_cast<int>(bits >> 23) - 127)));
}

/// `in` of the panel's TileScale.
template <PackFormat F>
KV_INLINE TileFactors FactorsOf(float in) {
  TileFactors factors;
  if constexpr (kHalfScales<F>) {
    factors.d_power = Exponent(in / kTileUnit<F>);
    factors.m_power = Exponent(in);
  } else {
    factors.d = _mm512_set1_ps(in / kTileUnit<F>);
    factors.m = _mm512_set1_ps(in);
  }
  return factors;
}

/// The scales of group g and where its weights are.
template <PackFormat F>
KV_INLINE const uint8_t* TileScalesOf(const uint8_t* panel, int64_t g, const TileFactors& in,
                                      TileScales* s) {
  const uint8_t* group = nullptr;
  if constexpr (kHalfScales<F>) {
    static_assert(kHalves<F> == 1);
    group = panel + static_cast<size_t>(g) * kGroupStep<F>;
    // 64 bytes, half of them of the next group or the end of the panel.
    const auto at = [&](int part, __m512i power) KV_LAMBDA {
      const __m512i v = _mm512_loadu_si512(group + kWeightBytes<F> + part * 32);
      return ScaleF16(Twice(v), power);
    };
    s->d[0] = at(0, in.d_power);
    if constexpr (kHasMin<F>) s->m[0] = at(1, in.m_power);
  } else {
    Scales f32;
    group = GroupOf<F>(panel, g, &f32);
    for (int h = 0; h < kHalves<F>; ++h) {
      s->d[h] = TwiceAsF16(_mm512_mul_ps(f32.d[h], in.d));
      if constexpr (kHasMin<F>) s->m[h] = TwiceAsF16(_mm512_mul_ps(f32.m[h], in.m));
    }
  }
  if constexpr (kBits<F> == 4 && kHasMin<F>) {
    constexpr auto kEight = static_cast<int16_t>(F16OfInt(8));
    s->m[0] = MulAddF16(s->d[0], _mm512_set1_epi16(kEight), s->m[0]);
  }
  return group;
}

template <PackFormat F>
KV_INLINE __m512i TileWeights(__m512i q, const TileScales& s, int h) {
  if constexpr (kHasMin<F>) return TileBits(MulAddF16(q, s.d[h], s.m[h]));
  return TileBits(MulF16(q, s.d[h]));
}

/// Group g of a quantized panel as a B tile: [pair of inputs][column][2], pairs in
/// TileOrder::kPacked.
/// Few rows wait for this: a tile of Q4_0 took 12.7 ns when vpermw, two operations, looked nibbles
/// up and scales passed through f32 (98 operations on two ports; Xeon with AMX, 2026-11-25). With
/// vpermb and vscalefph they are 76, by llvm-mca of LLVM 19 for Sapphire Rapids 46.6 cycles instead
/// of 60.2; Q4_1 48.3 instead of 64.2, Q4_K 57.3 instead of 69.2 (2026-11-28, not measured yet).
template <PackFormat F>
KV_INLINE void UnpackTile(const uint8_t* panel, int64_t g, const TileFactors& in, uint8_t* tile) {
  TileScales s;
  const uint8_t* group = TileScalesOf<F>(panel, g, in, &s);
  const auto put = [&](int row, __m512i q, int h)
                       KV_LAMBDA { _mm512_store_si512(tile + row * 64, TileWeights<F>(q, s, h)); };
  if constexpr (kBits<F> == 4) {
    // Of the four nibbles of a word the two of the upper byte are where vpermb takes them from, one
    // of them shifted. Loads a byte earlier bring the others there: two ports do all of the
    // arithmetic, others the loads. Before the first byte of a panel there may be none.
    const __m512i table = _mm512_load_si512(kNibbles.bytes);
    const auto q = [&](__m512i v)
                       KV_LAMBDA { return _mm512_maskz_permutexvar_epi8(kUpperBytes, v, table); };
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i w = _mm512_loadu_si512(group + j * 64);
      const __m512i v = j == 0 ? _mm512_slli_epi16(w, 8) : _mm512_loadu_si512(group + j * 64 - 1);
      put(4 * j, q(v), 0);
      put(4 * j + 1, q(_mm512_slli_epi16(w, 4)), 0);
      put(4 * j + 2, q(w), 0);
      put(4 * j + 3, q(_mm512_srli_epi16(w, 4)), 0);
    }
  } else if constexpr (kBits<F> < 8) {
    // Rows 4 J + P and 4 J + P + 2: the even and the odd bytes.
    const auto rows = [&]<int J, int P>() KV_LAMBDA {
      const __m512i q = UnsignedWeights<F, J, P>(group);
      if constexpr (kBits<F> == 5) {
        const __m512i table = _mm512_load_si512(kFiveBits.words);
        put(4 * J + P, _mm512_permutexvar_epi16(q, table), 0);
        put(4 * J + P + 2, _mm512_permutexvar_epi16(_mm512_srli_epi16(q, 8), table), 0);
      } else {
        // q - 32 in six bits at the upper end of a word.
        const __m512i v = _mm512_xor_si512(q, _mm512_set1_epi8(32));
        const __m512i upper = _mm512_set1_epi16(static_cast<int16_t>(0xfc00));
        put(4 * J + P, F16OfWords(_mm512_slli_epi16(v, 10)), P);
        put(4 * J + P + 2, F16OfWords(_mm512_and_si512(_mm512_slli_epi16(v, 2), upper)), P);
      }
    };
    EachQuad(rows);
  } else {
    const __m512i upper = _mm512_set1_epi16(static_cast<int16_t>(0xff00));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i v = _mm512_loadu_si512(group + j * 64);
      const int h = kHalves<F> == 2 ? j / 4 : 0;
      const int row = j % 4 * 4 + j / 4;
      put(row, F16OfWords(_mm512_slli_epi16(v, 8)), h);
      put(row + 2, F16OfWords(_mm512_and_si512(v, upper)), h);
    }
  }
}

/// The last tile of bf16 weights whose inputs are no multiple of 32: zeros after the end.
KV_INLINE void CopyTail(const uint8_t* panel, int64_t g, int64_t k, uint8_t* tile) {
  const int64_t pairs = (k + 1) / 2 - g * 16;
  for (int64_t i = 0; i < 16; ++i) {
    _mm512_store_si512(tile + i * 64, i < pairs ? _mm512_loadu_si512(panel + g * 1024 + i * 64)
                                                : _mm512_setzero_si512());
  }
}

/// Brings what will be unpacked soon from memory: 4 KiB, some 300 ns at a core's share of the
/// bandwidth, ahead; at the end of a panel from the one that is `skipped` bytes behind it.
template <PackFormat F>
KV_INLINE void PrefetchGroup(const uint8_t* panel, int64_t g, size_t panel_bytes, size_t skipped) {
  size_t at = static_cast<size_t>(g) * kGroupStep<F> + 4096;
  if (at >= panel_bytes) at += skipped;
  for (size_t line = 0; line < kGroupStep<F>; line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(panel + at + line), _MM_HINT_T0);
  }
}

template <PackFormat F>
KV_INLINE TileScale ScaleOf(const uint8_t* panel, size_t panel_bytes) {
  TileScale scale;
  if constexpr (F == PackFormat::kBF16) {
    scale.out = 1.0f / (int64_t{1} << kTileShift);
  } else {
    __builtin_memcpy(&scale, panel + panel_bytes - sizeof(scale), sizeof(scale));
  }
  return scale;
}

/// A tile of sums as rows of the output.
KV_INLINE void StoreSums(const PanelArgs& a, const float* sums, float scale, int64_t row,
                         int64_t rows, int64_t first) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t i = 0; i < rows; ++i) {
    StoreRow(a, row + i, first, _mm512_mul_ps(_mm512_load_ps(sums + i * 16), factor));
  }
}

// Tiles of up to two row blocks: sums of row block r and panel n are tile 2 r + n; weights 4 + n;
// activations 6 + r. Of more, one panel at a time: sums r; weights 4; activations 5 and 6 in turn,
// those of the last block 7.

/// Sums of whole inputs += one group of the weights in `b`, whose activations are `blocks[r]`.
template <int RB, int PN>
KV_INLINE void StreamProducts(const uint8_t* const* b, const uint8_t* const* blocks) {
  if constexpr (RB <= 2) {
    LoadTile<6>(blocks[0], 64);
    if constexpr (RB == 2) LoadTile<7>(blocks[1], 64);
    LoadTile<4>(b[0], 64);
    Bf16Product<0, 6, 4>();
    if constexpr (RB == 2) Bf16Product<2, 7, 4>();
    if constexpr (PN == 2) {
      LoadTile<5>(b[1], 64);
      Bf16Product<1, 6, 5>();
      if constexpr (RB == 2) Bf16Product<3, 7, 5>();
    }
  } else {
    LoadTile<4>(b[0], 64);
    LoadTile<5>(blocks[0], 64);
    Bf16Product<0, 5, 4>();
    LoadTile<6>(blocks[1], 64);
    Bf16Product<1, 6, 4>();
    if constexpr (RB == 4) {
      LoadTile<5>(blocks[2], 64);
      Bf16Product<2, 5, 4>();
    }
    LoadTile<7>(blocks[RB - 1], 64);
    Bf16Product<RB - 1, 7, 4>();
  }
}

/// Up to 16 RB rows, all inputs, PN panels.
template <PackFormat F, int RB, int PN>
void StreamPanels(const PanelArgs& a, const uint8_t* panel, int64_t first) {
  static_assert(RB <= 2 || PN == 1);
  alignas(64) uint8_t unpacked[4][kTileBytes];
  alignas(64) float sums[16 * 16];
  const int64_t groups = (a.k + 31) / 32;
  float out[PN];
  TileFactors in[PN];
  for (int n = 0; n < PN; ++n) {
    const TileScale scale =
        ScaleOf<F>(panel + static_cast<size_t>(n) * a.panel_bytes, a.panel_bytes);
    out[n] = scale.out;
    in[n] = FactorsOf<F>(scale.in);
  }
  ZeroTile<0>();
  ZeroTile<1>();
  ZeroTile<2>();
  ZeroTile<3>();
  const size_t skipped = (PN - 1) * a.panel_bytes;  // the next panels lie behind all of these
  const auto unpack = [&](int64_t g, const uint8_t** b) KV_LAMBDA {
    for (int n = 0; n < PN; ++n) {
      const uint8_t* from = panel + static_cast<size_t>(n) * a.panel_bytes;
      uint8_t* to = unpacked[g % 2 * 2 + n];
      PrefetchGroup<F>(from, g, a.panel_bytes, skipped);
      b[n] = to;
      if constexpr (F == PackFormat::kBF16) {
        if (g * 32 + 32 <= a.k)
          b[n] = from + g * 1024;
        else
          CopyTail(from, g, a.k, to);
      } else {
        UnpackTile<F>(from, g, in[n], to);
      }
    }
  };
  // The next tile is unpacked before this one is loaded, whose stores have then left the core.
  const uint8_t* b[PN];
  unpack(0, b);
  for (int64_t g = 0; g < groups; ++g) {
    const uint8_t* next[PN] = {};
    if (g + 1 < groups) unpack(g + 1, next);
    const uint8_t* blocks[RB];
    for (int r = 0; r < RB; ++r)
      blocks[r] = a.tiles + TileOffset(a.first_block + r, g, a.tile_blocks, groups);
    StreamProducts<RB, PN>(b, blocks);
    for (int n = 0; n < PN; ++n) b[n] = next[n];
  }
  const auto put = [&]<int T>(std::integral_constant<int, T>) {
    constexpr int r = RB > 2 ? T : T / 2, n = RB > 2 ? 0 : T % 2;
    if constexpr (r < RB && n < PN) {
      StoreTile<T>(sums, 64);
      const int64_t rows = a.rows - r * kTileRows;
      StoreSums(a, sums, out[n], r * kTileRows, rows < kTileRows ? rows : kTileRows,
                first + n * 16);
    }
  };
  put(std::integral_constant<int, 0>());
  put(std::integral_constant<int, 1>());
  put(std::integral_constant<int, 2>());
  put(std::integral_constant<int, 3>());
}

/// Few rows: each tile of weights is unpacked for them alone, just before its only use.
template <PackFormat F, int RB>
void Streamed(const PanelArgs& a) {
  constexpr int PN = RB > 2 ? 1 : 2;
  TileConfig config = WholeTiles();
  // A product takes as long as it has rows.
  const auto last = static_cast<uint8_t>(a.rows - (RB - 1) * kTileRows);
  if constexpr (RB > 2)
    config.rows[RB - 1] = config.rows[7] = last;
  else
    config.rows[2 * RB - 2] = config.rows[2 * RB - 1] = config.rows[5 + RB] = last;
  config.Load();
  int32_t p = 0;
  for (; p + PN <= a.panels; p += PN) {
    StreamPanels<F, RB, PN>(a, a.weights + static_cast<size_t>(p) * a.panel_bytes, p * 16);
  }
  if (p < a.panels) {
    StreamPanels<F, RB, 1>(a, a.weights + static_cast<size_t>(p) * a.panel_bytes, p * 16);
  }
  ReleaseTiles();
}

/// Weights of one slab as tiles: of panel n and group g at base + n * panel_step + g * group_step.
struct SlabWeights {
  const uint8_t* base;
  size_t panel_step, group_step;
};

/// sums[r][n] (+)= activations of RB row blocks from `tiles` on, times one slab of PN panels.
template <int RB, int PN>
KV_INLINE void SlabProducts(const uint8_t* tiles, int64_t width, const SlabWeights& w, bool begin,
                            uint8_t* sums) {
  if (begin) {
    ZeroTile<0>();
    ZeroTile<1>();
    ZeroTile<2>();
    ZeroTile<3>();
  } else {
    LoadTile<0>(sums, 64);
    if constexpr (PN == 2) LoadTile<1>(sums + kTileBytes, 64);
    if constexpr (RB == 2) LoadTile<2>(sums + 2 * kTileBytes, 64);
    if constexpr (RB == 2 && PN == 2) LoadTile<3>(sums + 3 * kTileBytes, 64);
  }
  const size_t block = static_cast<size_t>(width) * kTileBytes;
  for (int64_t g = 0; g < width; ++g) {
    const uint8_t* a = tiles + g * kTileBytes;
    const uint8_t* b = w.base + static_cast<size_t>(g) * w.group_step;
    StreamTile<6>(a, 64);
    LoadTile<4>(b, 64);
    Bf16Product<0, 6, 4>();
    if constexpr (PN == 2) {
      LoadTile<5>(b + w.panel_step, 64);
      Bf16Product<1, 6, 5>();
    }
    if constexpr (RB == 2) {
      StreamTile<7>(a + block, 64);
      Bf16Product<2, 7, 4>();
      if constexpr (PN == 2) Bf16Product<3, 7, 5>();
    }
  }
  StoreTile<0>(sums, 64);
  if constexpr (PN == 2) StoreTile<1>(sums + kTileBytes, 64);
  if constexpr (RB == 2) StoreTile<2>(sums + 2 * kTileBytes, 64);
  if constexpr (RB == 2 && PN == 2) StoreTile<3>(sums + 3 * kTileBytes, 64);
}

/// One slab of PN panels for all rows.
template <PackFormat F, int PN>
void SlabOfPanels(const PanelArgs& a, const uint8_t* panel, int64_t slab, uint8_t* sums) {
  const int64_t groups = (a.k + 31) / 32, first = slab * kSlabGroups;
  const int64_t width = groups - first < kSlabGroups ? groups - first : kSlabGroups;
  const int64_t blocks = (a.rows + kTileRows - 1) / kTileRows;
  SlabWeights w{a.scratch, kTileBytes, PN * kTileBytes};
  if (F == PackFormat::kBF16 && a.k % 32 == 0) {
    w = {panel + first * kTileBytes, a.panel_bytes, kTileBytes};
  } else {
    for (int n = 0; n < PN; ++n) {
      const uint8_t* from = panel + static_cast<size_t>(n) * a.panel_bytes;
      const TileFactors in = FactorsOf<F>(ScaleOf<F>(from, a.panel_bytes).in);
      for (int64_t g = 0; g < width; ++g) {
        uint8_t* to = a.scratch + (g * PN + n) * kTileBytes;
        if constexpr (F == PackFormat::kBF16)
          CopyTail(from, first + g, a.k, to);
        else
          UnpackTile<F>(from, first + g, in, to);
      }
    }
  }
  const uint8_t* tiles = a.tiles + TileOffset(a.first_block, first, a.tile_blocks, groups);
  int64_t block = 0;
  for (; block + 2 <= blocks; block += 2) {
    SlabProducts<2, PN>(tiles + block * width * kTileBytes, width, w, slab == 0,
                        sums + block * 2 * kTileBytes);
  }
  if (block < blocks) {
    SlabProducts<1, PN>(tiles + block * width * kTileBytes, width, w, slab == 0,
                        sums + block * 2 * kTileBytes);
  }
}

/// The sums of panels [begin, end) as rows of the output, a row of all of them at a time: rows are
/// pages apart.
template <PackFormat F>
void StoreBlocks(const PanelArgs& a, int32_t begin, int32_t end, const uint8_t* sums) {
  __m512 scale[kTilePanels];
  for (int32_t p = begin; p < end; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    scale[p - begin] = _mm512_set1_ps(ScaleOf<F>(panel, a.panel_bytes).out);
  }
  const int64_t blocks = (a.rows + kTileRows - 1) / kTileRows;
  for (int64_t row = 0; row < a.rows; ++row) {
    const uint8_t* from = sums + row / kTileRows * 2 * kTileBytes + row % kTileRows * 64;
    for (int32_t p = 0; p < end - begin; ++p) {
      const uint8_t* at = from + (p / 2 * blocks * 2 + p % 2) * kTileBytes;
      StoreRow(a, row, (begin + p) * 16, _mm512_mul_ps(_mm512_load_ps(at), scale[p]));
    }
  }
}

/// Many rows: a slab of two panels is unpacked once and serves all of them.
template <PackFormat F>
void Blocked(const PanelArgs& a) {
  WholeTiles().Load();
  const int64_t slabs = ((a.k + 31) / 32 + kSlabGroups - 1) / kSlabGroups;
  const int64_t blocks = (a.rows + kTileRows - 1) / kTileRows;
  uint8_t* const all_sums = a.scratch + 2 * kSlabGroups * kTileBytes;
  const auto sums_of = [&](int64_t pair) { return all_sums + pair * blocks * 2 * kTileBytes; };
  for (int32_t p0 = 0; p0 < a.panels; p0 += kTilePanels) {
    const int32_t end = p0 + kTilePanels < a.panels ? p0 + kTilePanels : a.panels;
    for (int64_t slab = 0; slab < slabs; ++slab) {
      for (int32_t p = p0; p < end; p += 2) {
        const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
        if (p + 2 <= end)
          SlabOfPanels<F, 2>(a, panel, slab, sums_of((p - p0) / 2));
        else
          SlabOfPanels<F, 1>(a, panel, slab, sums_of((p - p0) / 2));
      }
    }
    StoreBlocks<F>(a, p0, end, all_sums);
  }
  ReleaseTiles();
}

template <PackFormat F>
void Panels(const PanelArgs& a) {
  if (a.rows <= kTileRows)
    Streamed<F, 1>(a);
  else if (a.rows <= 2 * kTileRows)
    Streamed<F, 2>(a);
  else if (a.rows <= 3 * kTileRows)
    Streamed<F, 3>(a);
  else if (a.rows <= 4 * kTileRows)
    Streamed<F, 4>(a);
  else
    Blocked<F>(a);
}

/// 32 floats of a row, those from `left` on as zeros.
KV_INLINE __m512i RoundGroup(const float* x, int64_t left) {
  const auto bits = static_cast<uint32_t>(left >= 32 ? 0xffffffffu : (uint32_t{1} << left) - 1);
  const __m512 up = _mm512_set1_ps(static_cast<float>(int64_t{1} << kTileShift));
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(bits), x);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(bits >> 16), x + 16);
  const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_mul_ps(high, up), _mm512_mul_ps(low, up));
  __m512i out;
  __builtin_memcpy(&out, &both, sizeof(out));
  return out;
}

void ToTiles(const float* x, int64_t x_stride, int64_t rows, InputPart part, TileOrder order,
             int64_t block, int64_t blocks, uint8_t* out) {
  alignas(64) uint16_t index[32];
  for (int j = 0; j < 4; ++j) {
    constexpr int kFirst[4] = {0, 16, 1, 17};
    for (int s = 0; s < 4; ++s) {
      index[8 * j + 2 * s] = static_cast<uint16_t>(4 * j + kFirst[s]);
      index[8 * j + 2 * s + 1] = static_cast<uint16_t>(4 * j + kFirst[s] + 2);
    }
  }
  const __m512i permutation = _mm512_load_si512(index);
  const int64_t groups = (part.k + 31) / 32;
  for (int64_t i = 0; i < kTileRows; ++i) {
    for (int64_t g = part.begin / 32; g * 32 < part.end; ++g) {
      __m512i v = _mm512_setzero_si512();
      if (i < rows) v = RoundGroup(x + i * x_stride + g * 32 - part.begin, part.end - g * 32);
      if (order == TileOrder::kPacked) v = _mm512_permutexvar_epi16(permutation, v);
      _mm512_store_si512(out + TileOffset(block, g, blocks, groups) + i * 64, v);
    }
  }
}

/// The kernels of one set with the products and their tiles, which are all here. A constant: no
/// code of this file may run where its instructions are not known.
constexpr MatMulKernels WithTilePanels(MatMulKernels kernels) {
  const MatMulKernels::Panels panels[kPackFormats] = {
      FloatPanels<PackFormat::kF32>,  FloatPanels<PackFormat::kF16>,
      Panels<PackFormat::kBF16>,      Panels<PackFormat::kQ4>,
      Panels<PackFormat::kQ4M>,       Panels<PackFormat::kQ4K>,
      Panels<PackFormat::kQ5K>,       Panels<PackFormat::kQ6K>,
      Panels<PackFormat::kQ8>,        Panels<PackFormat::kQ8M>,
      Panels<PackFormat::kQ8F>,       Panels<PackFormat::kQ8F2>,
      Panels<PackFormat::kQ8FM2>,     ByteTilePanels<PackFormat::kI4>,
      ByteTilePanels<PackFormat::kI8>};
  for (int i = 0; i < kPackFormats; ++i) kernels.panels[i] = panels[i];
  kernels.to_tiles = ToTiles;
  return kernels;
}
