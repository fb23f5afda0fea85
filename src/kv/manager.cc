#include "kv/manager.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"

namespace kvasir {

KvManager::KvManager(KvLayout layout, int32_t blocks) : layout_(std::move(layout)), pool_(blocks) {}

SequenceKv KvManager::NewSequence() const {
  SequenceKv s;
  s.tables.resize(layout_.groups.size());
  return s;
}

bool KvManager::Grow(SequenceKv& sequence, int32_t tokens) {
  int64_t wanted = 0;
  for (const BlockTable& table : sequence.tables) {
    const auto end = static_cast<int64_t>(DivUp(tokens, layout_.block_tokens));
    wanted += std::max<int64_t>(0, end - table.first_block() - table.size());
  }
  if (wanted > pool_.free()) return false;
  for (BlockTable& table : sequence.tables) {
    CHECK(table.Grow(pool_, layout_.block_tokens, tokens));
  }
  return true;
}

int32_t KvManager::FirstNeeded(const KvGroup& group, int32_t position) const {
  return group.window == 0 ? 0 : std::max(0, position - group.window + 1);
}

void KvManager::Advance(SequenceKv& sequence, int32_t tokens) {
  CHECK_GE(tokens, sequence.computed);
  sequence.computed = tokens;
  for (size_t g = 0; g < layout_.groups.size(); ++g) {
    const int32_t needed = FirstNeeded(layout_.groups[g], tokens);
    // One block more than needed stays, so that a chat whose last tokens change can go back.
    sequence.tables[g].DropBefore(layout_.block_tokens, std::max(0, needed - layout_.block_tokens));
  }
}

bool KvManager::CanTruncate(const SequenceKv& sequence, int32_t tokens) const {
  if (tokens > sequence.computed) return false;
  for (size_t g = 0; g < layout_.groups.size(); ++g) {
    const int32_t needed = FirstNeeded(layout_.groups[g], tokens);
    if (sequence.tables[g].first_block() > needed / layout_.block_tokens) return false;
  }
  return true;
}

void KvManager::Truncate(SequenceKv& sequence, int32_t tokens) {
  CHECK(CanTruncate(sequence, tokens));
  sequence.computed = tokens;
  for (BlockTable& table : sequence.tables) table.Truncate(layout_.block_tokens, tokens);
}

int64_t KvManager::BlocksFor(int32_t tokens, int32_t max_slice) const {
  int64_t blocks = 0;
  for (const KvGroup& group : layout_.groups) {
    // A window spans its tokens, the slice being computed, the block kept back by Advance, and a
    // part of a block at each end.
    const int64_t span = group.window == 0
                             ? tokens
                             : std::min<int64_t>(tokens, int64_t{group.window} + max_slice +
                                                             2 * layout_.block_tokens);
    blocks += static_cast<int64_t>(DivUp(span, layout_.block_tokens)) + (span < tokens ? 1 : 0);
  }
  return blocks;
}

}  // namespace kvasir
