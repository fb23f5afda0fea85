#pragma once

#include <cstdint>
#include <vector>

#include "kv/layout.h"

namespace kvasir {

class BlockPool;

/// One reference to a block. The block goes back to the pool when its last reference is gone; this
/// destructor is the only place that gives one up.
class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(BlockRef&& other) noexcept : pool_(other.pool_), id_(other.id_) {
    other.pool_ = nullptr;
  }
  BlockRef& operator=(BlockRef&& other) noexcept;
  BlockRef(const BlockRef&) = delete;
  BlockRef& operator=(const BlockRef&) = delete;
  ~BlockRef() { Reset(); }

  explicit operator bool() const { return pool_ != nullptr; }
  BlockId id() const { return id_; }
  /// Another reference to the same block.
  BlockRef Share() const;
  void Reset();

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, BlockId id) : pool_(pool), id_(id) {}
  BlockPool* pool_ = nullptr;
  BlockId id_ = -1;
};

/// Who holds which block: reference counts and a list of free blocks, no bytes. O(1) each. Outlives
/// all its BlockRefs.
class BlockPool {
 public:
  explicit BlockPool(int32_t blocks);
  ~BlockPool();  // CHECKs that every reference came back
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  /// A free block with one reference, or an empty one when none is left.
  BlockRef Allocate();

  int32_t total() const { return static_cast<int32_t>(refs_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t refs(BlockId id) const { return refs_[id]; }

  /// CHECKs that free + referenced = total and that no free block is referenced.
  void CheckInvariants() const;

 private:
  friend class BlockRef;
  void Decrement(BlockId id);
  std::vector<int32_t> refs_;
  std::vector<BlockId> free_;  // a stack: the block freed last is the warmest in the caches
};

}  // namespace kvasir
