#include "kv/reuse_model.h"

#include <gtest/gtest.h>

#include "kv/manager.h"

namespace kvasir {
namespace {

constexpr int kFar = ReuseModel::kTails - 1;  // group of class 0, far from the end

/// Chats that come one after the other, each of up to `turns` turns, `pause` admissions apart;
/// others that never return between them. Each turn but its last 100 tokens is reused.
void Chats(ReuseModel& model, int admissions, int pause, int turns) {
  std::vector<int> turn_of(admissions + pause + 1, 0);
  for (int i = 1; i <= admissions; ++i) {
    ASSERT_EQ(model.Tick(), static_cast<uint64_t>(i));
    const int turn = turn_of[i];
    const int32_t before = 4000 + 1000 * (turn - 1);
    model.Admitted(4000 + 1000 * turn, turn == 0 ? 0 : i - pause, before - 100, before - 100);
    if (i % 3 == 0 && turn + 1 < turns) turn_of[i + pause] = turn + 1;
  }
}

TEST(ReuseModel, EveryAgeIsInItsRange) {
  for (uint64_t n = 0; n < 20000; ++n) {
    const int age = ReuseModel::Age(n);
    EXPECT_GE(n, ReuseModel::AgeBegin(age));
    if (age + 1 < ReuseModel::kAges) {
      EXPECT_LT(n, ReuseModel::AgeBegin(age + 1));
    }
  }
}

TEST(ReuseModel, BeforeAnythingIsKnownTheOldestGoFirst) {
  const ReuseModel model;
  ASSERT_EQ(model.order().size(), size_t{ReuseModel::kGroups} * ReuseModel::kAges);
  for (size_t i = 1; i < model.order().size(); ++i)
    EXPECT_LE(model.order()[i].age, model.order()[i - 1].age);
}

TEST(ReuseModel, WhatReturnsLaterThanItWasLeftIsWorthMostShortlyBefore) {
  ReuseModel model;
  Chats(model, 6000, 150, 2);
  const auto rank = [&](uint64_t age) { return model.Rank(kFar, model.now() - age); };
  EXPECT_LT(rank(4), rank(100));
  EXPECT_LT(rank(400), rank(100));
  EXPECT_LT(rank(400), rank(4));
}

TEST(ReuseModel, WhatHadMoreTurnsIsWorthMore) {
  ReuseModel model;
  Chats(model, 6000, 150, 3);  // one in three goes on; of those, all once more
  for (const uint64_t age : {4, 30, 100}) {
    EXPECT_LT(model.Rank(kFar, model.now() - age),
              model.Rank(ReuseModel::kTails + kFar, model.now() - age));
  }
}

TEST(ReuseModel, EndsThatAreNotReusedGoBeforeAllElse) {
  ReuseModel model;
  Chats(model, 6000, 150, 2);
  const uint64_t first_turn = model.now() - 1;  // of 4,000 tokens
  const int end = model.Group(first_turn, 4000), before = model.Group(first_turn, 4000 - 128);
  EXPECT_EQ(end, 0);
  EXPECT_EQ(before, 2);
  for (const uint64_t age : {4, 30, 100})
    EXPECT_LT(model.Rank(end, model.now() - 100), model.Rank(before, model.now() - age));
}

/// Tokens found of a prompt that comes when nothing else runs.
int32_t Serve(KvManager& kv, uint64_t id, const std::vector<int32_t>& prompt) {
  const auto tokens = static_cast<int32_t>(prompt.size());
  SequenceKv s = kv.NewSequence();
  s.id = id;
  const PrefixMatch match = kv.Match(0, prompt);
  EXPECT_TRUE(kv.Adopt(s, match, prompt, id));
  kv.CopiesDone(s);
  EXPECT_TRUE(kv.Grow(s, tokens, id));
  kv.Publish(s, prompt, tokens);
  kv.Advance(s, tokens);
  kv.Release(s, prompt, true);
  kv.CheckInvariants();
  return match.tokens;
}

/// Tokens found when one prompt in 20 is a chat's that goes on after 100 prompts, and the pool
/// holds 60 prompts.
int64_t FoundOfChats(EvictionPolicy policy) {
  constexpr int32_t kBlock = 16, kPrompt = 32 * kBlock;
  KvManager kv(
      *KvLayout::Create({.window = {0}, .kv_heads = 1, .head_dim = 16, .block_tokens = kBlock}),
      60 * kPrompt / kBlock, {.eviction = policy});
  int64_t found = 0;
  for (int i = 0; i < 2000; ++i) {
    const int text = i % 20 == 0 ? -1 - i % 100 : i;  // the five chats never change
    std::vector<int32_t> prompt;
    for (int t = 0; t < kPrompt; ++t) prompt.push_back(text * 1000 + t);
    found += Serve(kv, i + 1, prompt);
  }
  return found;
}

TEST(ReuseModel, WhatReturnsIsKeptThoughThePoolIsTooSmallForAllUntilThen) {
  EXPECT_EQ(FoundOfChats(EvictionPolicy::kLru), 0);
  // Of 95 returns of 511 tokens each; some pass until it is learned.
  EXPECT_GE(FoundOfChats(EvictionPolicy::kWorth), 95 * 511 / 2);
}

}  // namespace
}  // namespace kvasir
