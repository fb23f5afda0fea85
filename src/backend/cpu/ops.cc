#include "backend/cpu/ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

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

/// bf16: `kAtOnce` channels that lie next to one another are stored together.
template <int kAtOnce, typename Index>
void StoreBf16(const KvLayout& l, const float* x, uint8_t* area, const Index& index,
               const VectorKernels& kernels) {
  constexpr int32_t kChunk = 64;
  for (int32_t first = 0; first < l.head_dim_padded; first += kChunk) {
    uint16_t bits[kChunk] = {};
    kernels.to_bf16(x + first, std::clamp(l.head_dim - first, 0, kChunk), bits);
    const int32_t n = std::min(l.head_dim_padded - first, kChunk);
    for (int32_t c = 0; c < n; c += kAtOnce)
      std::memcpy(area + index(first + c) * sizeof(bits[0]), bits + c, kAtOnce * sizeof(bits[0]));
  }
}

/// True if one of `n` numbers is not finite once it is kept as `dtype`.
bool NotFinite(const float* x, int32_t n, KvDType dtype) {
  // What an f16 or a bf16 is rounded to infinity from.
  const auto least = std::bit_cast<uint32_t>(dtype == KvDType::kF16    ? 65520.0f
                                             : dtype == KvDType::kBF16 ? 0x1.ffp127f
                                                                       : INFINITY);
  uint32_t any = 0;
  for (int32_t i = 0; i < n; ++i)
    any |= (std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu) >= least ? 1 : 0;
  return any != 0;
}

/// One head's vector into its token slot; `index` makes the index of a channel for a pack. Of bf16
/// as many channels as `kAtOnce` lie next to one another.
template <int kAtOnce, typename MakeIndex>
void StoreVector(const KvLayout& l, const float* x, uint8_t* area, float* scale,
                 const VectorKernels& kernels, const MakeIndex& index) {
  switch (l.dtype) {
    case KvDType::kF32:
      return StoreElements(
          l, x, area, index(std::integral_constant<int, 1>()), [](float v) { return v; }, 0.0f);
    case KvDType::kF16:
      return StoreElements(l, x, area, index(std::integral_constant<int, 1>()), F32ToF16,
                           uint16_t{0});
    case KvDType::kBF16:
      return StoreBf16<kAtOnce>(l, x, area, index(std::integral_constant<int, 2>()), kernels);
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

void RopeAppendRow(const RopeAppendArgs& a, int32_t slice, int32_t row,
                   const VectorKernels& kernels) {
  const KvLayout& l = *a.kv->layout;
  const int32_t d = a.head_dim;
  const float* cos = a.cos + static_cast<size_t>(row) * (a.rope_dims / 2);
  const float* sin = a.sin + static_cast<size_t>(row) * (a.rope_dims / 2);
  if (a.q != nullptr) {
    for (int32_t h = 0; h < a.heads; ++h) {
      float* q = a.q + row * a.q_stride + int64_t{h} * d;
      if (a.q_norm != nullptr) RmsNormRow(q, d, a.q_norm, a.norm_eps, q, false);
      kernels.rotate(q, a.rope_dims / 2, cos, sin, a.neox, a.q_scale);
      for (int32_t c = a.rope_dims; c < d; ++c) q[c] *= a.q_scale;
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
    kernels.rotate(k, a.rope_dims / 2, cos, sin, a.neox, 1);
    const float* v = a.v + row * a.kv_stride + int64_t{h} * d;
    if (NotFinite(k, d, l.dtype) || NotFinite(v, d, l.dtype)) a.not_finite[row] = 1;
    float* k_scale = nullptr;
    float* v_scale = nullptr;
    if (l.dtype == KvDType::kInt8) {
      k_scale = reinterpret_cast<float*>(block + l.KScaleOffset(a.layer, h)) + token;
      v_scale = reinterpret_cast<float*>(block + l.VScaleOffset(a.layer, h)) + token;
    }
    StoreVector<2>(l, k, block + l.KOffset(a.layer, h), k_scale, kernels,
                   [&](auto pack) { return KeyIndex<decltype(pack)::value>{l.KIndex(token, 0)}; });
    StoreVector<1>(l, v, block + l.VOffset(a.layer, h), v_scale, kernels, [&](auto pack) {
      return ValueIndex<decltype(pack)::value>{l.VIndex(token, 0),
                                               static_cast<size_t>(l.block_tokens) * 16};
    });
  }
}

}  // namespace kvasir
