#include <cmath>
#include <cstring>

#include "backend/cpu/matmul_blocks_scalar.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/tile_product_scalar.h"
#include "tensor/half.h"

namespace kvasir::scalar {
namespace {

#include "backend/cpu/matmul_scalar-inl.h"

void QuantizeRow(const float* x, int64_t k, int8_t* q, float* d, int32_t* sum) {
  for (int64_t g = 0; g < k / kGroup; ++g) {
    const float* in = x + g * kGroup;
    const ByteScale scale = ByteScaleOf(in, kGroup);
    d[g] = scale.d;
    sum[2 * g] = sum[2 * g + 1] = 0;
    for (int i = 0; i < kGroup; ++i) {
      const int32_t value = ToByte(in[i], scale.inverse);
      q[g * kGroup + i] = static_cast<int8_t>(value);
      sum[2 * g + i / 16] += value;
    }
  }
}

template <PackFormat F>
void Panels(const PanelArgs& a) {
  constexpr int kEnd = 32 / kHalves<F>;  // inputs that share a scale
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    for (int64_t r = 0; r < a.rows; ++r) {
      float acc[16] = {};
      for (int64_t g = 0; g < a.k / kGroup; ++g) {
        Scales s;
        const uint8_t* group = GroupOf<F>(panel, g, &s);
        const int8_t* q = a.q + r * a.k + g * kGroup;
        const float d = a.d[r * (a.k / kGroup) + g];
        const int32_t* sums = a.sum + (r * (a.k / kGroup) + g) * 2;
        for (int h = 0; h < kHalves<F>; ++h) {
          const int32_t sum = kHalves<F> == 2 ? sums[h] : sums[0] + sums[1];
          for (int n = 0; n < 16; ++n) {
            int32_t dot = 0;
            for (int i = 0; i < kEnd; ++i)
              dot += WeightAt<F>(group, n, h * kEnd + i) * q[h * kEnd + i];
            acc[n] = std::fma(static_cast<float>(dot), s.d[h][n] * d, acc[n]);
            if constexpr (kHasMin<F>)
              acc[n] = std::fma(s.m[h][n], d * static_cast<float>(sum), acc[n]);
          }
        }
      }
      StoreRow(a, r, p * kPanel, acc);
    }
  }
}

void ToPairs(const float* x, int64_t k, uint8_t* out) {
  for (int64_t i = 0; i < (k + 1) / 2 * 2; ++i) {
    const uint16_t bits = i < k ? F32ToBf16(Flush(x[i])) : uint16_t{0};
    std::memcpy(out + i * 2, &bits, 2);
  }
}

/// bf16 weights, in pairs.
void PairPanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    for (int64_t r = 0; r < a.rows; ++r) {
      float acc[16] = {};
      for (int64_t i = 0; i < a.k; i += 2) {
        float x[2], w[2];
        for (int64_t h = 0; h < 2; ++h) {
          uint16_t bits = 0;
          std::memcpy(&bits, a.pairs + static_cast<size_t>(r) * PairBytes(a.k) + (i + h) * 2, 2);
          x[h] = Bf16ToF32(bits);
        }
        for (int n = 0; n < 16; ++n) {
          for (int64_t h = 0; h < 2; ++h) w[h] = FloatAt<PackFormat::kBF16>(panel, i + h, n);
          acc[n] = PairDotBf16(acc[n], x, w, 1);
        }
      }
      StoreRow(a, r, p * kPanel, acc);
    }
  }
}

template <typename T>
uint64_t ScalarPeak(int64_t rounds) {
  T acc[4] = {};
  volatile T a = 1, b = 2;
  for (int64_t i = 0; i < rounds; ++i) {
    const T x = a, y = b;
    for (T& v : acc) v += x * y;
  }
  volatile T sink = acc[0] + acc[1] + acc[2] + acc[3];
  (void)sink;
  return static_cast<uint64_t>(rounds) * 4 * 2;
}

uint64_t Int8Peak(int64_t rounds) { return ScalarPeak<int32_t>(rounds); }
uint64_t FloatPeak(int64_t rounds) { return ScalarPeak<float>(rounds); }

constexpr MatMulKernels kIntegers = {
    QuantizeRow,
    nullptr,
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
     Panels<PackFormat::kQ4>, Panels<PackFormat::kQ4M>, Panels<PackFormat::kQ4K>,
     Panels<PackFormat::kQ5K>, Panels<PackFormat::kQ6K>, Panels<PackFormat::kQ8>,
     Panels<PackFormat::kQ8M>, Panels<PackFormat::kQ8F>, Panels<PackFormat::kQ8F2>,
     Panels<PackFormat::kQ8FM2>, BlockPanels<PackFormat::kI4>, BlockPanels<PackFormat::kI8>},
    Int8Peak,
    FloatPeak,
    nullptr,
    QuantizeBlocks};

constexpr MatMulKernels WithPairs(MatMulKernels kernels) {
  kernels.panels[static_cast<int>(PackFormat::kBF16)] = PairPanels;
  kernels.to_pairs = ToPairs;
  return kernels;
}

}  // namespace

const MatMulKernels kMatMul = kIntegers;
const MatMulKernels kMatMulPairs = WithPairs(kIntegers);

}  // namespace kvasir::scalar
