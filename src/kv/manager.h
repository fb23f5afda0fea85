#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/block_table.h"
#include "kv/layout.h"
#include "kv/prefix_index.h"

namespace kvasir {

/// What one sequence holds of the cache: a block table for each group, and how many of its tokens
/// have their K and V there.
struct SequenceKv {
  std::vector<BlockTable> tables;  ///< by group
  int32_t computed = 0;
  // Its way through the prefix index: the nodes of its first blocks, in order. Empty for sequences
  // that share nothing.
  uint64_t id = 0, salt = 0, tenant = 0;
  std::vector<PrefixNode*> path;
  uint64_t admission = 0;  ///< PrefixIndex::Tick
  /// Blocks to copy before its next slice is computed, and the node that they are copied from.
  std::vector<BlockCopy> copies;
  PrefixNode* copied_from = nullptr;
  std::vector<BlockRef> copied_blocks;  ///< keep what is copied until it was
};

struct KvManagerOptions {
  EvictionPolicy eviction = EvictionPolicy::kWorth;
  bool share_prefixes = true;   ///< off: paging alone (a baseline of the simulator)
  bool share_in_flight = true;  ///< off: what is being computed is not waited for
};

/// The bookkeeping of the KV cache: one pool, no slots. Who holds which block, which blocks hold
/// which prefix, and who must give up blocks. Moves no bytes.
class KvManager {
 public:
  KvManager(KvLayout layout, int32_t blocks, KvManagerOptions options = {});

  const KvLayout& layout() const { return layout_; }
  const BlockPool& pool() const { return pool_; }
  const PrefixIndex& index() const { return index_; }

  SequenceKv NewSequence() const;

  /// What of a prompt's first `limit` tokens is cached. The last token is always left to compute:
  /// its logits are wanted.
  PrefixMatch Match(uint64_t salt, std::span<const int32_t> prompt,
                    int32_t limit = INT32_MAX) const;
  /// Gives an empty sequence what `match` found, and announces the whole blocks of its prompt that
  /// it will compute itself. False, and nothing changed, when there is no room for the copy of a
  /// partial block. `step` is kept with what is evicted for it.
  [[nodiscard]] bool Adopt(SequenceKv& sequence, const PrefixMatch& match,
                           std::span<const int32_t> prompt, uint64_t step);

  /// Calls fn(node, group) for each block that Adopt would share.
  template <typename F>
  void VisitShared(const PrefixMatch& match, F fn) const {
    for (size_t g = 0; g < layout_.groups.size(); ++g) {
      const int32_t first = FirstNeeded(layout_.groups[g], match.tokens) / layout_.block_tokens;
      for (auto b = static_cast<size_t>(first); b < match.nodes.size(); ++b) fn(*match.nodes[b], g);
    }
  }

  /// A second sequence with the same first `computed` tokens. It shares all blocks; whoever writes
  /// next into one that is not full copies it first (Grow sees to that).
  SequenceKv Fork(const SequenceKv& parent, uint64_t id);

  /// The copies of the sequence were made.
  void CopiesDone(SequenceKv& sequence);

  /// Gives the sequence slots of its own for positions [computed, tokens) in every group, at the
  /// cost of cached blocks that nobody uses. A shared block that is not full is copied (copy on
  /// write): the copy must be made in the next step. False, and nothing changed, when the pool has
  /// too few.
  [[nodiscard]] bool Grow(SequenceKv& sequence, int32_t tokens, uint64_t step = 0);
  /// Blocks that could be had now.
  int64_t available() const { return pool_.free() + index_.idle_blocks(); }
  /// Blocks that Grow to `tokens` would take.
  int64_t BlocksToGrow(const SequenceKv& sequence, int32_t tokens) const;

  /// Counts when sequences took up blocks of the index, or gave blocks back. While it is the same,
  /// what any of them hold, each block counted once, became more by what Grow took and nothing else
  /// (a fork holds what its parent holds).
  uint64_t changes() const { return changes_; }

  /// True if a block would be free, or only cached, without this sequence.
  bool HoldsAlone(const SequenceKv& sequence) const;

  /// The K and V of `tokens`[0, computed) are now in the cache: shares whole blocks with the index.
  /// Only after they were computed.
  void Publish(SequenceKv& sequence, std::span<const int32_t> tokens, int32_t computed);
  /// Returns blocks that no token from position `tokens` on will attend to, and counts positions
  /// below it as computed.
  void Advance(SequenceKv& sequence, int32_t tokens);
  /// The sequence ends or is preempted. With `keep` what it computed stays, to the token, until its
  /// room is needed: all, or the blocks that its first `most` tokens reach into. What else it alone
  /// published goes too.
  void Release(SequenceKv& sequence, std::span<const int32_t> tokens, bool keep,
               int32_t most = INT32_MAX);
  /// Gives up all cached blocks that nobody uses.
  void DropCache() { index_.Clear(pool_); }

  /// True if the sequence still holds all that tokens from position `tokens` on attend to.
  bool CanTruncate(const SequenceKv& sequence, int32_t tokens) const;
  /// Forgets all positions from `tokens` on, of a sequence that shares nothing. CHECKs CanTruncate.
  void Truncate(SequenceKv& sequence, int32_t tokens);

  /// The most blocks that a sequence of `tokens` tokens holds at any time, when it is computed in
  /// slices of at most `max_slice`.
  int64_t BlocksFor(int32_t tokens, int32_t max_slice) const;

  void CheckInvariants() const;

 private:
  /// The first position that a token at `position` still attends to, in a group.
  int32_t FirstNeeded(const KvGroup& group, int32_t position) const;
  void LetGo(const SequenceKv& sequence, size_t group, int32_t begin, int32_t end,
             int32_t users = 1);
  std::vector<BlockRef> ShareBlock(const SequenceKv& sequence, int32_t block) const;
  /// True if the block that the next token goes into has tokens already, and another holder.
  bool MustCopy(const SequenceKv& sequence, const BlockTable& table) const;

  KvLayout layout_;
  KvManagerOptions options_;
  BlockPool pool_;
  PrefixIndex index_;  // after pool_: holds references
  uint64_t changes_ = 0;
};

}  // namespace kvasir
