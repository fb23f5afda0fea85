#include "kv/manager.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/checked.h"

namespace kvasir {
namespace {

std::vector<int32_t> WindowsOf(const KvLayout& layout) {
  std::vector<int32_t> windows;
  for (const KvGroup& group : layout.groups) windows.push_back(group.window);
  return windows;
}

}  // namespace

KvManager::KvManager(KvLayout layout, int32_t blocks, KvManagerOptions options)
    : layout_(std::move(layout)),
      options_(options),
      pool_(blocks),
      index_(layout_.block_tokens, WindowsOf(layout_), options.eviction) {}

SequenceKv KvManager::NewSequence() const {
  SequenceKv s;
  s.tables.resize(layout_.groups.size());
  return s;
}

PrefixMatch KvManager::Match(uint64_t salt, std::span<const int32_t> prompt, int32_t limit) const {
  if (!options_.share_prefixes || prompt.empty()) return {};
  const int32_t most = static_cast<int32_t>(prompt.size()) - 1;
  PrefixMatch match = index_.Match(salt, prompt, std::min(limit, most));
  if (!options_.share_in_flight) match.in_flight_tokens = 0;
  return match;
}

bool KvManager::Adopt(SequenceKv& sequence, const PrefixMatch& match,
                      std::span<const int32_t> prompt, uint64_t step) {
  CHECK_EQ(sequence.computed, 0);
  CHECK(sequence.path.empty());
  ++changes_;
  if (!options_.share_prefixes) return true;
  const auto whole = static_cast<int32_t>(match.nodes.size());
  // Used and held before anything is evicted, so that making room does not take them.
  sequence.admission = index_.Tick();
  index_.Use(match.nodes);
  sequence.path = match.nodes;
  for (size_t g = 0; g < layout_.groups.size(); ++g) {
    const int32_t first = FirstNeeded(layout_.groups[g], match.tokens) / layout_.block_tokens;
    std::vector<BlockRef> blocks;
    LetGo(sequence, g, 0, std::min(first, whole));
    for (int32_t b = first; b < whole; ++b) blocks.push_back(match.nodes[b]->blocks[g].Share());
    sequence.tables[g].Adopt(std::min(first, whole), std::move(blocks));
  }
  sequence.computed = whole * layout_.block_tokens;
  if (match.partial != nullptr) {
    PrefixNode* const partial[] = {match.partial};
    index_.Use(partial);
    sequence.copied_from = match.partial;
    for (const BlockRef& block : match.partial->blocks) {
      sequence.copied_blocks.push_back(block.Share());
    }
    if (!Grow(sequence, match.tokens, step)) {
      Release(sequence, prompt, true);
      return false;
    }
    for (size_t g = 0; g < layout_.groups.size(); ++g) {
      sequence.copies.push_back({sequence.copied_blocks[g].id(), sequence.tables[g].id(whole)});
    }
    sequence.computed = match.tokens;
  }
  // The rest of the prompt's whole blocks is now in flight.
  const auto end = static_cast<int32_t>(prompt.size()) / layout_.block_tokens;
  for (int32_t b = whole; b < end; ++b) {
    PrefixNode* parent = sequence.path.empty() ? nullptr : sequence.path.back();
    PrefixNode* node = index_.FindOrAdd(
        sequence.salt, parent,
        prompt.subspan(static_cast<size_t>(b) * layout_.block_tokens, layout_.block_tokens),
        sequence.tenant, sequence.admission);
    if (!node->ready && node->writer == 0) node->writer = sequence.id;
    sequence.path.push_back(node);
  }
  // What is known of these must be computed again, and does not stay in the way until then.
  for (size_t g = 0; g < layout_.groups.size(); ++g) LetGo(sequence, g, whole, end);
  index_.Learn(match, sequence.path, static_cast<int32_t>(prompt.size()));
  return true;
}

SequenceKv KvManager::Fork(const SequenceKv& parent, uint64_t id) {
  CHECK(parent.copies.empty());
  SequenceKv child = NewSequence();
  child.id = id;
  child.salt = parent.salt;
  child.tenant = parent.tenant;
  child.admission = parent.admission;
  child.computed = parent.computed;
  for (size_t g = 0; g < parent.tables.size(); ++g) {
    const BlockTable& table = parent.tables[g];
    std::vector<BlockRef> blocks;
    for (int32_t b = 0; b < table.size(); ++b)
      blocks.push_back(table.Share(table.first_block() + b));
    child.tables[g].Adopt(table.first_block(), std::move(blocks));
  }
  const auto whole = static_cast<size_t>(parent.computed / layout_.block_tokens);
  child.path.assign(parent.path.begin(), parent.path.begin() + static_cast<ptrdiff_t>(std::min(
                                                                   whole, parent.path.size())));
  index_.Join(child.path);
  return child;
}

bool KvManager::MustCopy(const SequenceKv& sequence, const BlockTable& table) const {
  if (sequence.computed % layout_.block_tokens == 0) return false;
  return pool_.refs(table.id(sequence.computed / layout_.block_tokens)) > 1;
}

void KvManager::CopiesDone(SequenceKv& sequence) {
  sequence.copies.clear();
  sequence.copied_blocks.clear();
  if (sequence.copied_from == nullptr) return;
  for (size_t g = 0; g < layout_.groups.size(); ++g) {
    if (layout_.groups[g].window != 0 && sequence.copied_from->users > 1)
      index_.FellOut(sequence.copied_from, static_cast<int32_t>(g));
  }
  index_.Leave(sequence.copied_from);
  sequence.copied_from = nullptr;
}

int64_t KvManager::BlocksToGrow(const SequenceKv& sequence, int32_t tokens) const {
  int64_t wanted = 0;
  for (const BlockTable& table : sequence.tables) {
    const auto end = static_cast<int64_t>(DivUp(tokens, layout_.block_tokens));
    wanted += std::max<int64_t>(0, end - table.first_block() - table.size());
    if (tokens > sequence.computed && MustCopy(sequence, table)) ++wanted;
  }
  return wanted;
}

bool KvManager::HoldsAlone(const SequenceKv& sequence) const {
  for (size_t g = 0; g < sequence.tables.size(); ++g) {
    const BlockTable& table = sequence.tables[g];
    // The last are the first that no other has.
    for (int32_t b = table.first_block() + table.size(); b-- > table.first_block();) {
      const int32_t refs = pool_.refs(table.id(b));
      if (refs == 1) return true;
      if (refs > 2 || b >= static_cast<int32_t>(sequence.path.size())) continue;
      const PrefixNode& node = *sequence.path[b];
      if (node.users == 1 && node.blocks[g] && node.blocks[g].id() == table.id(b)) return true;
    }
  }
  return false;
}

bool KvManager::Grow(SequenceKv& sequence, int32_t tokens, uint64_t step) {
  const int64_t wanted = BlocksToGrow(sequence, tokens);
  if (wanted > pool_.free()) index_.Evict(pool_, wanted, step, sequence.tenant);
  if (wanted > pool_.free()) return false;
  for (BlockTable& table : sequence.tables) {
    if (tokens > sequence.computed && MustCopy(sequence, table)) {
      // The copy is made before anything of its step is written, in the order of planning: the
      // original may be given away meanwhile.
      const int32_t part = sequence.computed / layout_.block_tokens;
      BlockRef own = pool_.Allocate();
      sequence.copies.push_back({table.id(part), own.id()});
      table.Replace(part, std::move(own));
      ++changes_;
    }
    CHECK(table.Grow(pool_, layout_.block_tokens, tokens));
  }
  return true;
}

std::vector<BlockRef> KvManager::ShareBlock(const SequenceKv& sequence, int32_t block) const {
  std::vector<BlockRef> blocks;
  for (const BlockTable& table : sequence.tables) blocks.push_back(table.Share(block));
  return blocks;
}

void KvManager::Publish(SequenceKv& sequence, std::span<const int32_t> tokens, int32_t computed) {
  if (!options_.share_prefixes) return;
  const int32_t size = layout_.block_tokens;
  for (int32_t b = sequence.computed / size; (b + 1) * size <= computed; ++b) {
    CHECK_LE(static_cast<size_t>(b), sequence.path.size());
    if (static_cast<size_t>(b) == sequence.path.size()) {
      PrefixNode* parent = sequence.path.empty() ? nullptr : sequence.path.back();
      sequence.path.push_back(index_.FindOrAdd(sequence.salt, parent,
                                               tokens.subspan(static_cast<size_t>(b) * size, size),
                                               sequence.tenant, sequence.admission));
    }
    PrefixNode* node = sequence.path[b];
    if (!node->ready) {
      index_.Publish(node, ShareBlock(sequence, b));
      continue;
    }
    // Somebody else computed the same: the bits are equal, so one copy is enough.
    ++changes_;
    for (size_t g = 0; g < sequence.tables.size(); ++g) {
      if (node->blocks[g]) {
        sequence.tables[g].Replace(b, node->blocks[g].Share());
      } else {
        node->blocks[g] = sequence.tables[g].Share(b);  // what fell out of a window is back
      }
    }
  }
}

int32_t KvManager::FirstNeeded(const KvGroup& group, int32_t position) const {
  return group.window == 0 ? 0 : std::max(0, position - group.window + 1);
}

/// A sequence does without blocks [begin, end) of its text in a group with a window. Only of nodes
/// that so many use.
void KvManager::LetGo(const SequenceKv& sequence, size_t group, int32_t begin, int32_t end,
                      int32_t users) {
  if (layout_.groups[group].window == 0) return;
  end = std::min(end, static_cast<int32_t>(sequence.path.size()));
  for (int32_t b = begin; b < end; ++b) {
    if (sequence.path[b]->users >= users)
      index_.FellOut(sequence.path[b], static_cast<int32_t>(group));
  }
}

void KvManager::Advance(SequenceKv& sequence, int32_t tokens) {
  CHECK_GE(tokens, sequence.computed);
  sequence.computed = tokens;
  for (size_t g = 0; g < layout_.groups.size(); ++g) {
    const int32_t needed = FirstNeeded(layout_.groups[g], tokens);
    // One block more than needed stays, so that a chat whose last tokens change can go back.
    const int32_t first = std::max(0, needed - layout_.block_tokens);
    const int32_t before = sequence.tables[g].first_block();
    sequence.tables[g].DropBefore(layout_.block_tokens, first);
    if (sequence.tables[g].first_block() != before) ++changes_;
    LetGo(sequence, g, before, sequence.tables[g].first_block());
  }
}

void KvManager::Release(SequenceKv& sequence, std::span<const int32_t> tokens, bool keep,
                        int32_t most) {
  // Copies that were never made: what they would have given is not there.
  if (!sequence.copies.empty()) sequence.computed -= sequence.computed % layout_.block_tokens;
  CopiesDone(sequence);
  ++changes_;
  const int32_t size = layout_.block_tokens, whole = sequence.computed / size;
  const int32_t rest = sequence.computed % size;
  index_.Ended(sequence.admission, sequence.computed);
  // A block that a fork still shares is the fork's to keep.
  const bool holds_rest =
      std::all_of(sequence.tables.begin(), sequence.tables.end(), [&](const BlockTable& t) {
        return t.first_block() <= whole && whole < t.first_block() + t.size() &&
               pool_.refs(t.id(whole)) == 1;
      });
  const auto stays = [&](size_t block) {
    return keep && static_cast<int64_t>(block) * size < most;
  };
  if (stays(static_cast<size_t>(whole)) && options_.share_prefixes && rest > 0 && holds_rest) {
    CHECK_GE(sequence.path.size(), static_cast<size_t>(whole));
    PrefixNode* parent = whole == 0 ? nullptr : sequence.path[whole - 1];
    PrefixNode* end = index_.FindOrAdd(sequence.salt, parent,
                                       tokens.subspan(static_cast<size_t>(whole) * size, rest),
                                       sequence.tenant, sequence.admission);
    if (!end->ready) index_.Publish(end, ShareBlock(sequence, whole));
    index_.Leave(end);
  }
  for (size_t g = 0; g < layout_.groups.size(); ++g) {
    BlockTable& table = sequence.tables[g];
    // The last window of a text that nobody else goes through is what its next turn starts from: it
    // is given up with the rest of the text, not before it.
    LetGo(sequence, g, table.first_block(), table.first_block() + table.size(), 2);
    table.Clear();
  }
  while (!sequence.path.empty()) {
    PrefixNode* node = sequence.path.back();
    sequence.path.pop_back();
    if (!node->ready && node->writer == sequence.id) node->writer = 0;
    const bool alone = node->users == 1 && node->children.empty() && node->ready && node->hits == 0;
    index_.Leave(node);
    if (!stays(sequence.path.size()) && alone) index_.Remove(node);
  }
  sequence.computed = 0;
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
  CHECK(sequence.path.empty());
  sequence.computed = tokens;
  ++changes_;
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

void KvManager::CheckInvariants() const {
  pool_.CheckInvariants();
  index_.CheckInvariants(pool_);
}

}  // namespace kvasir
