// The KV manager by itself: any order of adopting, growing, publishing, forking, truncating and
// releasing, against a naive model that knows which tokens each slot holds.
#include <memory>
#include <vector>

#include "fuzz_input.h"
#include "kv/manager.h"

namespace kvasir {
namespace {

struct Live {
  SequenceKv kv;
  std::vector<int32_t> tokens;
};

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  FuzzInput in(data, size);
  const auto blocks = static_cast<int32_t>(4 + in.Below(28));
  // Two groups, where there is a window.
  const int32_t window = in.Byte() % 2 == 0 ? 0 : 20;
  const KvLayout layout = *KvLayout::Create({.window = {0, window},
                                             .kv_heads = 1,
                                             .head_dim = 16,
                                             .block_tokens = 16,
                                             .dtype = KvDType::kF32});
  KvManager kv(layout, blocks);
  // What each slot of each block holds: tokens before and at it, as a hash; 0: nothing.
  std::vector<uint64_t> slots(static_cast<size_t>(blocks) * 16);
  const auto slot = [&](BlockId block, int32_t at) -> uint64_t& {
    CHECK(block >= 0 && block < blocks);
    return slots[static_cast<size_t>(block) * 16 + static_cast<size_t>(at)];
  };
  std::vector<std::unique_ptr<Live>> live;
  uint64_t next_id = 1;
  const auto begin_hash = [](uint64_t salt) {
    return salt * 0x9e3779b97f4a7c15u + 0xcbf29ce484222325u;
  };
  const auto next_hash = [](uint64_t h, int32_t token) {
    return (h ^ static_cast<uint64_t>(token)) * 0x100000001b3u;
  };
  const auto first_needed = [&](size_t group, int32_t position) {
    return layout.groups[group].window == 0 ? 0 : std::max(0, position - window + 1);
  };
  const auto check = [&](const Live& s) {
    for (size_t g = 0; g < s.kv.tables.size(); ++g) {
      uint64_t hash = begin_hash(s.kv.salt);
      for (int32_t p = 0; p < s.kv.computed; ++p) {
        hash = next_hash(hash, s.tokens[p]);
        if (p < first_needed(g, s.kv.computed)) continue;
        // A copy that is still to be made holds what its source does.
        BlockId block = s.kv.tables[g].id(p / 16);
        for (const BlockCopy& c : s.kv.copies) {
          if (c.to == block) block = c.from;
        }
        CHECK_EQ(slot(block, p % 16), hash);
      }
    }
  };
  const auto compute = [&](Live& s, int32_t count) {
    const int32_t to = std::min(s.kv.computed + count, static_cast<int32_t>(s.tokens.size()));
    if (!kv.Grow(s.kv, to)) return;
    check(s);
    for (const BlockCopy& c : s.kv.copies) {
      for (int32_t t = 0; t < 16; ++t) {
        if (slot(c.from, t) != 0) slot(c.to, t) = slot(c.from, t);
      }
    }
    kv.CopiesDone(s.kv);
    uint64_t hash = begin_hash(s.kv.salt);
    for (int32_t p = 0; p < to; ++p) {
      hash = next_hash(hash, s.tokens[p]);
      if (p < s.kv.computed) continue;
      for (const BlockTable& table : s.kv.tables) {
        const BlockId block = table.id(p / 16);
        CHECK_EQ(kv.pool().refs(block), 1);  // a block that is written has one owner
        slot(block, p % 16) = hash;
      }
    }
    kv.Publish(s.kv, s.tokens, to);
    kv.Advance(s.kv, to);
    check(s);
  };
  while (!in.empty()) {
    const uint32_t op = in.Below(6);
    Live* some = live.empty() ? nullptr : live[in.Below(static_cast<uint32_t>(live.size()))].get();
    switch (op) {
      case 0: {
        if (live.size() >= 8) break;
        auto s = std::make_unique<Live>();
        const uint32_t length = 1 + in.Below(90);
        const uint8_t kind = in.Byte(), differs = in.Byte();
        for (uint32_t i = 0; i < length; ++i)
          s->tokens.push_back(i == differs ? 7 : static_cast<int32_t>(kind % 2));
        s->kv = kv.NewSequence();
        s->kv.id = next_id++;
        s->kv.salt = in.Below(2);
        const PrefixMatch match = kv.Match(s->kv.salt, s->tokens);
        CHECK_LT(match.tokens, static_cast<int32_t>(s->tokens.size()));
        if (!kv.Adopt(s->kv, match, s->tokens, next_id)) break;
        CHECK_EQ(s->kv.computed, match.tokens);
        check(*s);
        live.push_back(std::move(s));
        break;
      }
      case 1:
      case 2:
        if (some != nullptr) compute(*some, static_cast<int32_t>(1 + in.Below(40)));
        break;
      case 3:
        if (some == nullptr) break;
        for (uint32_t i = 1 + in.Below(20); i > 0; --i)
          some->tokens.push_back(static_cast<int32_t>(in.Below(3)));
        break;
      case 4: {
        if (some == nullptr || live.size() >= 8 || !some->kv.copies.empty()) break;
        auto child = std::make_unique<Live>();
        child->kv = kv.Fork(some->kv, next_id++);
        child->tokens.assign(some->tokens.begin(), some->tokens.begin() + some->kv.computed);
        child->tokens.push_back(static_cast<int32_t>(in.Below(5)));
        check(*child);
        live.push_back(std::move(child));
        break;
      }
      default: {
        if (some == nullptr) break;
        kv.Release(some->kv, some->tokens, in.Byte() % 4 != 0);
        std::erase_if(live, [&](const auto& s) { return s.get() == some; });
        if (in.Byte() % 16 == 0) kv.DropCache();
      }
    }
    kv.CheckInvariants();
    for (const auto& s : live) check(*s);
  }
  for (const auto& s : live) kv.Release(s->kv, s->tokens, false);
  kv.DropCache();
  CHECK_EQ(kv.pool().free(), blocks);
  return 0;
}
