#include "kv/manager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace kvasir {
namespace {

KvLayout MixedLayout(int32_t block_tokens) {
  return *KvLayout::Create({.window = {20, 20, 0, 20, 20, 0},
                            .kv_heads = 1,
                            .head_dim = 16,
                            .block_tokens = block_tokens});
}

TEST(BlockPool, GivesEachBlockOnceAndTakesItBackWithItsLastReference) {
  BlockPool pool(3);
  BlockRef a = pool.Allocate(), b = pool.Allocate(), c = pool.Allocate();
  EXPECT_NE(a.id(), b.id());
  EXPECT_NE(b.id(), c.id());
  EXPECT_NE(a.id(), c.id());
  EXPECT_FALSE(pool.Allocate());
  BlockRef shared = a.Share();
  EXPECT_EQ(pool.refs(a.id()), 2);
  a.Reset();
  EXPECT_EQ(pool.free(), 0);
  shared.Reset();
  EXPECT_EQ(pool.free(), 1);
  b = std::move(c);  // gives up what b held
  EXPECT_EQ(pool.free(), 2);
  pool.CheckInvariants();
}

TEST(BlockPoolDeathTest, NoticesABlockThatNeverCameBack) {
  EXPECT_DEATH(
      {
        auto* leaked = new BlockRef;
        BlockPool pool(1);
        *leaked = pool.Allocate();
      },
      "free\\(\\)");
}

TEST(KvManager, GrowTakesAllOrNothing) {
  KvManager kv(MixedLayout(16), 5);
  SequenceKv a = kv.NewSequence();
  ASSERT_EQ(a.tables.size(), 3u);  // two groups of the window, one of all
  EXPECT_TRUE(kv.Grow(a, 16));
  EXPECT_EQ(kv.pool().free(), 2);
  EXPECT_FALSE(kv.Grow(a, 17));  // three more wanted
  EXPECT_EQ(kv.pool().free(), 2);
  EXPECT_TRUE(kv.Grow(a, 16));
}

TEST(KvManager, ReturnsBlocksThatFellOutOfTheWindow) {
  KvManager kv(MixedLayout(16), 100);
  SequenceKv s = kv.NewSequence();
  for (int32_t tokens = 1; tokens <= 300; ++tokens) {
    ASSERT_TRUE(kv.Grow(s, tokens));
    kv.Advance(s, tokens);
    for (size_t g = 0; g < s.tables.size(); ++g) {
      const int32_t window = kv.layout().groups[g].window;
      const TableView view = s.tables[g].view();
      if (window == 0) {
        EXPECT_EQ(view.first_block, 0);
        continue;
      }
      // All that the next token attends to is there, and at most three blocks more.
      const int32_t needed = std::max(0, tokens - window + 1);
      EXPECT_LE(view.first_block * 16, needed);
      EXPECT_LE(view.count * 16, window + 3 * 16);
    }
  }
  kv.CheckInvariants();
}

TEST(KvManager, AWindowedBlockCanGoWhenTheLastWhoSharesItLeaves) {
  const KvLayout layout = *KvLayout::Create({.window = {0, 24},
                                             .kv_heads = 1,
                                             .head_dim = 16,
                                             .block_tokens = 16,
                                             .dtype = KvDType::kF32});
  KvManager kv(layout, 12);
  const std::vector<int32_t> tokens(97, 5);
  const auto begin = [&](std::span<const int32_t> prompt, uint64_t id) {
    SequenceKv s = kv.NewSequence();
    s.id = id;
    EXPECT_TRUE(kv.Adopt(s, kv.Match(0, prompt, 32), prompt, 1));
    return s;
  };
  SequenceKv a = begin(tokens, 1);
  const auto compute = [&](int32_t to) {
    ASSERT_TRUE(kv.Grow(a, to));
    kv.Publish(a, tokens, to);
    kv.Advance(a, to);
    kv.CheckInvariants();
  };
  compute(16);
  compute(32);
  SequenceKv b = begin(std::span(tokens).first(40), 2);
  EXPECT_EQ(b.computed, 32);
  for (int32_t to = 48; to <= 96; to += 16) compute(to);
  // Six blocks of the one group, three in the window of the other and three behind it, of which b
  // holds two.
  EXPECT_EQ(kv.pool().free(), 0);
  EXPECT_FALSE(kv.Grow(a, 97));
  kv.Release(b, std::span(tokens).first(40), true);
  kv.CheckInvariants();
  EXPECT_TRUE(kv.Grow(a, 97));
}

TEST(KvManager, ABlockBehindAWindowSmallerThanABlockCanGoAlsoWhenAllAfterItWent) {
  const KvLayout layout = *KvLayout::Create({.window = {0, 3},
                                             .kv_heads = 1,
                                             .head_dim = 16,
                                             .block_tokens = 16,
                                             .dtype = KvDType::kF32});
  KvManager kv(layout, 12);
  constexpr int32_t kPrompt = 45;
  const auto begin = [&](std::span<const int32_t> prompt, uint64_t id) {
    SequenceKv s = kv.NewSequence();
    s.id = id;
    EXPECT_TRUE(kv.Adopt(s, kv.Match(0, prompt, INT32_MAX), prompt, 1));
    kv.CopiesDone(s);
    return s;
  };
  const auto compute = [&](SequenceKv& s, std::span<const int32_t> tokens, int32_t to) {
    ASSERT_TRUE(kv.Grow(s, to));
    kv.Publish(s, tokens, to);
    kv.Advance(s, to);
    kv.CheckInvariants();
  };
  // Two texts that part after two blocks.
  std::vector<int32_t> tokens(60, 5);
  const std::span<const int32_t> prompt = std::span(tokens).first(kPrompt);
  for (const int32_t last : {6, 7}) {
    std::fill(tokens.begin() + 32, tokens.end(), last);
    SequenceKv s = begin(prompt, 1);
    compute(s, tokens, kPrompt - 1);
    kv.Release(s, prompt, true);
  }
  // A third begins within the end of the second, and needs nothing of the window's blocks before.
  tokens[40] = 8;
  SequenceKv third = begin(prompt, 2);
  ASSERT_EQ(third.computed, 40);
  // Both ends go; the block where they parted stays, used by the third alone.
  SequenceKv large = kv.NewSequence();
  large.id = 3;
  EXPECT_FALSE(kv.Grow(large, 16 * 12));
  kv.CheckInvariants();
  compute(third, tokens, 60);
}

TEST(KvManager, EndedTextsAreFoundAgainWhereBlocksBehindWindowsMakeRoomEnough) {
  // Four texts of 20 blocks: of the windowed group, three or four of each are in its window.
  constexpr int32_t kTokens = 320, kTexts = 4, kBehind = 15;
  KvManager kv(*KvLayout::Create({.window = {48, 0},
                                  .kv_heads = 1,
                                  .head_dim = 16,
                                  .block_tokens = 16,
                                  .dtype = KvDType::kF32}),
               kTexts * 2 * kTokens / 16);
  const auto text = [](int32_t which) {
    std::vector<int32_t> tokens(kTokens);
    for (int32_t i = 0; i < kTokens; ++i) tokens[static_cast<size_t>(i)] = 1000 * which + i;
    return tokens;
  };
  for (int32_t which = 0; which < kTexts; ++which) {
    const std::vector<int32_t> tokens = text(which);
    SequenceKv s = kv.NewSequence();
    s.id = static_cast<uint64_t>(which) + 1;
    ASSERT_TRUE(kv.Adopt(s, kv.Match(0, tokens), tokens, 1));
    for (int32_t to = 16; to <= kTokens; to += 16) {
      ASSERT_TRUE(kv.Grow(s, to));
      kv.Publish(s, tokens, to);
      kv.Advance(s, to);
    }
    kv.Release(s, tokens, true);
  }
  kv.CheckInvariants();
  SequenceKv other = kv.NewSequence();
  ASSERT_TRUE(kv.Grow(other, (kv.pool().free() + kTexts * kBehind) / 2 * 16));
  EXPECT_GE(kv.index().evicted_blocks(), kTexts * kBehind - 1);
  for (int32_t which = 0; which < kTexts; ++which) {
    std::vector<int32_t> next = text(which);
    next.push_back(7);
    EXPECT_EQ(kv.Match(0, next).tokens, kTokens) << which;
  }
}

TEST(KvManager, WhatAWindowNeedsWherePromptsPartIsKeptLongerThanEndsOfTexts) {
  // Prompts that share their first 64 tokens, in a pool that has room for some only.
  KvManager kv(MixedLayout(16), 120);
  std::mt19937 random(6);
  const auto prompt_after = [&](std::vector<int32_t> tokens) {
    while (tokens.size() < 128) tokens.push_back(static_cast<int32_t>(random() % 1000));
    return tokens;
  };
  const std::vector<int32_t> shared = [&] {
    std::vector<int32_t> tokens(64);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % 1000);
    return tokens;
  }();
  for (uint64_t id = 1; id <= 40; ++id) {
    // Every other text begins with something of its own: its end is never asked for again.
    const bool shares = id % 2 == 1;
    const std::vector<int32_t> prompt =
        prompt_after(shares ? shared : std::vector<int32_t>{static_cast<int32_t>(1000 + id)});
    const PrefixMatch match = kv.Match(0, prompt, INT32_MAX);
    // The first two show that prompts part there.
    if (shares && id > 3) {
      EXPECT_EQ(match.tokens, 64) << "text " << id;
    }
    SequenceKv s = kv.NewSequence();
    s.id = id;
    ASSERT_TRUE(kv.Adopt(s, match, prompt, id));
    for (int32_t t = s.computed + 16; t <= 128; t += 16) {
      ASSERT_TRUE(kv.Grow(s, t, id));
      kv.Publish(s, prompt, t);
      kv.Advance(s, t);
    }
    kv.Release(s, prompt, true);
    kv.CheckInvariants();
  }
  EXPECT_GT(kv.index().evicted_blocks(), 100);
}

TEST(KvManager, AMissTellsOfTheLastEviction) {
  const auto layout =
      KvLayout::Create({.window = {0}, .kv_heads = 1, .head_dim = 16, .block_tokens = 16});
  KvManager kv(*layout, 14);
  std::mt19937 random(7);
  const auto compute = [&](const std::vector<int32_t>& prompt, uint64_t step) {
    const PrefixMatch match = kv.Match(0, prompt, INT32_MAX);
    SequenceKv s = kv.NewSequence();
    s.id = step;
    EXPECT_TRUE(kv.Adopt(s, match, prompt, step));
    const auto size = static_cast<int32_t>(prompt.size());
    EXPECT_TRUE(kv.Grow(s, size, step));
    kv.CopiesDone(s);
    kv.Publish(s, prompt, size);
    kv.Advance(s, size);
    kv.Release(s, prompt, true);
  };
  std::vector<int32_t> texts[2];
  for (auto& text : texts) {
    text.resize(161);
    for (int32_t& t : text) t = static_cast<int32_t>(random() % 1000);
  }
  for (const uint64_t step : {1, 3}) {
    compute(texts[0], step);
    compute(texts[1], step + 1);  // evicts it
    const PrefixMatch match = kv.Match(0, texts[0], INT32_MAX);
    ASSERT_EQ(match.reason, MissReason::kEvicted);
    EXPECT_EQ(match.evicted_step, step + 1);
  }
}

TEST(KvManager, TruncatesOnlyToWhatItStillHolds) {
  KvManager kv(MixedLayout(16), 100);
  SequenceKv s = kv.NewSequence();
  ASSERT_TRUE(kv.Grow(s, 200));
  kv.Advance(s, 200);
  EXPECT_TRUE(kv.CanTruncate(s, 200));
  EXPECT_TRUE(kv.CanTruncate(s, 190));
  EXPECT_FALSE(kv.CanTruncate(s, 100));  // its window's blocks are gone
  EXPECT_FALSE(kv.CanTruncate(s, 201));
  const int32_t before = kv.pool().free();
  kv.Truncate(s, 190);
  EXPECT_EQ(s.computed, 190);
  EXPECT_EQ(kv.pool().free(), before + 3);  // 200 tokens are 13 blocks, 190 are 12
}

// The bound that admission relies on: no way of computing a sequence ever holds more.
TEST(KvManager, BlocksForBoundsEveryWayOfComputingASequence) {
  std::mt19937 random(7);
  for (const int32_t block_tokens : {16, 32, 64}) {
    KvManager kv(MixedLayout(block_tokens), 10000);
    for (int trial = 0; trial < 200; ++trial) {
      const auto total = static_cast<int32_t>(1 + random() % 400);
      const auto max_slice = static_cast<int32_t>(1 + random() % 64);
      const int64_t bound = kv.BlocksFor(total, max_slice);
      SequenceKv s = kv.NewSequence();
      while (s.computed < total) {
        const auto count = static_cast<int32_t>(1 + random() % max_slice);
        const int32_t end = std::min(total, s.computed + count);
        ASSERT_TRUE(kv.Grow(s, end));
        ASSERT_LE(kv.pool().total() - kv.pool().free(), bound)
            << total << " tokens in slices of " << max_slice;
        kv.Advance(s, end);
      }
    }
  }
}

TEST(KvManager, ShrinksToNothingWhenASequenceGoes) {
  KvManager kv(MixedLayout(16), 50);
  {
    SequenceKv s = kv.NewSequence();
    ASSERT_TRUE(kv.Grow(s, 100));
    kv.Advance(s, 100);
  }
  EXPECT_EQ(kv.pool().free(), 50);
}

}  // namespace
}  // namespace kvasir
