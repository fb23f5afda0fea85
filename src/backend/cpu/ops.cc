#include "backend/cpu/ops.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

/// Rotates one head in place (Su et al. 2021): each pair of channels by its angle.
void Rotate(float* x, int32_t dims, const float* cos, const float* sin, bool neox) {
  const int32_t pairs = dims / 2;
  const int32_t step = neox ? 1 : 2, partner = neox ? pairs : 1;
  for (int32_t i = 0; i < pairs; ++i) {
    const float a = x[i * step], b = x[i * step + partner];
    x[i * step] = a * cos[i] - b * sin[i];
    x[i * step + partner] = a * sin[i] + b * cos[i];
  }
}

/// One head's vector into its token slot; `index` gives the element index of a channel.
template <typename Index>
void StoreVector(const KvLayout& l, const float* x, uint8_t* area, float* scale,
                 const Index& index) {
  const int32_t d = l.head_dim, padded = l.head_dim_padded;
  switch (l.dtype) {
    case KvDType::kF32:
      for (int32_t c = 0; c < padded; ++c) {
        const float v = c < d ? x[c] : 0.0f;
        std::memcpy(area + index(c) * 4, &v, 4);
      }
      return;
    case KvDType::kF16:
    case KvDType::kBF16:
      for (int32_t c = 0; c < padded; ++c) {
        const float v = c < d ? x[c] : 0.0f;
        const uint16_t bits = l.dtype == KvDType::kF16 ? F32ToF16(v) : F32ToBf16(v);
        std::memcpy(area + index(c) * 2, &bits, 2);
      }
      return;
    case KvDType::kInt8: {
      float largest = 0;
      bool finite = true;
      for (int32_t c = 0; c < d; ++c) {
        finite = finite && std::isfinite(x[c]);
        largest = std::fabs(x[c]) > largest ? std::fabs(x[c]) : largest;
      }
      // A vector that is not finite must not turn into plausible numbers.
      *scale = finite ? largest / 127.0f : NAN;
      const float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
      for (int32_t c = 0; c < padded; ++c) {
        const float v = c < d && inverse <= 3.0e38f ? x[c] * inverse : 0.0f;
        area[index(c)] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyintf(v)));
      }
      return;
    }
  }
}

}  // namespace

void RmsNormRow(const float* x, int32_t dim, const float* weight, float eps, float* out, bool add) {
  float lanes[16] = {};
  int32_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    for (int32_t j = 0; j < 16; ++j) lanes[j] += x[i + j] * x[i + j];
  }
  for (int32_t j = 0; i + j < dim; ++j) lanes[j] += x[i + j] * x[i + j];
  for (int32_t half = 8; half > 0; half /= 2) {
    for (int32_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  const float inverse = 1.0f / std::sqrt(lanes[0] / static_cast<float>(dim) + eps);
  if (add) {
    for (int32_t j = 0; j < dim; ++j) out[j] += x[j] * inverse * weight[j];
  } else {
    for (int32_t j = 0; j < dim; ++j) out[j] = x[j] * inverse * weight[j];
  }
}

void RopeAppendRow(const RopeAppendArgs& a, int32_t slice, int32_t row) {
  const KvLayout& l = *a.kv->layout;
  const int32_t d = a.head_dim;
  const float* cos = a.cos + static_cast<size_t>(row) * (a.rope_dims / 2);
  const float* sin = a.sin + static_cast<size_t>(row) * (a.rope_dims / 2);
  if (a.q != nullptr) {
    for (int32_t h = 0; h < a.heads; ++h) {
      float* q = a.q + row * a.q_stride + int64_t{h} * d;
      if (a.q_norm != nullptr) RmsNormRow(q, d, a.q_norm, a.norm_eps, q, false);
      Rotate(q, a.rope_dims, cos, sin, a.neox);
      for (int32_t c = 0; c < d; ++c) q[c] *= a.q_scale;
    }
  }
  const TableView& table = a.batch->table(l.group_of(a.layer), slice);
  const int32_t position = a.batch->positions[row];
  const int32_t index = position / l.block_tokens - table.first_block;
  CHECK(index >= 0 && index < table.count);
  uint8_t* block = a.kv->block(table.blocks[index]);
  const int32_t token = position % l.block_tokens;
  for (int32_t h = 0; h < a.kv_heads; ++h) {
    float* k = a.k + row * a.kv_stride + int64_t{h} * d;
    if (a.k_norm != nullptr) RmsNormRow(k, d, a.k_norm, a.norm_eps, k, false);
    Rotate(k, a.rope_dims, cos, sin, a.neox);
    float* k_scale = nullptr;
    float* v_scale = nullptr;
    if (l.dtype == KvDType::kInt8) {
      k_scale = reinterpret_cast<float*>(block + l.KScaleOffset(a.layer, h)) + token;
      v_scale = reinterpret_cast<float*>(block + l.VScaleOffset(a.layer, h)) + token;
    }
    StoreVector(l, k, block + l.KOffset(a.layer, h), k_scale,
                [&](int32_t c) { return l.KIndex(token, c); });
    StoreVector(l, a.v + row * a.kv_stride + int64_t{h} * d, block + l.VOffset(a.layer, h), v_scale,
                [&](int32_t c) { return l.VIndex(token, c); });
  }
}

}  // namespace kvasir
