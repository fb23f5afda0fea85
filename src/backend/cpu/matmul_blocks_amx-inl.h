// Products of the faster mode in tiles of bytes (TDPBSSD), after matmul_blocks_avx512-inl.h and the
// instructions of tiles.h, or what stands for them in the tests. No include guard.

/// Blocks of 256 inputs whose weights are unpacked at a time: of two panels they are 16 KiB.
constexpr int64_t kByteSlabBlocks = 2;
constexpr int64_t kBlockTiles = kBlock / kByteTileInputs;

/// A group of a kI4 record as the upper or lower half of a B tile: [8 fours of inputs][16][4].
KV_INLINE void UnpackBytes(const uint8_t* record, int64_t groups, int64_t g, uint8_t* half) {
  const __m512i scale = GroupScale(record + groups * 256 + g * 16);
  const __m512i offset = _mm512_mullo_epi32(
      _mm512_cvtepu8_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(record + groups * (256 + 16) + g * 16))),
      _mm512_set1_epi32(0x01010101));
  for (int j = 0; j < 4; ++j) {
    const uint8_t* from = record + g * 256 + j * 64;
    _mm_prefetch(reinterpret_cast<const char*>(from) + 4096, _MM_HINT_T0);
    const __m512i v = _mm512_loadu_si512(from);
    _mm512_store_si512(half + j * 64, _mm512_add_epi8(LowNibbles(v, scale), offset));
    _mm512_store_si512(half + (j + 4) * 64, _mm512_add_epi8(HighNibbles(v, scale), offset));
  }
}

/// A record of one panel as B tiles, `step` bytes apart; a last half is filled with zeros.
template <PackFormat F>
KV_INLINE void UnpackRecord(const uint8_t* record, int64_t groups, uint8_t* tiles, size_t step) {
  for (int64_t g = 0; g < groups; ++g) {
    uint8_t* half = tiles + static_cast<size_t>(g / 2) * step + g % 2 * 512;
    if constexpr (F == PackFormat::kI4) {
      UnpackBytes(record, groups, g, half);
    } else {
      for (int j = 0; j < 8; ++j)
        _mm512_store_si512(half + j * 64, _mm512_loadu_si512(record + g * 512 + j * 64));
    }
  }
  if (groups % 2 == 1) {
    uint8_t* half = tiles + static_cast<size_t>(groups / 2) * step + 512;
    for (int j = 0; j < 8; ++j) _mm512_store_si512(half + j * 64, _mm512_setzero_si512());
  }
}

/// One block of inputs of RB row blocks and PN panels: where everything is.
struct ByteBlock {
  const int8_t* x;  ///< tiles of the first row block, those of the next `x_step` further
  size_t x_step;
  const uint8_t* w;  ///< B tiles, [64 inputs][PN]
  int64_t tiles;     ///< of 64 inputs
  const float* d;    ///< of the first row, those of the next `d_step` further
  int64_t d_step;
  const float* scales[2];  ///< [16] of each panel
  bool first;              ///< nothing is added up yet
};

// Tiles: sums of row block r and panel n are 2 r + n; weights 4 + n; activations 6 + r.
template <int RB, int PN>
KV_INLINE void ByteProducts(const ByteBlock& b) {
  ZeroTile<0>();
  ZeroTile<1>();
  ZeroTile<2>();
  ZeroTile<3>();
  for (int64_t t = 0; t < b.tiles; ++t) {
    const int8_t* x = b.x + t * kTileBytes;
    const uint8_t* w = b.w + t * PN * kTileBytes;
    StreamTile<6>(x, 64);
    LoadTile<4>(w, 64);
    SignedProduct<0, 6, 4>();
    if constexpr (PN == 2) {
      LoadTile<5>(w + kTileBytes, 64);
      SignedProduct<1, 6, 5>();
    }
    if constexpr (RB == 2) {
      StreamTile<7>(x + b.x_step, 64);
      SignedProduct<2, 7, 4>();
      if constexpr (PN == 2) SignedProduct<3, 7, 5>();
    }
  }
}

/// sums[row block][panel][16][16] = fma(dots, scales, sums) of `rows` rows.
template <int PN>
KV_INLINE void FoldBlock(const ByteBlock& b, const uint8_t* dots, int64_t rows, uint8_t* sums) {
  for (int n = 0; n < PN; ++n) {
    const __m512 scale = _mm512_loadu_ps(b.scales[n]);
    for (int64_t r = 0; r < rows; ++r) {
      const size_t at =
          static_cast<size_t>(r / kTileRows * 2 + n) * kTileBytes + r % kTileRows * 64;
      const __m512 before = b.first ? _mm512_setzero_ps() : _mm512_load_ps(sums + at);
      const __m512 d = _mm512_mul_ps(scale, _mm512_set1_ps(b.d[r * b.d_step]));
      _mm512_store_ps(sums + at,
                      _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(dots + at)), d, before));
    }
  }
}

template <int RB, int PN>
KV_INLINE void StoreDots(uint8_t* dots) {
  StoreTile<0>(dots, 64);
  if constexpr (PN == 2) StoreTile<1>(dots + kTileBytes, 64);
  if constexpr (RB == 2) StoreTile<2>(dots + 2 * kTileBytes, 64);
  if constexpr (RB == 2 && PN == 2) StoreTile<3>(dots + 3 * kTileBytes, 64);
}

/// The blocks of a slab for RB row blocks. While the tiles multiply a block, vectors fold the one
/// before it.
template <int RB, int PN>
KV_INLINE void ByteSlabRows(const ByteBlock* blocks, int64_t count, int64_t rows, uint8_t* sums) {
  alignas(64) uint8_t dots[2][4 * kTileBytes];
  for (int64_t i = 0; i < count; ++i) {
    ByteProducts<RB, PN>(blocks[i]);
    if (i > 0) FoldBlock<PN>(blocks[i - 1], dots[(i - 1) % 2], rows, sums);
    StoreDots<RB, PN>(dots[i % 2]);
  }
  FoldBlock<PN>(blocks[count - 1], dots[(count - 1) % 2], rows, sums);
}

/// One slab of PN panels for all rows.
template <PackFormat F, int PN>
void ByteSlab(const PanelArgs& a, const uint8_t* panel, int64_t slab, uint8_t* sums) {
  const int64_t groups = a.k / 32, tiles = ByteTiles(a.k);
  const int64_t blocks = (groups + kBlockGroups - 1) / kBlockGroups;
  const int64_t first = slab * kByteSlabBlocks;
  const int64_t count = blocks - first < kByteSlabBlocks ? blocks - first : kByteSlabBlocks;
  ByteBlock todo[kByteSlabBlocks];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t left = groups - (first + i) * kBlockGroups;
    const int64_t in = left < kBlockGroups ? left : kBlockGroups;
    uint8_t* w = a.scratch + static_cast<size_t>(i * kBlockTiles * PN) * kTileBytes;
    ByteBlock& b = todo[i];
    b = {};
    for (int n = 0; n < PN; ++n) {
      const uint8_t* record = panel + static_cast<size_t>(n) * a.panel_bytes +
                              static_cast<size_t>(first + i) * BlockBytes(F, kBlockGroups);
      UnpackRecord<F>(record, in, w + n * kTileBytes, PN * kTileBytes);
      b.scales[n] = reinterpret_cast<const float*>(record + BlockBytes(F, in) - 64);
    }
    b.w = w;
    b.tiles = (in + 1) / 2;
    b.first = first + i == 0;
    b.x_step = static_cast<size_t>(tiles) * kTileBytes;
    b.d_step = blocks;
  }
  for (int64_t row = 0; row < a.rows; row += 2 * kTileRows) {
    const int64_t rows = a.rows - row < 2 * kTileRows ? a.rows - row : 2 * kTileRows;
    for (int64_t i = 0; i < count; ++i) {
      todo[i].x =
          a.byte_tiles +
          ((a.first_block + row / kTileRows) * tiles + (first + i) * kBlockTiles) * kTileBytes;
      todo[i].d = a.d + row * blocks + first + i;
    }
    uint8_t* to = sums + row / kTileRows * 2 * kTileBytes;
    if (rows > kTileRows)
      ByteSlabRows<2, PN>(todo, count, rows, to);
    else
      ByteSlabRows<1, PN>(todo, count, rows, to);
  }
}

/// Panels and slabs in the order in which less moves: of few rows the weights, which then pass as
/// they lie in memory; of many the sums.
template <PackFormat F>
void ByteTilePanels(const PanelArgs& a) {
  constexpr int64_t kFewVectors = 4, kFewRows = 64;
  if (a.rows <= kFewVectors) return BlockPanels<F>(a);
  WholeTiles().Load();
  const int64_t blocks = (a.k + kBlock - 1) / kBlock;
  const int64_t slabs = (blocks + kByteSlabBlocks - 1) / kByteSlabBlocks;
  const int64_t row_blocks = (a.rows + kTileRows - 1) / kTileRows;
  const int32_t together = a.rows <= kFewRows ? 2 : kTilePanels;
  uint8_t* const all_sums = a.scratch + 2 * kByteSlabBlocks * kBlockTiles * kTileBytes;
  const auto sums_of = [&](int64_t pair) { return all_sums + pair * row_blocks * 2 * kTileBytes; };
  for (int32_t p0 = 0; p0 < a.panels; p0 += together) {
    const int32_t end = p0 + together < a.panels ? p0 + together : a.panels;
    for (int64_t slab = 0; slab < slabs; ++slab) {
      for (int32_t p = p0; p < end; p += 2) {
        const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
        if (p + 2 <= end)
          ByteSlab<F, 2>(a, panel, slab, sums_of((p - p0) / 2));
        else
          ByteSlab<F, 1>(a, panel, slab, sums_of((p - p0) / 2));
      }
    }
    for (int64_t row = 0; row < a.rows; ++row) {
      const uint8_t* from = all_sums + row / kTileRows * 2 * kTileBytes + row % kTileRows * 64;
      for (int32_t p = 0; p < end - p0; ++p) {
        const uint8_t* at = from + (p / 2 * row_blocks * 2 + p % 2) * kTileBytes;
        StoreRow(a, row, (p0 + p) * 16, _mm512_load_ps(at));
      }
    }
  }
  ReleaseTiles();
}
