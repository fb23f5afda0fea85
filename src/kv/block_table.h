#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_pool.h"

namespace kvasir {

/// The blocks of one sequence in one group, in order of positions. Owns its references.
class BlockTable {
 public:
  /// Adds blocks until positions [0, tokens) have slots (but those already dropped). False when
  /// the pool has too few; what was there before stays as it was.
  [[nodiscard]] bool Grow(BlockPool& pool, int32_t block_tokens, int32_t tokens);
  /// Starts with shared blocks: those of positions from first_block * block_tokens on. The table
  /// must be empty.
  void Adopt(int32_t first_block, std::vector<BlockRef> blocks);
  /// Another reference to the block of index `block` (counted from position 0); empty if dropped.
  BlockRef Share(int32_t block) const;
  /// Puts a block with the same content in place of the one at index `block`, if that is held.
  void Replace(int32_t block, BlockRef same);
  BlockId id(int32_t block) const { return ids_[block - first_block_]; }
  void Clear();
  /// Gives back blocks that hold no position below `tokens`.
  void Truncate(int32_t block_tokens, int32_t tokens);
  /// Gives back blocks that hold only positions below `first_needed`.
  void DropBefore(int32_t block_tokens, int32_t first_needed);

  TableView view() const { return {ids_.data(), first_block_, static_cast<int32_t>(ids_.size())}; }
  int32_t first_block() const { return first_block_; }
  int32_t size() const { return static_cast<int32_t>(refs_.size()); }

 private:
  int32_t first_block_ = 0;
  std::vector<BlockRef> refs_;
  std::vector<BlockId> ids_;  // of refs_, contiguous for the executor
};

}  // namespace kvasir
