#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/block_pool.h"
#include "kv/reuse_model.h"

namespace kvasir {

/// Order in which cached blocks that nobody uses are given up.
enum class EvictionPolicy {
  kLru,    ///< least recently used leaf first
  kWorth,  ///< the leaf that is the least worth keeping first, as learned (ReuseModel)
};

/// Block-sized piece of a cached prefix, a node of the index. Owned by the index; users keep plain
/// pointers while they are counted in `users`.
struct PrefixNode {
  /// Children by their tokens; the keys are spans of the children's own tokens.
  struct TokensLess {
    bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
  };
  using Children = std::map<std::span<const int32_t>, std::unique_ptr<PrefixNode>, TokensLess>;

  uint64_t id = 0;
  uint64_t tenant = 0;  ///< who had it computed first: others are not told its tokens
  PrefixNode* parent = nullptr;
  std::vector<int32_t> tokens;   ///< of this block; fewer than a block: the end of a sequence
  std::vector<BlockRef> blocks;  ///< by group; empty: not held (it fell out of a window)
  std::vector<bool> fell_out;    ///< by group: PrefixIndex::FellOut, and not looked at since
  /// By group: prompts went different ways within a window after it. A third will want it too.
  std::vector<bool> before_branch;
  Children children;
  int32_t depth = 0;       ///< blocks before this one
  int32_t users = 0;       ///< sequences whose path goes through it; none: may be evicted
  bool ready = false;      ///< the K and V are there. Else announced: someone is to compute them
  uint64_t writer = 0;     ///< not ready: the sequence that will; 0: nobody any more
  uint64_t last_used = 0;  ///< admission of the last user (PrefixIndex::Tick)
  uint32_t hits = 0;
  uint64_t path_hash = 0;      ///< of all tokens up to here; for diagnosis only
  int32_t group = 0;           ///< of ReuseModel; while it is a candidate for eviction
  bool child_evicted = false;  ///< what followed it may have been known once
};

/// Why a cached prefix ended where it did.
enum class MissReason {
  kNone,       ///< all that could be cached was
  kNeverSeen,  ///< nothing followed this prefix before
  kDiverged,   ///< what followed had another token
  kEvicted,    ///< it was there, and was given up
  kWindow,     ///< the tokens are known, but windowed layers' K and V fell out of their window
};

/// What of a prompt is in the cache.
struct PrefixMatch {
  std::vector<PrefixNode*> nodes;  ///< whole blocks, ready
  PrefixNode* partial = nullptr;   ///< a block whose first `partial_tokens` tokens match: copied
  int32_t partial_tokens = 0;
  int32_t tokens = 0;            ///< found in all
  int32_t in_flight_tokens = 0;  ///< beyond: being computed for another sequence right now
  MissReason reason = MissReason::kNone;
  int32_t diverged_had = -1, diverged_got = -1;  ///< kDiverged: the tokens at position `tokens`
  uint64_t diverged_tenant = 0;                  ///< kDiverged: whose token was there
  uint64_t evicted_step = 0, evicted_for = 0;    ///< kEvicted: when, and for which tenant's need
  uint64_t last_used = 0;      ///< admission that used the last of `nodes` before; 0: none
  bool child_evicted = false;  ///< more may have been known
};

/// The index from token prefixes to blocks: a tree of blocks' tokens for each salt. Finding
/// compares tokens; there is no hash to trust. Holds one reference to every block it knows.
class PrefixIndex {
 public:
  PrefixIndex(int32_t block_tokens, std::vector<int32_t> windows, EvictionPolicy policy);
  ~PrefixIndex();

  /// Looks for the first `limit` tokens. Changes nothing.
  PrefixMatch Match(uint64_t salt, std::span<const int32_t> tokens, int32_t limit) const;

  /// Time goes on by one admitted sequence: what recency is counted in. Returns its number.
  uint64_t Tick() { return reuse_.Tick(); }
  /// The sequence that is admitted now found `match` and goes `path`, its prompt's whole blocks.
  void Learn(const PrefixMatch& match, std::span<PrefixNode* const> path, int32_t prompt_tokens);
  /// The sequence of an admission ends, with so many tokens.
  void Ended(uint64_t admission, int32_t tokens) { reuse_.Ended(admission, tokens); }
  /// A user now goes through the nodes of a match.
  void Use(std::span<PrefixNode* const> nodes);
  /// Another user goes the same way (a fork): no hit, since nothing was found.
  void Join(std::span<PrefixNode* const> nodes);
  /// The child of `parent` (nullptr: the root of `salt`) with these tokens, made if it is not
  /// there, and used by the caller, who was admitted at `admission`.
  PrefixNode* FindOrAdd(uint64_t salt, PrefixNode* parent, std::span<const int32_t> tokens,
                        uint64_t tenant, uint64_t admission);
  /// The K and V of a node are computed: the index shares the blocks.
  void Publish(PrefixNode* node, std::vector<BlockRef> blocks);
  /// A user leaves; a node that is not ready and has no users goes away.
  void Leave(PrefixNode* node);
  /// Removes a leaf that nobody uses, whether ready or not.
  void Remove(PrefixNode* node);
  /// A user of `node` needs its block of a windowed group no more: whoever lets go of one says so,
  /// since only the last one's word lets it be evicted while the node is used.
  void FellOut(PrefixNode* node, int32_t group);

  /// Gives up blocks until `wanted` more are free in the pool, or nothing is left to give up.
  /// `step` and `tenant` are kept for the question why something is gone.
  void Evict(BlockPool& pool, int64_t wanted, uint64_t step, uint64_t tenant);
  /// Gives up all that nobody uses.
  void Clear(BlockPool& pool);

  /// Calls fn(node) for all nodes, in no particular order.
  template <typename F>
  void Visit(F fn) const {
    for (const auto& [id, node] : by_id_) fn(*node);
  }

  /// Blocks that only unused nodes hold: what Evict can free at least.
  int64_t idle_blocks() const { return idle_blocks_; }
  int64_t nodes() const { return static_cast<int64_t>(by_id_.size()); }
  int64_t evicted_blocks() const { return evicted_blocks_; }
  /// Of these, windowed layers' blocks behind their window; the others went with their texts' ends.
  int64_t evicted_behind_window() const { return evicted_behind_window_; }
  /// Given up by Clear, for nobody's need; not among the evicted ones.
  int64_t dropped_blocks() const { return dropped_blocks_; }
  /// Token slots of held blocks that hold no token: ends of sequences that do not fill a block.
  int64_t unfilled_slots() const { return unfilled_slots_; }
  /// What the index itself takes on the heap, about: nodes, their tokens, maps, what was evicted.
  uint64_t bytes() const;

  /// CHECKs counts and links against a walk over the whole tree.
  void CheckInvariants(const BlockPool& pool) const;

 private:
  bool HasWindow(const std::vector<PrefixNode*>& nodes, int32_t end_tokens) const;
  void MarkBranch(PrefixNode* node);
  void GiveUpFallen(const BlockPool& pool, PrefixNode* node, int32_t group);
  void FindPartial(const PrefixNode* at, std::span<const int32_t> rest, PrefixMatch* match) const;
  void Candidate(PrefixNode* node);
  void NotCandidate(PrefixNode* node);
  PrefixNode* FirstToGo();
  void Bury(const PrefixNode& node, uint64_t step, uint64_t tenant);
  int32_t GhostEvery() const;
  int64_t HeldBlocks(const PrefixNode& node) const;
  const PrefixNode* Root(uint64_t salt) const;

  int32_t block_tokens_;
  std::vector<int32_t> windows_;  // by group
  EvictionPolicy policy_;
  std::map<uint64_t, std::unique_ptr<PrefixNode>> roots_;
  std::unordered_map<uint64_t, PrefixNode*> by_id_;
  uint64_t next_id_ = 1;
  ReuseModel reuse_;
  /// By id where they were used at the same time: addresses would make each run another.
  struct UsedBefore {
    using is_transparent = void;
    bool operator()(const PrefixNode* a, const PrefixNode* b) const {
      return a->last_used != b->last_used ? a->last_used < b->last_used : a->id < b->id;
    }
    bool operator()(const PrefixNode* a, uint64_t time) const { return a->last_used < time; }
  };
  std::array<std::set<PrefixNode*, UsedBefore>, ReuseModel::kGroups> candidates_;  // unused leaves
  int rank_ = 0;            // in reuse_.order(), at time `ranked_at_`: no candidate is before it
  uint64_t ranked_at_ = 0;  // admission
  // What fell out, as (node, group), oldest first; and what of it lies before a branch.
  std::deque<std::pair<uint64_t, int32_t>> fell_out_;
  std::set<std::pair<uint64_t, int32_t>> fell_out_before_branch_;
  int64_t Unfilled(const PrefixNode& node) const;
  int64_t idle_blocks_ = 0, evicted_blocks_ = 0, unfilled_slots_ = 0;
  int64_t evicted_behind_window_ = 0, dropped_blocks_ = 0;
  // What was evicted lately, by path: for the reason of a miss. Bounded.
  struct Grave {
    uint64_t step, tenant;
  };
  std::unordered_map<uint64_t, Grave> graves_;
  std::deque<std::pair<uint64_t, uint64_t>> grave_order_;  // path and step, oldest first
  // The same by admission of the last user, for `reuse_`: of one block in a few, so that it reaches
  // further back. Bounded.
  std::unordered_map<uint64_t, uint64_t> ghosts_;
  std::deque<std::pair<uint64_t, uint64_t>> ghost_order_;
};

}  // namespace kvasir
