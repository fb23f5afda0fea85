#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/matmul_blocks_scalar.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/tile_product_scalar.h"
#include "tensor/half.h"

// The arithmetic of the tile kernels in plain C++: what AMX must give bit for bit.
namespace kvasir::scalar {
namespace {

#include "backend/cpu/matmul_scalar-inl.h"

/// One rounding of an exact value to f16, to nearest even; |x| is at most 2^15.
uint16_t RoundToF16(double x) {
  constexpr int kLeastExponent = -14, kFraction = 10;
  int exponent = 0;
  std::frexp(x, &exponent);
  const int unit = (exponent - 1 < kLeastExponent ? kLeastExponent : exponent - 1) - kFraction;
  return F32ToF16(static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit)));
}

/// d q + m in the range of f16, all three of which are f16: rounded to 11 bits, then to 8 (halves
/// away from zero), and then the bf16 whose bits are those shifted, 2^kTileExponent times as large.
float TileWeight(int32_t q, float d, float m) {
  const double exact = static_cast<double>(d) * q + static_cast<double>(m);
  const auto rounded = static_cast<uint16_t>(RoundToF16(exact) + 4u);
  const uint32_t bits = (rounded & 0x8000u) | ((rounded & 0x7fffu) >> 3);
  return Flush(std::bit_cast<float>(bits << 16));
}

float ToF16(float x) { return F16ToF32(F32ToF16(x)); }

/// 32 inputs of one row in the order of a tile's columns, as the hardware reads them.
void LoadInputs(const PanelArgs& a, int64_t row, int64_t g, float x[32]) {
  const int64_t block = a.first_block + row / kTileRows, groups = (a.k + 31) / 32;
  const uint8_t* from =
      a.tiles + TileOffset(block, g, a.tile_blocks, groups) + row % kTileRows * 64;
  for (int i = 0; i < 32; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, from + i * 2, 2);
    x[i] = Flush(Bf16ToF32(bits));
  }
}

/// The input that column c of a tile holds.
int InputOf(TileOrder order, int c) {
  if (order == TileOrder::kAscending) return c;
  constexpr int kFirst[4] = {0, 16, 1, 17};
  return c / 8 * 4 + kFirst[c / 2 % 4] + c % 2 * 2;
}

void ToTiles(const float* x, int64_t x_stride, int64_t rows, InputPart part, TileOrder order,
             int64_t block, int64_t blocks, uint8_t* out) {
  const int64_t groups = (part.k + 31) / 32;
  for (int64_t i = 0; i < kTileRows; ++i) {
    for (int64_t g = part.begin / 32; g < (part.end + 31) / 32; ++g) {
      for (int c = 0; c < 32; ++c) {
        const int64_t input = g * 32 + InputOf(order, c);
        const float v = i < rows && input < part.end ? x[i * x_stride + input - part.begin] : 0.0f;
        const uint16_t bits = F32ToBf16(std::ldexp(v, kTileShift));
        std::memcpy(out + TileOffset(block, g, blocks, groups) + i * 64 + c * 2, &bits, 2);
      }
    }
  }
}

/// Weights of group g for column n of a panel, in the order of a tile's rows.
template <PackFormat F>
void LoadWeights(const uint8_t* panel, int64_t g, int n, int64_t k, float in, float w[32]) {
  if constexpr (F == PackFormat::kBF16) {
    for (int i = 0; i < 32; ++i) {
      const int64_t input = g * 32 + i;
      // An odd number of inputs ends with half a pair, whose other half is zero.
      w[i] = input < (k + 1) / 2 * 2 ? Flush(FloatAt<F>(panel, input, n)) : 0.0f;
    }
  } else {
    Scales s;
    const uint8_t* group = GroupOf<F>(panel, g, &s);
    for (int c = 0; c < 32; ++c) {
      const int i = InputOf(TileOrder::kPacked, c), h = kHalves<F> == 2 ? i / 16 : 0;
      const float d = ToF16(s.d[h][n] * (in / kTileUnit<F>));
      float m = kHasMin<F> ? ToF16(s.m[h][n] * in) : 0.0f;
      int32_t q = WeightAt<F>(group, n, i) * kTileUnit<F>;
      if constexpr (kBits<F> == 4 && kHasMin<F>) {  // d q + m = d (q - 8) + (d 8 + m)
        m = F16ToF32(RoundToF16(static_cast<double>(d) * 8 + static_cast<double>(m)));
        q -= 8;
      }
      w[c] = TileWeight(q, d, m);
    }
  }
}

template <PackFormat F>
void TilePanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    TileScale scale;
    scale.out = std::ldexp(1.0f, -kTileShift);
    if constexpr (F != PackFormat::kBF16) {
      std::memcpy(&scale, panel + a.panel_bytes - sizeof(scale), sizeof(scale));
    }
    for (int64_t r0 = 0; r0 < a.rows; r0 += kTileRows) {
      const int64_t rows = a.rows - r0 < kTileRows ? a.rows - r0 : kTileRows;
      float acc[kTileRows][16] = {}, x[kTileRows][32], w[32];
      for (int64_t g = 0; g < (a.k + 31) / 32; ++g) {
        for (int64_t r = 0; r < rows; ++r) LoadInputs(a, r0 + r, g, x[r]);
        for (int n = 0; n < 16; ++n) {
          LoadWeights<F>(panel, g, n, a.k, scale.in, w);
          for (int64_t r = 0; r < rows; ++r) acc[r][n] = TileDotBf16(acc[r][n], x[r], w, 16);
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (float& v : acc[r]) v *= scale.out;
        StoreRow(a, r0 + r, p * kPanel, acc[r]);
      }
    }
  }
}

}  // namespace

const MatMulKernels kMatMulTiles = {
    nullptr,
    ToTiles,
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, TilePanels<PackFormat::kBF16>,
     TilePanels<PackFormat::kQ4>, TilePanels<PackFormat::kQ4M>, TilePanels<PackFormat::kQ4K>,
     TilePanels<PackFormat::kQ5K>, TilePanels<PackFormat::kQ6K>, TilePanels<PackFormat::kQ8>,
     TilePanels<PackFormat::kQ8M>, TilePanels<PackFormat::kQ8F>, TilePanels<PackFormat::kQ8F2>,
     TilePanels<PackFormat::kQ8FM2>, BlockPanels<PackFormat::kI4>, BlockPanels<PackFormat::kI8>},
    nullptr,
    nullptr,
    nullptr,
    QuantizeBlocks};

}  // namespace kvasir::scalar
