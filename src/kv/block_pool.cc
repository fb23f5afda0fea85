#include "kv/block_pool.h"

#include "base/check.h"

namespace kvasir {

BlockRef& BlockRef::operator=(BlockRef&& other) noexcept {
  if (this != &other) {
    Reset();
    pool_ = other.pool_;
    id_ = other.id_;
    other.pool_ = nullptr;
  }
  return *this;
}

BlockRef BlockRef::Share() const {
  CHECK(pool_ != nullptr);
  ++pool_->refs_[id_];
  return BlockRef(pool_, id_);
}

void BlockRef::Reset() {
  if (pool_ != nullptr) pool_->Decrement(id_);
  pool_ = nullptr;
}

BlockPool::BlockPool(int32_t blocks) : refs_(blocks, 0) {
  free_.reserve(blocks);
  for (BlockId id = blocks - 1; id >= 0; --id) free_.push_back(id);
}

BlockPool::~BlockPool() { CHECK_EQ(free(), total()); }

BlockRef BlockPool::Allocate() {
  if (free_.empty()) return {};
  const BlockId id = free_.back();
  free_.pop_back();
  CHECK_EQ(refs_[id], 0);
  refs_[id] = 1;
  return BlockRef(this, id);
}

void BlockPool::Decrement(BlockId id) {
  CHECK_GT(refs_[id], 0);
  if (--refs_[id] == 0) free_.push_back(id);
}

void BlockPool::CheckInvariants() const {
  std::vector<bool> is_free(refs_.size(), false);
  for (BlockId id : free_) {
    CHECK(!is_free[id]);
    CHECK_EQ(refs_[id], 0);
    is_free[id] = true;
  }
  for (size_t id = 0; id < refs_.size(); ++id) CHECK_EQ(refs_[id] > 0, !is_free[id]);
}

}  // namespace kvasir
