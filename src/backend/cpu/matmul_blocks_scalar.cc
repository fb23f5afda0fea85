#include <cmath>
#include <cstring>

#include "backend/cpu/matmul_blocks_scalar.h"
#include "backend/cpu/pack.h"
#include "tensor/half.h"

// The arithmetic of the faster mode in plain C++.
namespace kvasir::scalar {
namespace {

#include "backend/cpu/matmul_scalar-inl.h"

/// Weight i of group g of column n, of a record of `groups`.
template <PackFormat F>
int32_t BlockWeightAt(const uint8_t* record, int64_t groups, int64_t g, int n, int i) {
  if constexpr (F == PackFormat::kI4) {
    const int32_t q = WeightAt<F>(record + g * 256, n, i);
    return q * record[groups * 256 + g * 16 + n] +
           static_cast<int8_t>(record[groups * (256 + 16) + g * 16 + n]);
  } else {
    return WeightAt<F>(record + g * 512, n, i);
  }
}

}  // namespace

template <PackFormat F>
void BlockPanels(const PanelArgs& a) {
  const int64_t groups = a.k / kGroup, tiles = ByteTiles(a.k);
  const int64_t blocks = (groups + kBlockGroups - 1) / kBlockGroups;
  for (int32_t p = 0; p < a.panels; ++p) {
    for (int64_t r = 0; r < a.rows; ++r) {
      const uint8_t* record = a.weights + static_cast<size_t>(p) * a.panel_bytes;
      const int8_t* row =
          a.byte_tiles + (a.first_block + r / kTileRows) * tiles * kTileBytes + r % kTileRows * 64;
      float acc[16] = {};
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t first = b * kBlockGroups;
        const int64_t count = groups - first < kBlockGroups ? groups - first : kBlockGroups;
        const size_t bytes = BlockBytes(F, count);
        for (int n = 0; n < 16; ++n) {
          int32_t dot = 0;
          for (int64_t i = 0; i < count * kGroup; ++i) {
            const int64_t at = first * kGroup + i;
            dot += BlockWeightAt<F>(record, count, i / kGroup, n, static_cast<int>(i % kGroup)) *
                   row[at / 64 * kTileBytes + at % 64];
          }
          const float d = LoadFloat(record + bytes - 64 + n * 4);
          acc[n] = std::fma(static_cast<float>(dot), d * a.d[r * blocks + b], acc[n]);
        }
        record += bytes;
      }
      StoreRow(a, r, p * kPanel, acc);
    }
  }
}
template void BlockPanels<PackFormat::kI4>(const PanelArgs& a);
template void BlockPanels<PackFormat::kI8>(const PanelArgs& a);

ByteScale ByteScaleOf(const float* x, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return {NAN, 0};
    largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  }
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  return {largest / 127.0f, inverse <= 3.0e38f ? inverse : 0.0f};
}

int32_t ToByte(float x, float inverse) {
  return inverse > 0 ? static_cast<int32_t>(std::nearbyintf(x * inverse)) : 0;
}

void QuantizeBlocks(const float* x, InputPart part, int64_t row, const ByteBlocks& out) {
  const int64_t groups = part.k / kGroup, blocks = (part.k + kBlock - 1) / kBlock;
  int8_t* to = out.q + row / kTileRows * ByteTiles(part.k) * kTileBytes + row % kTileRows * 64;
  for (int64_t begin = part.begin; begin < part.end; begin += kBlock, x += kBlock) {
    const int64_t count = begin + kBlock < part.end ? kBlock : part.end - begin;
    const ByteScale scale = ByteScaleOf(x, count);
    out.d[row * blocks + begin / kBlock] = scale.d;
    int32_t* const sums = out.sum + row * groups + begin / kGroup;
    for (int64_t g = 0; g < count / kGroup; ++g) sums[g] = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t q = ToByte(x[i], scale.inverse);
      to[(begin + i) / 64 * kTileBytes + (begin + i) % 64] = static_cast<int8_t>(q);
      sums[i / kGroup] += q;
    }
  }
}

}  // namespace kvasir::scalar
