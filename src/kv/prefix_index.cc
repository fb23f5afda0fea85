#include "kv/prefix_index.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir {
namespace {

constexpr size_t kMostGraves = 1 << 16;
/// Evicted blocks that are remembered longer, one in so many tokens: what is continued after 16
/// million tokens were evicted is still known to be continued.
constexpr size_t kMostGhosts = 1 << 16;
constexpr int32_t kGhostTokens = 256;
/// Neighbours that are looked at for a partial hit when the nearest are not ready.
constexpr int kNeighbours = 4;

uint64_t HashTokens(uint64_t hash, std::span<const int32_t> tokens) {
  for (const int32_t t : tokens) {
    hash = (hash ^ static_cast<uint32_t>(t)) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 29;
  }
  return hash;
}

int32_t Common(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<int32_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
}

}  // namespace

bool PrefixNode::TokensLess::operator()(std::span<const int32_t> a,
                                        std::span<const int32_t> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

PrefixIndex::PrefixIndex(int32_t block_tokens, std::vector<int32_t> windows, EvictionPolicy policy)
    : block_tokens_(block_tokens), windows_(std::move(windows)), policy_(policy) {}

PrefixIndex::~PrefixIndex() {
  // Children first and one by one: a chain of a long context is too deep for nested destructors.
  while (!by_id_.empty()) {
    PrefixNode* node = by_id_.begin()->second;
    while (!node->children.empty()) node = node->children.begin()->second.get();
    node->users = 0;
    Remove(node);
  }
}

const PrefixNode* PrefixIndex::Root(uint64_t salt) const {
  const auto it = roots_.find(salt);
  return it == roots_.end() ? nullptr : it->second.get();
}

bool PrefixIndex::HasWindow(const std::vector<PrefixNode*>& nodes, int32_t end_tokens) const {
  for (size_t g = 0; g < windows_.size(); ++g) {
    if (windows_[g] == 0) continue;
    const int32_t first = std::max(0, end_tokens - windows_[g] + 1) / block_tokens_;
    for (auto b = static_cast<size_t>(first); b < nodes.size(); ++b) {
      if (!nodes[b]->blocks[g]) return false;
    }
  }
  return true;
}

void PrefixIndex::FindPartial(const PrefixNode* at, std::span<const int32_t> rest,
                              PrefixMatch* match) const {
  // The child with the longest common beginning is next to where `rest` would stand.
  int32_t best_seen = 0;
  const PrefixNode* seen = nullptr;
  const auto look = [&](const PrefixNode& child) {
    const int32_t common = Common(child.tokens, rest);
    if (seen == nullptr || common > best_seen) {
      best_seen = common;
      seen = &child;
    }
    const bool whole = std::all_of(child.blocks.begin(), child.blocks.end(),
                                   [](const BlockRef& b) { return static_cast<bool>(b); });
    if (child.ready && whole && common > match->partial_tokens) {
      match->partial_tokens = common;
      match->partial = const_cast<PrefixNode*>(&child);
    }
  };
  auto after = at->children.lower_bound(rest);
  auto it = after;
  for (int i = 0; i < kNeighbours && it != at->children.end(); ++i, ++it) look(*it->second);
  it = after;
  for (int i = 0; i < kNeighbours && it != at->children.begin(); ++i) look(*(--it)->second);
  if (seen == nullptr ||
      static_cast<size_t>(best_seen) >= std::min(rest.size(), seen->tokens.size()))
    return;
  if (best_seen != match->partial_tokens) return;
  if (match->reason == MissReason::kEvicted) return;  // it had been there, and not this other text
  match->reason = MissReason::kDiverged;
  match->diverged_had = seen->tokens[best_seen];
  match->diverged_tenant = seen->tenant;
  match->diverged_got = rest[best_seen];
}

PrefixMatch PrefixIndex::Match(uint64_t salt, std::span<const int32_t> tokens,
                               int32_t limit) const {
  PrefixMatch m;
  const PrefixNode* at = Root(salt);
  uint64_t hash = salt;
  const auto find = [&](int32_t from) -> const PrefixNode* {
    if (at == nullptr || from + block_tokens_ > limit) return nullptr;
    const auto it = at->children.find(tokens.subspan(from, block_tokens_));
    return it == at->children.end() ? nullptr : it->second.get();
  };
  const PrefixNode* next = nullptr;
  while ((next = find(m.tokens)) != nullptr && next->ready) {
    m.nodes.push_back(const_cast<PrefixNode*>(next));
    at = next;
    m.tokens += block_tokens_;
  }
  if (!m.nodes.empty()) {
    hash = m.nodes.back()->path_hash;
    m.last_used = m.nodes.back()->last_used;
  }
  m.child_evicted = m.nodes.empty() || m.nodes.back()->child_evicted;
  // Windowed layers need their last tokens: go back to where they are all held.
  const auto known = m.nodes.size();
  while (!m.nodes.empty() && !HasWindow(m.nodes, m.tokens)) {
    m.nodes.pop_back();
    m.tokens -= block_tokens_;
  }
  if (m.nodes.size() < known) {
    m.reason = MissReason::kWindow;
    return m;
  }
  for (; next != nullptr && !next->ready && next->writer != 0;
       next = find(m.tokens + m.in_flight_tokens)) {
    m.in_flight_tokens += block_tokens_;
    at = next;
  }
  if (m.in_flight_tokens > 0) return m;
  const std::span<const int32_t> rest =
      tokens.subspan(m.tokens, std::min<size_t>(limit - m.tokens, block_tokens_));
  if (rest.empty()) return m;
  m.reason = MissReason::kNeverSeen;
  if (tokens.size() - m.tokens >= static_cast<size_t>(block_tokens_)) {
    const auto grave = graves_.find(HashTokens(hash, tokens.subspan(m.tokens, block_tokens_)));
    if (grave != graves_.end()) {
      m.reason = MissReason::kEvicted;
      m.evicted_step = grave->second.step;
      m.evicted_for = grave->second.tenant;
    }
  }
  if (at != nullptr) FindPartial(at, rest, &m);
  if (m.partial != nullptr) {
    std::vector<PrefixNode*> with = m.nodes;
    with.push_back(m.partial);
    if (HasWindow(with, m.tokens + m.partial_tokens)) {
      m.tokens += m.partial_tokens;
    } else {
      m.partial = nullptr;
      m.partial_tokens = 0;
      m.reason = MissReason::kWindow;
    }
  }
  if (m.tokens == limit) m.reason = MissReason::kNone;
  return m;
}

int64_t PrefixIndex::HeldBlocks(const PrefixNode& node) const {
  return std::count_if(node.blocks.begin(), node.blocks.end(),
                       [](const BlockRef& b) { return static_cast<bool>(b); });
}

int64_t PrefixIndex::Unfilled(const PrefixNode& node) const {
  return HeldBlocks(node) * (block_tokens_ - static_cast<int64_t>(node.tokens.size()));
}

void PrefixIndex::Candidate(PrefixNode* node) {
  if (node->users != 0 || !node->children.empty() || !node->ready) return;
  NotCandidate(node);  // its group may change
  if (policy_ == EvictionPolicy::kWorth) {
    const auto end = node->depth * block_tokens_ + static_cast<int32_t>(node->tokens.size());
    node->group = reuse_.Group(node->last_used, end);
    rank_ = std::min(rank_, reuse_.Rank(node->group, node->last_used));
  }
  candidates_[node->group].insert(node);
}

void PrefixIndex::NotCandidate(PrefixNode* node) { candidates_[node->group].erase(node); }

int32_t PrefixIndex::GhostEvery() const { return std::max(1, kGhostTokens / block_tokens_); }

void PrefixIndex::Learn(const PrefixMatch& match, std::span<PrefixNode* const> path,
                        int32_t prompt_tokens) {
  uint64_t previous = match.last_used;
  int32_t reached = match.tokens, missed = match.child_evicted ? INT32_MAX : match.tokens;
  const auto every = static_cast<size_t>(GhostEvery());
  for (size_t b = match.nodes.size() / every * every + every - 1; b < path.size(); b += every) {
    const int32_t end = (static_cast<int32_t>(b) + 1) * block_tokens_;
    const auto ghost = ghosts_.find(path[b]->path_hash);
    if (ghost == ghosts_.end()) {
      missed = std::min(missed, end);
      break;
    }
    previous = ghost->second;
    reached = std::max(reached, end);
  }
  reuse_.Admitted(prompt_tokens, previous, reached, std::max(missed, reached));
}

void PrefixIndex::Use(std::span<PrefixNode* const> nodes) {
  for (PrefixNode* node : nodes) {
    NotCandidate(node);
    if (node->users++ == 0) idle_blocks_ -= HeldBlocks(*node);
    node->last_used = reuse_.now();
    ++node->hits;
  }
}

void PrefixIndex::Join(std::span<PrefixNode* const> nodes) {
  for (PrefixNode* node : nodes) {
    CHECK_GT(node->users, 0);  // whoever is joined holds it
    ++node->users;
  }
}

PrefixNode* PrefixIndex::FindOrAdd(uint64_t salt, PrefixNode* parent,
                                   std::span<const int32_t> tokens, uint64_t tenant,
                                   uint64_t admission) {
  if (parent == nullptr) {
    auto& root = roots_[salt];
    if (root == nullptr) {
      root = std::make_unique<PrefixNode>();
      root->path_hash = salt;
      root->depth = -1;
    }
    parent = root.get();
  }
  const auto it = parent->children.find(tokens);
  if (it != parent->children.end()) {
    PrefixNode* node = it->second.get();
    NotCandidate(node);
    if (node->users++ == 0) idle_blocks_ -= HeldBlocks(*node);
    node->last_used = std::max(node->last_used, admission);
    return node;
  }
  NotCandidate(parent);
  // The end of a text that goes on is no branch: nobody else comes from there.
  const auto goes_on = [&](const PrefixNode& end) {
    return static_cast<size_t>(Common(end.tokens, tokens)) == end.tokens.size();
  };
  if (parent->children.size() > 1 ||
      (parent->children.size() == 1 && !goes_on(*parent->children.begin()->second)))
    MarkBranch(parent);
  auto node = std::make_unique<PrefixNode>();
  node->id = next_id_++;
  node->tenant = tenant;
  node->parent = parent;
  node->tokens.assign(tokens.begin(), tokens.end());
  node->blocks.resize(windows_.size());
  node->fell_out.resize(windows_.size());
  node->before_branch.resize(windows_.size());
  node->depth = parent->depth + 1;
  node->users = 1;
  node->last_used = admission;
  node->path_hash = HashTokens(parent->path_hash, tokens);
  PrefixNode* raw = node.get();
  by_id_[raw->id] = raw;
  parent->children.emplace(raw->tokens, std::move(node));
  return raw;
}

void PrefixIndex::Publish(PrefixNode* node, std::vector<BlockRef> blocks) {
  CHECK(!node->ready);
  CHECK_GT(node->users, 0);
  CHECK_EQ(blocks.size(), windows_.size());
  node->blocks = std::move(blocks);
  node->ready = true;
  unfilled_slots_ += Unfilled(*node);
  node->writer = 0;
}

void PrefixIndex::Leave(PrefixNode* node) {
  CHECK_GT(node->users, 0);
  if (--node->users > 0) return;
  idle_blocks_ += HeldBlocks(*node);
  if (!node->ready && node->children.empty()) {
    Remove(node);
  } else {
    Candidate(node);
  }
}

void PrefixIndex::Remove(PrefixNode* node) {
  CHECK_EQ(node->users, 0);
  CHECK(node->children.empty());
  NotCandidate(node);
  idle_blocks_ -= HeldBlocks(*node);
  unfilled_slots_ -= Unfilled(*node);
  for (size_t g = 0; g < windows_.size(); ++g) {
    if (node->before_branch[g] && node->fell_out[g])
      fell_out_before_branch_.erase({node->id, static_cast<int32_t>(g)});
  }
  by_id_.erase(node->id);
  PrefixNode* parent = node->parent;
  const auto it = parent->children.find(node->tokens);
  CHECK(it != parent->children.end() && it->second.get() == node);
  parent->children.erase(it);
  if (parent->parent != nullptr) Candidate(parent);
}

void PrefixIndex::FellOut(PrefixNode* node, int32_t group) {
  if (!node->blocks[group] || node->fell_out[group]) return;
  node->fell_out[group] = true;
  fell_out_.emplace_back(node->id, group);
  // Of nodes that are gone without an eviction.
  if (fell_out_.size() > 2 * by_id_.size() * windows_.size() + 64)
    std::erase_if(fell_out_, [&](const auto& entry) { return !by_id_.contains(entry.first); });
}

/// Prompts that share all up to `node` go on differently: what they need of windowed layers there
/// is worth more than ends that nobody came back to.
void PrefixIndex::MarkBranch(PrefixNode* node) {
  const int32_t end = (node->depth + 1) * block_tokens_;
  for (size_t g = 0; g < windows_.size(); ++g) {
    if (windows_[g] == 0) continue;
    const int32_t first = std::max(0, end - windows_[g] + 1) / block_tokens_;
    for (PrefixNode* at = node; at->parent != nullptr && at->depth >= first; at = at->parent)
      at->before_branch[g] = true;
  }
}

/// Gives up a windowed block that nobody needs, unless somebody does by now.
void PrefixIndex::GiveUpFallen(const BlockPool& pool, PrefixNode* node, int32_t group) {
  node->fell_out[group] = false;
  BlockRef& block = node->blocks[group];
  // An end that nobody uses goes as a whole.
  const bool end = node->users == 0 && node->children.empty();
  if (!block || pool.refs(block.id()) != 1 || end) return;
  if (node->users == 0) --idle_blocks_;
  block.Reset();
  ++evicted_blocks_;
  ++evicted_behind_window_;
}

void PrefixIndex::Evict(BlockPool& pool, int64_t wanted, uint64_t step, uint64_t tenant) {
  // First what only a hit in the middle of a text would need: windowed blocks behind the window.
  while (pool.free() < wanted && !fell_out_.empty()) {
    const auto [id, group] = fell_out_.front();
    fell_out_.pop_front();
    const auto it = by_id_.find(id);
    if (it == by_id_.end()) continue;
    if (it->second->before_branch[group]) {
      fell_out_before_branch_.emplace(id, group);
    } else {
      GiveUpFallen(pool, it->second, group);
    }
  }
  while (pool.free() < wanted) {
    PrefixNode* node = FirstToGo();
    if (node == nullptr) break;
    evicted_blocks_ += HeldBlocks(*node);
    Bury(*node, step, tenant);
    node->parent->child_evicted = true;
    Remove(node);
  }
  while (pool.free() < wanted && !fell_out_before_branch_.empty()) {
    const auto [id, group] = *fell_out_before_branch_.begin();
    fell_out_before_branch_.erase(fell_out_before_branch_.begin());
    GiveUpFallen(pool, by_id_.at(id), group);
  }
}

PrefixNode* PrefixIndex::FirstToGo() {
  if (policy_ == EvictionPolicy::kLru) {
    return candidates_[0].empty() ? nullptr : *candidates_[0].begin();
  }
  const uint64_t now = reuse_.now();
  if (ranked_at_ != now) rank_ = 0;
  ranked_at_ = now;
  for (const auto& order = reuse_.order(); rank_ < static_cast<int>(order.size()); ++rank_) {
    const ReuseModel::Cell& cell = order[rank_];
    const auto& group = candidates_[cell.group];
    if (group.empty() || cell.from > now) continue;
    const auto oldest = group.lower_bound(cell.to > now ? 0 : now - cell.to + 1);
    if (oldest != group.end() && now - (*oldest)->last_used >= cell.from) return *oldest;
  }
  return nullptr;
}

void PrefixIndex::Bury(const PrefixNode& node, uint64_t step, uint64_t tenant) {
  graves_[node.path_hash] = {step, tenant};
  grave_order_.emplace_back(node.path_hash, step);
  if (grave_order_.size() > kMostGraves) {
    const auto oldest = graves_.find(grave_order_.front().first);
    // Unless it was evicted once more since.
    if (oldest != graves_.end() && oldest->second.step == grave_order_.front().second)
      graves_.erase(oldest);
    grave_order_.pop_front();
  }
  if (policy_ != EvictionPolicy::kWorth || (node.depth + 1) % GhostEvery() != 0) return;
  ghosts_[node.path_hash] = node.last_used;
  ghost_order_.emplace_back(node.path_hash, node.last_used);
  if (ghost_order_.size() <= kMostGhosts) return;
  const auto oldest = ghosts_.find(ghost_order_.front().first);
  // Unless it was evicted once more since.
  if (oldest != ghosts_.end() && oldest->second == ghost_order_.front().second)
    ghosts_.erase(oldest);
  ghost_order_.pop_front();
}

void PrefixIndex::Clear(BlockPool& pool) {
  // The parent of what is removed may go to a group that was empty.
  for (bool any = true; any;) {
    any = false;
    for (auto& group : candidates_) {
      while (!group.empty()) {
        dropped_blocks_ += HeldBlocks(**group.begin());
        Remove(*group.begin());
        any = true;
      }
    }
  }
  (void)pool;
}

uint64_t PrefixIndex::bytes() const {
  constexpr uint64_t kHeader = 16;                          // of the allocator, for each object
  constexpr uint64_t kLinks = 4 * sizeof(void*) + kHeader;  // of an entry of a map
  const uint64_t node = sizeof(PrefixNode) + kHeader + block_tokens_ * sizeof(int32_t) + kHeader +
                        windows_.size() * sizeof(BlockRef) + kHeader +
                        sizeof(PrefixNode::Children::value_type) + kLinks +  // in its parent
                        sizeof(std::pair<uint64_t, void*>) + kLinks;         // by id
  size_t candidates = 0;
  for (const auto& group : candidates_) candidates += group.size();
  return by_id_.size() * node + candidates * (sizeof(void*) + kLinks) + reuse_.bytes() +
         graves_.size() * (sizeof(std::pair<uint64_t, Grave>) + kLinks) +
         grave_order_.size() * sizeof(grave_order_.front()) +
         ghosts_.size() * (sizeof(std::pair<uint64_t, uint64_t>) + kLinks) +
         ghost_order_.size() * sizeof(ghost_order_.front()) +
         fell_out_.size() * sizeof(fell_out_.front()) +
         fell_out_before_branch_.size() * (sizeof(*fell_out_before_branch_.begin()) + kLinks);
}

void PrefixIndex::CheckInvariants(const BlockPool& pool) const {
  int64_t idle = 0;
  for (const auto& [id, node] : by_id_) {
    CHECK_EQ(node->id, id);
    CHECK_GE(node->users, 0);
    if (node->parent->parent != nullptr) CHECK_GE(node->parent->users, node->users > 0 ? 1 : 0);
    if (node->users == 0) idle += HeldBlocks(*node);
    CHECK(node->ready || HeldBlocks(*node) == 0);
    CHECK(node->ready || node->users > 0 || !node->children.empty());
    CHECK(static_cast<int32_t>(node->tokens.size()) == block_tokens_ || node->children.empty());
    const bool candidate = node->users == 0 && node->children.empty() && node->ready;
    CHECK_EQ(candidates_[node->group].count(node), candidate ? 1u : 0u);
    for (size_t g = 0; g < node->blocks.size(); ++g) {
      const BlockRef& block = node->blocks[g];
      if (!block) continue;
      const int32_t refs = pool.refs(block.id());
      CHECK_GE(refs, 1);
      if (node->users == 0) CHECK_EQ(refs, 1);
      // What no sequence's window has can be evicted, though sequences go through the node.
      if (windows_[g] > 1 && refs == 1 && node->users > 0 && !node->children.empty())
        CHECK(node->fell_out[g]);
    }
  }
  CHECK_EQ(idle, idle_blocks_);
}

}  // namespace kvasir
