#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// Index of a block in the pool.
using BlockId = int32_t;

/// Blocks of one sequence in one group: blocks[i] holds the token slots of positions
/// [(first_block + i) * block_tokens, +block_tokens). Blocks before first_block fell out of the
/// window and were returned. A plain view, valid during a step.
struct TableView {
  const BlockId* blocks = nullptr;
  int32_t first_block = 0;
  int32_t count = 0;
};

/// How keys and values are stored.
enum class KvDType { kF32, kF16, kBF16, kInt8 };
std::string_view NameOf(KvDType dtype);
Result<KvDType> ParseKvDType(std::string_view text);  ///< "f32", "f16", "bf16", "int8"

/// Layers that attend to the same window and therefore keep the same tokens. A sequence has one
/// block table for each group.
struct KvGroup {
  int32_t window = 0;  ///< how many last tokens a query attends to, itself included; 0: all
  std::vector<int32_t> layers;  ///< at most KvLayout::layers_per_block
};

/// Whether a block may have so many tokens: a multiple of 16, at most 512 and a divisor of it.
constexpr bool IsBlockSize(int64_t tokens) {
  return tokens >= 16 && tokens <= 512 && 512 % tokens == 0;
}

/// What a layout is made from.
struct KvShape {
  std::vector<int32_t> window;  ///< per layer
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tokens = 32;  ///< see IsBlockSize
  KvDType dtype = KvDType::kBF16;
};

/// Where the K and V of a token lie: the only place that computes a KV address.
///
/// A block holds `block_tokens` token slots of one group: for each of its layers the keys of all
/// heads, then the values, then (int8 only) the f32 scales of keys and of values, one for each head
/// and token. All blocks have the same size, so that one pool serves all groups; a group with more
/// layers than a block takes is split in several of the same window, and one with fewer leaves
/// room unused (Create chooses the block so that at most 3% is).
///
/// Within one (block, layer, head), elements are ordered as operands of matrix instructions
/// (mission.md's and kernels.md's plan: AMX B tiles, vdpbf16ps, vpdpbusd). With p = pack() elements
/// to a 32-bit word (f32 1, f16 1, bf16 2, int8 4), d = head_dim_padded (a multiple of 16):
///   K: [token/16][channel/p][token%16][channel%p]
///   V: [channel/16][token/p][channel%16][token%p]
/// so that 16 consecutive words are 16 tokens of a key channel, or 16 channels of a value token.
struct KvLayout {
  std::vector<KvGroup> groups;
  int32_t layers_per_block = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t head_dim_padded = 0;  ///< padding channels are zero
  int32_t block_tokens = 0;
  KvDType dtype = KvDType::kBF16;

  size_t head_bytes = 0;   ///< K (or V) of one head of one layer in one block
  size_t scale_bytes = 0;  ///< int8: scales of one head's K (or V); else 0
  size_t layer_bytes = 0;  ///< K, V and scales of all heads of one layer in one block
  size_t block_bytes = 0;  ///< a multiple of 64

  static Result<KvLayout> Create(const KvShape& shape);

  int32_t layers() const { return static_cast<int32_t>(place_.size()); }
  int32_t group_of(int32_t layer) const { return place_[layer].group; }
  int32_t window_of(int32_t layer) const { return groups[group_of(layer)].window; }

  int32_t element_bytes() const {
    return dtype == KvDType::kF32 ? 4 : dtype == KvDType::kInt8 ? 1 : 2;
  }
  int32_t pack() const { return dtype == KvDType::kBF16 ? 2 : dtype == KvDType::kInt8 ? 4 : 1; }

  /// Byte offsets within a block.
  size_t KOffset(int32_t layer, int32_t head) const {
    return LayerOffset(layer) + static_cast<size_t>(head) * head_bytes;
  }
  size_t VOffset(int32_t layer, int32_t head) const {
    return LayerOffset(layer) + static_cast<size_t>(kv_heads + head) * head_bytes;
  }
  size_t KScaleOffset(int32_t layer, int32_t head) const {
    return LayerOffset(layer) + 2 * static_cast<size_t>(kv_heads) * head_bytes +
           static_cast<size_t>(head) * scale_bytes;
  }
  size_t VScaleOffset(int32_t layer, int32_t head) const {
    return KScaleOffset(layer, kv_heads + head);
  }

  /// Element index of (token slot, channel) within one head's K or V.
  size_t KIndex(int32_t token, int32_t channel) const {
    const int32_t p = pack();
    return static_cast<size_t>((token / 16 * (head_dim_padded / p) + channel / p) * 16 +
                               token % 16) *
               p +
           channel % p;
  }
  size_t VIndex(int32_t token, int32_t channel) const {
    const int32_t p = pack();
    return static_cast<size_t>((channel / 16 * (block_tokens / p) + token / p) * 16 +
                               channel % 16) *
               p +
           token % p;
  }

  /// Bytes that one more token needs in all layers, padding included.
  double bytes_per_token() const {
    return static_cast<double>(block_bytes) * static_cast<double>(groups.size()) / block_tokens;
  }

 private:
  struct Place {
    int32_t group, index;
  };
  size_t LayerOffset(int32_t layer) const {
    return static_cast<size_t>(place_[layer].index) * layer_bytes;
  }
  std::vector<Place> place_;  // by layer
};

/// A block whose bytes are copied before a step computes: the beginning of a cached block that a
/// sequence continues in another way.
struct BlockCopy {
  BlockId from = -1, to = -1;
};

/// The bytes of a pool of blocks: plain view, owned by whoever allocated it.
struct KvStorage {
  const KvLayout* layout = nullptr;
  uint8_t* base = nullptr;  ///< 64-byte aligned; block b at base + b * layout->block_bytes
  int32_t blocks = 0;

  uint8_t* block(BlockId id) const { return base + static_cast<size_t>(id) * layout->block_bytes; }
};

}  // namespace kvasir
