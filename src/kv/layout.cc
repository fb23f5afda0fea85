#include "kv/layout.h"

#include <algorithm>

#include "base/checked.h"

namespace kvasir {
namespace {

/// The largest number of layers a block may take so that splitting the groups into such blocks
/// leaves at most 3% of the layer places unused.
int32_t ChooseLayersPerBlock(const std::vector<KvGroup>& classes, int32_t layers) {
  size_t largest = 0;
  for (const KvGroup& c : classes) largest = std::max(largest, c.layers.size());
  for (size_t per_block = largest; per_block > 1; --per_block) {
    size_t places = 0;
    for (const KvGroup& c : classes) places += RoundUp(c.layers.size(), per_block);
    if ((places - layers) * 100 <= static_cast<size_t>(layers) * 3) {
      return static_cast<int32_t>(per_block);
    }
  }
  return 1;
}

}  // namespace

std::string_view NameOf(KvDType dtype) {
  switch (dtype) {
    case KvDType::kF32:
      return "f32";
    case KvDType::kF16:
      return "f16";
    case KvDType::kBF16:
      return "bf16";
    case KvDType::kInt8:
      return "int8";
  }
  return "?";
}

Result<KvDType> ParseKvDType(std::string_view text) {
  for (KvDType d : {KvDType::kF32, KvDType::kF16, KvDType::kBF16, KvDType::kInt8}) {
    if (text == NameOf(d)) return d;
  }
  return MakeError(ErrorCode::kInvalid, "KV type '{}' is unknown; use bf16, f16, f32 or int8",
                   text);
}

Result<KvLayout> KvLayout::Create(const KvShape& shape) {
  const auto layers = static_cast<int32_t>(shape.window.size());
  if (layers < 1 || shape.kv_heads < 1 || shape.head_dim < 1) {
    return MakeError(ErrorCode::kInvalid,
                     "KV layout needs layers, kv heads and head_dim above 0, not {}, {}, {}",
                     layers, shape.kv_heads, shape.head_dim);
  }
  if (!IsBlockSize(shape.block_tokens)) {
    return MakeError(ErrorCode::kInvalid, "block of {} tokens: use 16, 32, 64, 128, 256 or 512",
                     shape.block_tokens);
  }

  std::vector<KvGroup> classes;  // layers by window, in order of first appearance
  for (int32_t layer = 0; layer < layers; ++layer) {
    const int32_t window = shape.window[layer];
    auto it = std::find_if(classes.begin(), classes.end(),
                           [window](const KvGroup& c) { return c.window == window; });
    if (it == classes.end()) it = classes.insert(it, KvGroup{.window = window, .layers = {}});
    it->layers.push_back(layer);
  }

  KvLayout l;
  l.layers_per_block = ChooseLayersPerBlock(classes, layers);
  l.kv_heads = shape.kv_heads;
  l.head_dim = shape.head_dim;
  l.head_dim_padded = static_cast<int32_t>(RoundUp(shape.head_dim, 16));
  l.block_tokens = shape.block_tokens;
  l.dtype = shape.dtype;
  l.place_.resize(layers);
  for (const KvGroup& c : classes) {
    for (size_t i = 0; i < c.layers.size(); ++i) {
      const auto index = static_cast<int32_t>(i % l.layers_per_block);
      if (index == 0) l.groups.push_back(KvGroup{.window = c.window, .layers = {}});
      l.groups.back().layers.push_back(c.layers[i]);
      l.place_[c.layers[i]] = {static_cast<int32_t>(l.groups.size()) - 1, index};
    }
  }

  const CheckedSize head = CheckedSize(l.block_tokens) * l.head_dim_padded * l.element_bytes();
  const CheckedSize scale = l.dtype == KvDType::kInt8 ? CheckedSize(l.block_tokens) * 4 : 0;
  const CheckedSize layer = (head + scale) * 2 * l.kv_heads;
  const CheckedSize block = (layer * l.layers_per_block).RoundUp(64);
  if (!block.AtMost(uint64_t{1} << 40)) {
    return MakeError(ErrorCode::kInvalid,
                     "KV block of {} tokens, {} heads of {} and {} layers is above 1 TiB",
                     l.block_tokens, l.kv_heads, l.head_dim, l.layers_per_block);
  }
  l.head_bytes = *head.Get();
  l.scale_bytes = *scale.Get();
  l.layer_bytes = *layer.Get();
  l.block_bytes = *block.Get();
  return l;
}

}  // namespace kvasir
