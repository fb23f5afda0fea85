#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/vector_kernels.h"
#include "base/exp_constants.h"
#include "kv/layout.h"
#include "tensor/half.h"

namespace kvasir::scalar {

float Exp(float x) {
  if (x < kExpLow) return 0.0f;
  if (x > kExpHigh) x = kExpHigh;
  const float n = std::nearbyintf(x * kLog2E);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float p = std::fma(kExp6, r, kExp5);
  p = std::fma(p, r, kExp4);
  p = std::fma(p, r, kExp3);
  p = std::fma(p, r, kExp2);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  if (std::isnan(x)) return x;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

namespace {

template <KvDType T>
constexpr int32_t kPack = T == KvDType::kBF16   ? 2
                          : T == KvDType::kInt8 ? 4
                                                : 1;

/// Element `index` of a K or V area as f32.
template <KvDType T>
float Element(const uint8_t* base, size_t index) {
  if constexpr (T == KvDType::kF32) {
    float value = 0;
    std::memcpy(&value, base + index * 4, 4);
    return value;
  } else if constexpr (T == KvDType::kInt8) {
    return static_cast<float>(static_cast<int8_t>(base[index]));
  } else {
    uint16_t bits = 0;
    std::memcpy(&bits, base + index * 2, 2);
    return T == KvDType::kF16 ? F16ToF32(bits) : Bf16ToF32(bits);
  }
}

template <KvDType T>
void Score(const ScoreArgs& a) {
  constexpr int32_t p = kPack<T>;
  for (int32_t r = 0; r < a.rows; ++r) {
    for (int32_t i = 0; i < a.tiles * 16; ++i) {
      const int32_t tile = i / 16, t = i % 16;
      float acc = 0;
      for (int32_t c = 0; c < a.channels; ++c) {
        const size_t index = static_cast<size_t>(c / p * 16 + t) * p + c % p;
        acc = std::fma(a.q[r * a.q_stride + c], Element<T>(a.k[tile], index), acc);
      }
      if constexpr (T == KvDType::kInt8) acc *= a.k_scale[tile][t];
      a.out[r * a.out_stride + i] = acc;
    }
  }
}

template <KvDType T>
void Value(const ValueArgs& a) {
  constexpr int32_t p = kPack<T>;
  for (int32_t r = 0; r < a.rows; ++r) {
    for (int32_t c = 0; c < a.head_dim_padded; ++c) {
      float acc = a.acc[r * a.head_dim_padded + c];
      for (int32_t t = a.begin; t < a.end; ++t) {
        const size_t index =
            static_cast<size_t>((c / 16 * (a.block_tokens / p) + t / p) * 16 + c % 16) * p + t % p;
        float weight = a.p[r * a.p_stride + t];
        if constexpr (T == KvDType::kInt8) weight *= a.v_scale[t];
        acc = std::fma(weight, Element<T>(a.v, index), acc);
      }
      a.acc[r * a.head_dim_padded + c] = acc;
    }
  }
}

void Softmax(float* s, int32_t begin, int32_t end, float* m, float* l) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int32_t t = begin; t < end; ++t) largest = s[t] > largest ? s[t] : largest;
  float lanes[16] = {};
  for (int32_t t = begin; t < end; ++t) {
    s[t] = Exp(s[t] - largest);
    lanes[t % 16] += s[t];
  }
  for (int32_t half = 8; half > 0; half /= 2) {
    for (int32_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  *m = largest;
  *l = lanes[0];
}

void Merge(const RowState& from, int32_t n, RowState* to) {
  const float most = from.m > to->m ? from.m : to->m;
  const float keep = Exp(to->m - most), take = Exp(from.m - most);
  to->m = most;
  to->l = to->l * keep + from.l * take;
  for (int32_t c = 0; c < n; ++c) to->acc[c] = to->acc[c] * keep + from.acc[c] * take;
}

void Silu(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

void Gelu(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    const float u = kGeluScale * std::fma(kGeluCubic * x, x * x, x);
    gate[i] = x / (1.0f + Exp(-2.0f * u)) * up[i];
  }
}

void Rotate(float* x, int32_t pairs, const float* cos, const float* sin, bool neox, float scale) {
  const int32_t step = neox ? 1 : 2, partner = neox ? pairs : 1;
  for (int32_t i = 0; i < pairs; ++i) {
    const float a = x[i * step], b = x[i * step + partner];
    x[i * step] = (a * cos[i] - b * sin[i]) * scale;
    x[i * step + partner] = (a * sin[i] + b * cos[i]) * scale;
  }
}

void ToBf16(const float* x, int32_t n, uint16_t* out) {
  for (int32_t i = 0; i < n; ++i) out[i] = F32ToBf16(x[i]);
}

}  // namespace

const VectorKernels kVector = {
    {Score<KvDType::kF32>, Score<KvDType::kF16>, Score<KvDType::kBF16>, Score<KvDType::kInt8>},
    {Value<KvDType::kF32>, Value<KvDType::kF16>, Value<KvDType::kBF16>, Value<KvDType::kInt8>},
    Softmax,
    Merge,
    Silu,
    Gelu,
    Rotate,
    ToBf16};

}  // namespace kvasir::scalar
