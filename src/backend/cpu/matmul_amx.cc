#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/tiles.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::amx {
namespace {

#include "backend/cpu/matmul_avx512-inl.h"

/// Fewer rows than this are computed with vpdpbusd, which has the same bits: a tile product costs
/// as much for one row as for sixteen.
constexpr int64_t kMinTileRows = 4;

/// The signed bytes of a group as B tiles: eight rows of 64 bytes, [k/4][column][k%4].
template <PackFormat F>
KV_INLINE const uint8_t* GroupTile(const uint8_t* group, uint8_t* scratch) {
  if constexpr (!kFourBit<F>) {
    return group;
  } else {
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i offset = _mm512_set1_epi8(F == PackFormat::kQ4 ? 8 : 0);
    for (int j = 0; j < 4; ++j) {
      const __m512i v = _mm512_loadu_si512(group + j * 64);
      _mm512_storeu_si512(scratch + j * 64, _mm512_sub_epi8(_mm512_and_si512(v, low), offset));
      _mm512_storeu_si512(scratch + 256 + j * 64,
                          _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(v, 4), low), offset));
    }
    return scratch;
  }
}

/// Up to 16 rows of one panel: a tile product for each group (or half of it), whose sums then take
/// the same way into the accumulators as everywhere.
template <PackFormat F>
void TileRows(const PanelArgs& a, const uint8_t* panel, int64_t first, int64_t r, int rows) {
  alignas(64) uint8_t unpacked[512];
  alignas(64) int32_t dots[16 * 16];
  __m512 acc[16];
  for (int i = 0; i < 16; ++i) acc[i] = _mm512_setzero_ps();
  constexpr int kBytes = 32 / kHalves<F>;  // of k in one product
  for (int64_t g = 0; g < a.k / 32; ++g) {
    Scales s;
    const uint8_t* tile = GroupTile<F>(GroupOf<F>(panel, g, &s), unpacked);
    for (int h = 0; h < kHalves<F>; ++h) {
      TileProduct(a.q + r * a.k + g * 32 + h * kBytes, static_cast<size_t>(a.k),
                  tile + h * kBytes * 16, dots);
      for (int i = 0; i < rows; ++i) {
        const int64_t at = (r + i) * (a.k / 32) + g;
        const int32_t sum = kHalves<F> == 2 ? a.sum[2 * at + h] : a.sum[2 * at] + a.sum[2 * at + 1];
        acc[i] = Accumulate<F>(s, h, a.d[at], sum, _mm512_load_si512(dots + i * 16), acc[i]);
      }
    }
  }
  for (int i = 0; i < rows; ++i) StoreRow(a, r + i, first, acc[i]);
}

template <PackFormat F>
void Panels(const PanelArgs& a) {
  int configured = 0;
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    while (a.rows - r >= kMinTileRows) {
      const int rows = static_cast<int>(a.rows - r < 16 ? a.rows - r : 16);
      if (rows != configured) ConfigureTiles(rows, 32 / kHalves<F>);
      configured = rows;
      TileRows<F>(a, panel, p * 16, r, rows);
      r += rows;
    }
    VnniPanel<F>(a, panel, p * 16, r);
  }
  if (configured != 0) ReleaseTiles();
}

uint64_t Int8Peak(int64_t rounds) { return TilePeak(rounds); }

}  // namespace

const MatMulKernels kMatMul = {
    avx2::QuantizeRow,
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
     Panels<PackFormat::kQ4>, Panels<PackFormat::kQ4M>, Panels<PackFormat::kQ4K>,
     Panels<PackFormat::kQ8>, Panels<PackFormat::kQ8M>, Panels<PackFormat::kQ8F>,
     Panels<PackFormat::kQ8FM>, Panels<PackFormat::kQ8F2>, Panels<PackFormat::kQ8FM2>},
    Int8Peak,
    FloatPeak};

}  // namespace kvasir::amx
