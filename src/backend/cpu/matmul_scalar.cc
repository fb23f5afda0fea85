#include <cmath>
#include <cstring>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "tensor/half.h"

namespace kvasir::scalar {
namespace {

void QuantizeRow(const float* x, int64_t k, int8_t* q, int16_t* q16, float* d, int32_t* sum) {
  for (int64_t g = 0; g < k / kGroup; ++g) {
    const float* in = x + g * kGroup;
    float largest = 0;
    bool finite = true;
    for (int i = 0; i < kGroup; ++i) {
      finite = finite && std::isfinite(in[i]);
      largest = std::fabs(in[i]) > largest ? std::fabs(in[i]) : largest;
    }
    d[g] = finite ? largest / 127.0f : NAN;
    const float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
    sum[2 * g] = sum[2 * g + 1] = 0;
    for (int i = 0; i < kGroup; ++i) {
      // The inverse of a subnormal overflows, and infinity times zero is no number: such groups are
      // zero.
      const float scaled = inverse <= 3.0e38f ? in[i] * inverse : 0.0f;
      const auto value = static_cast<int32_t>(std::nearbyintf(scaled));
      q[g * kGroup + i] = static_cast<int8_t>(value);
      q16[g * kGroup + i] = static_cast<int16_t>(value);
      sum[2 * g + i / 16] += value;
    }
  }
}

/// Scales and minima of a group for 16 columns, by half of the group.
struct Scales {
  float d[2][16];
  float m[2][16];
};

float LoadHalf(const uint8_t* p) {
  uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return F16ToF32(bits);
}
float LoadFloat(const uint8_t* p) {
  float value = 0;
  std::memcpy(&value, p, 4);
  return value;
}

/// The record's weights of group g.
template <PackFormat F>
const uint8_t* GroupOf(const uint8_t* panel, int64_t g, Scales* s) {
  if constexpr (F == PackFormat::kQ4K) {
    const uint8_t* record = panel + static_cast<size_t>(g / 8) * kQ4KBytes;
    for (int n = 0; n < 16; ++n) {
      const uint8_t scale = record[kQ4KSubScalesAt + g % 8 * 16 + n];
      const uint8_t minimum = record[kQ4KSubMinsAt + g % 8 * 16 + n];
      s->d[0][n] = LoadHalf(record + kQ4KScalesAt + n * 2) * static_cast<float>(scale);
      s->m[0][n] = -(LoadHalf(record + kQ4KMinsAt + n * 2) * static_cast<float>(minimum));
    }
    return record + g % 8 * 256;
  } else {
    constexpr size_t kBytes = kFourBit<F> ? 256 : 512;
    constexpr size_t kEach = kHalfScales<F> ? 2 : 4;
    constexpr int kParts = kHalves<F> * (kHasMin<F> ? 2 : 1);
    const uint8_t* record = panel + static_cast<size_t>(g) * (kBytes + kParts * 16 * kEach);
    for (int part = 0; part < kParts; ++part) {
      float* to = part < kHalves<F> ? s->d[part] : s->m[part - kHalves<F>];
      for (int n = 0; n < 16; ++n) {
        const uint8_t* at = record + kBytes + (static_cast<size_t>(part) * 16 + n) * kEach;
        to[n] = kHalfScales<F> ? LoadHalf(at) : LoadFloat(at);
      }
    }
    return record;
  }
}

template <PackFormat F>
int32_t WeightAt(const uint8_t* group, int n, int i) {
  if constexpr (kFourBit<F>) {
    const int c = i % 16;
    const uint8_t byte = group[c / 4 * 64 + n * 4 + c % 4];
    return (i < 16 ? byte & 15 : byte >> 4) - (F == PackFormat::kQ4 ? 8 : 0);
  } else {
    return static_cast<int8_t>(group[i / 4 * 64 + n * 4 + i % 4]);
  }
}

void StoreRow(const PanelArgs& a, int64_t row, int64_t first, const float acc[16]) {
  for (int n = 0; n < 16 && first + n < a.columns; ++n) {
    float* out = a.out + row * a.out_stride + first + n;
    float value = acc[n];
    if (a.bias != nullptr) value += a.bias[first + n];
    *out = a.add ? *out + value : value;
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

template <PackFormat F>
float FloatAt(const uint8_t* panel, int64_t k, int n) {
  const size_t at = static_cast<size_t>(k) * 16 + n;
  if constexpr (F == PackFormat::kF32) return LoadFloat(panel + at * 4);
  if constexpr (F == PackFormat::kF16) return LoadHalf(panel + at * 2);
  uint16_t bits = 0;
  std::memcpy(&bits,
              panel + ((static_cast<size_t>(k) / 2 * 16 + n) * 2 + static_cast<size_t>(k) % 2) * 2,
              2);
  return Bf16ToF32(bits);
}

template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    for (int64_t r = 0; r < a.rows; ++r) {
      float acc[16] = {};
      for (int64_t k = 0; k < a.k; ++k) {
        for (int n = 0; n < 16; ++n)
          acc[n] = std::fma(FloatAt<F>(panel, k, n), a.x[r * a.x_stride + k], acc[n]);
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

}  // namespace

const MatMulKernels kMatMul = {
    QuantizeRow,
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
     Panels<PackFormat::kQ4>, Panels<PackFormat::kQ4M>, Panels<PackFormat::kQ4K>,
     Panels<PackFormat::kQ8>, Panels<PackFormat::kQ8M>, Panels<PackFormat::kQ8F>,
     Panels<PackFormat::kQ8FM>, Panels<PackFormat::kQ8F2>, Panels<PackFormat::kQ8FM2>},
    Int8Peak,
    FloatPeak};

}  // namespace kvasir::scalar
