#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_pool.h"
#include "kv/block_table.h"
#include "kv/layout.h"

namespace kvasir {

/// What one sequence holds of the cache: a block table for each group, and how many of its tokens
/// have their K and V there.
struct SequenceKv {
  std::vector<BlockTable> tables;  ///< by group
  int32_t computed = 0;
};

/// The bookkeeping of the KV cache: who holds which block. Moves no bytes.
class KvManager {
 public:
  KvManager(KvLayout layout, int32_t blocks);

  const KvLayout& layout() const { return layout_; }
  const BlockPool& pool() const { return pool_; }

  SequenceKv NewSequence() const;

  /// Gives the sequence slots for positions [computed, tokens) in every group. False, and nothing
  /// changed, when the pool has too few blocks.
  [[nodiscard]] bool Grow(SequenceKv& sequence, int32_t tokens);

  /// The K and V of positions below `tokens` are now in the cache: returns blocks that no later
  /// token will attend to.
  void Advance(SequenceKv& sequence, int32_t tokens);

  /// True if the sequence still holds all that tokens from position `tokens` on attend to.
  bool CanTruncate(const SequenceKv& sequence, int32_t tokens) const;
  /// Forgets all positions from `tokens` on. CHECKs CanTruncate.
  void Truncate(SequenceKv& sequence, int32_t tokens);

  /// The most blocks that a sequence of `tokens` tokens holds at any time, when it is computed in
  /// slices of at most `max_slice`.
  int64_t BlocksFor(int32_t tokens, int32_t max_slice) const;

  void CheckInvariants() const { pool_.CheckInvariants(); }

 private:
  /// The first position that a token at `position` still attends to, in a group.
  int32_t FirstNeeded(const KvGroup& group, int32_t position) const;
  KvLayout layout_;
  BlockPool pool_;
};

}  // namespace kvasir
