#include "kv/block_table.h"

#include "base/check.h"
#include "base/checked.h"

namespace kvasir {

bool BlockTable::Grow(BlockPool& pool, int32_t block_tokens, int32_t tokens) {
  const auto end = static_cast<int32_t>(DivUp(tokens, block_tokens));
  const int32_t wanted = end - first_block_ - size();
  if (wanted > pool.free()) return false;
  for (int32_t i = 0; i < wanted; ++i) {
    refs_.push_back(pool.Allocate());
    ids_.push_back(refs_.back().id());
  }
  return true;
}

void BlockTable::Adopt(int32_t first_block, std::vector<BlockRef> blocks) {
  CHECK(refs_.empty());
  first_block_ = first_block;
  refs_ = std::move(blocks);
  for (const BlockRef& ref : refs_) ids_.push_back(ref.id());
}

BlockRef BlockTable::Share(int32_t block) const {
  const int32_t index = block - first_block_;
  if (index < 0) return {};
  CHECK_LT(index, size());
  return refs_[index].Share();
}

void BlockTable::Replace(int32_t block, BlockRef same) {
  const int32_t index = block - first_block_;
  if (index < 0 || !same) return;
  CHECK_LT(index, size());
  ids_[index] = same.id();
  refs_[index] = std::move(same);
}

void BlockTable::Clear() {
  refs_.clear();
  ids_.clear();
  first_block_ = 0;
}

void BlockTable::Truncate(int32_t block_tokens, int32_t tokens) {
  const auto end = static_cast<int32_t>(DivUp(tokens, block_tokens));
  const int32_t keep = end > first_block_ ? end - first_block_ : 0;
  if (keep < size()) {
    refs_.resize(keep);
    ids_.resize(keep);
  }
  if (keep == 0) first_block_ = 0;
}

void BlockTable::DropBefore(int32_t block_tokens, int32_t first_needed) {
  const int32_t drop = first_needed / block_tokens - first_block_;
  if (drop <= 0) return;
  CHECK_LE(drop, size());
  refs_.erase(refs_.begin(), refs_.begin() + drop);
  ids_.erase(ids_.begin(), ids_.begin() + drop);
  first_block_ += drop;
}

}  // namespace kvasir
