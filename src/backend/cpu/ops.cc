#include "backend/cpu/ops.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

/// Rotates one head in place (Su et al. 2021): each pair of channels by its angle. A pair is i and
/// i + kPartner (or i + dims / 2 where kPartner is 0), the next one kStep further.
template <int kStep, int kPartner>
void RotatePairs(float* __restrict x, int32_t pairs, const float* __restrict cos,
                 const float* __restrict sin) {
  const int32_t partner = kPartner == 0 ? pairs : kPartner;
  for (int32_t i = 0; i < pairs; ++i) {
    const float a = x[i * kStep], b = x[i * kStep + partner];
    x[i * kStep] = a * cos[i] - b * sin[i];
    x[i * kStep + partner] = a * sin[i] + b * cos[i];
  }
}

void Rotate(float* x, int32_t dims, const float* cos, const float* sin, bool neox) {
  if (neox) {
    RotatePairs<1, 0>(x, dims / 2, cos, sin);
  } else {
    RotatePairs<2, 1>(x, dims / 2, cos, sin);
  }
}

/// Element index of a channel, from that of channel 0, as KvLayout::KIndex and VIndex have it. With
/// the number of elements in a word known at compile time nothing is divided: of a prompt of 512
/// tokens this operation took 18-19 ms instead of 22-23 (1B shape, Xeon, 2 cores, 2026-11-25).
template <int kPack>
struct KeyIndex {
  size_t first;
  size_t operator()(int32_t c) const {
    const auto channel = static_cast<uint32_t>(c);
    return first + channel / kPack * 16 * kPack + channel % kPack;
  }
};
template <int kPack>
struct ValueIndex {
  size_t first, group;  // elements of 16 channels
  size_t operator()(int32_t c) const {
    const auto channel = static_cast<uint32_t>(c);
    return first + channel / 16 * group + channel % 16 * kPack;
  }
};

template <typename Index, typename Element, typename F>
void StoreElements(const KvLayout& l, const float* x, uint8_t* area, const Index& index,
                   const F& convert, Element zero) {
  for (int32_t c = 0; c < l.head_dim; ++c) {
    const Element e = convert(x[c]);
    std::memcpy(area + index(c) * sizeof(e), &e, sizeof(e));
  }
  for (int32_t c = l.head_dim; c < l.head_dim_padded; ++c)
    std::memcpy(area + index(c) * sizeof(zero), &zero, sizeof(zero));
}

template <typename Index>
void StoreInt8(const KvLayout& l, const float* x, uint8_t* area, float* scale, const Index& index) {
  float largest = 0;
  bool finite = true;
  for (int32_t c = 0; c < l.head_dim; ++c) {
    finite = finite && std::isfinite(x[c]);
    largest = std::fabs(x[c]) > largest ? std::fabs(x[c]) : largest;
  }
  // A vector that is not finite must not turn into plausible numbers.
  *scale = finite ? largest / 127.0f : NAN;
  const float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
  const bool usable = inverse <= 3.0e38f;
  StoreElements(
      l, x, area, index,
      [&](float v) { return static_cast<int8_t>(std::nearbyintf(usable ? v * inverse : 0.0f)); },
      int8_t{0});
}

/// One head's vector into its token slot; `index` makes the index of a channel for a pack.
template <typename MakeIndex>
void StoreVector(const KvLayout& l, const float* x, uint8_t* area, float* scale,
                 const MakeIndex& index) {
  switch (l.dtype) {
    case KvDType::kF32:
      return StoreElements(
          l, x, area, index(std::integral_constant<int, 1>()), [](float v) { return v; }, 0.0f);
    case KvDType::kF16:
      return StoreElements(l, x, area, index(std::integral_constant<int, 1>()), F32ToF16,
                           uint16_t{0});
    case KvDType::kBF16:
      return StoreElements(l, x, area, index(std::integral_constant<int, 2>()), F32ToBf16,
                           uint16_t{0});
    case KvDType::kInt8:
      return StoreInt8(l, x, area, scale, index(std::integral_constant<int, 4>()));
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
                [&](auto pack) { return KeyIndex<decltype(pack)::value>{l.KIndex(token, 0)}; });
    StoreVector(l, a.v + row * a.kv_stride + int64_t{h} * d, block + l.VOffset(a.layer, h), v_scale,
                [&](auto pack) {
                  return ValueIndex<decltype(pack)::value>{
                      l.VIndex(token, 0), static_cast<size_t>(l.block_tokens) * 16};
                });
  }
}

}  // namespace kvasir
