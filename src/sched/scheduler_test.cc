#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "sched/fake_executor.h"

namespace kvasir {
namespace {

constexpr int32_t kVocab = 50;

KvLayout TestLayout(bool windows) {
  return *KvLayout::Create(
      {.window = windows ? std::vector<int32_t>{24, 24, 0} : std::vector<int32_t>{0, 0},
       .kv_heads = 1,
       .head_dim = 16,
       .block_tokens = 16});
}

struct Rig {
  Rig(bool windows, int32_t blocks, SchedulerOptions options)
      : kv(TestLayout(windows), blocks),
        scheduler(options, &kv),
        executor(kv.layout(), blocks, kVocab) {}

  SequenceId Add(std::vector<int32_t> prompt, int32_t max_tokens) {
    auto s = std::make_unique<Sequence>();
    s->id = next_id++;
    s->prompt_tokens = static_cast<int32_t>(prompt.size());
    s->tokens = std::move(prompt);
    s->max_tokens = max_tokens;
    const SequenceId id = s->id;
    scheduler.Add(std::move(s));
    return id;
  }

  /// One step; finishes sequences that reached their limit. False when there was nothing to do.
  bool Step() {
    const StepPlan& plan = scheduler.Plan();
    if (plan.slices.empty()) return false;
    executor.Submit(plan);
    const StepResult result = executor.Collect();
    for (const auto& p : scheduler.Commit(result)) {
      if (p.tokens.empty()) continue;
      const Sequence& s = *p.sequence;
      const std::span<const int32_t> before(s.tokens.data(), s.tokens.size() - 1);
      EXPECT_EQ(s.tokens.back(), executor.Expected(before)) << "sequence " << s.id;
      cached[s.id] = s.cached_tokens;
      if (s.output_tokens() >= s.max_tokens) {
        outputs[s.id] = s.tokens;
        scheduler.Finish(s.id, true);
      }
    }
    kv.CheckInvariants();
    return true;
  }

  KvManager kv;
  Scheduler scheduler;
  FakeExecutor executor;
  SequenceId next_id = 1;
  std::map<SequenceId, std::vector<int32_t>> outputs;
  std::map<SequenceId, int32_t> cached;
};

std::vector<int32_t> RandomPrompt(std::mt19937& random, size_t length) {
  std::vector<int32_t> prompt(length);
  for (int32_t& t : prompt) t = static_cast<int32_t>(random() % kVocab);
  return prompt;
}

TEST(Scheduler, GivesTheSameTokensInChunksAndInBatches) {
  std::mt19937 random(1);
  std::vector<std::vector<int32_t>> prompts;
  for (const size_t n : {1, 15, 16, 17, 100, 33}) prompts.push_back(RandomPrompt(random, n));
  std::map<SequenceId, std::vector<int32_t>> first;
  for (const bool windows : {false, true}) {
    first.clear();
    for (const int32_t step_tokens : {1, 7, 32, 512}) {
      for (const int32_t sequences : {1, 3, 6}) {
        Rig rig(windows, 200, {.max_step_tokens = step_tokens, .max_sequences = sequences});
        for (const auto& p : prompts) rig.Add(p, 20);
        while (rig.Step()) {
          EXPECT_LE(rig.executor.largest_step(), step_tokens);
        }
        ASSERT_EQ(rig.outputs.size(), prompts.size());
        if (first.empty()) first = rig.outputs;
        EXPECT_EQ(rig.outputs, first);
      }
    }
  }
}

TEST(Scheduler, ANextTurnComputesOnlyWhatIsNew) {
  for (const bool windows : {false, true}) {
    Rig rig(windows, 100, {.max_step_tokens = 64, .max_sequences = 1});
    std::mt19937 random(2);
    const SequenceId first = rig.Add(RandomPrompt(random, 100), 10);
    while (rig.Step()) {
    }
    std::vector<int32_t> next = rig.outputs[first];  // 110 tokens, the last not computed
    const std::vector<int32_t> question = RandomPrompt(random, 5);
    next.insert(next.end(), question.begin(), question.end());
    const int64_t before = rig.executor.computed_tokens();
    const SequenceId second = rig.Add(next, 1);
    while (rig.Step()) {
    }
    EXPECT_EQ(rig.cached[second], 109);
    EXPECT_EQ(rig.executor.computed_tokens() - before, 115 - 109);
  }
}

TEST(Scheduler, APromptThatIsWhollyCachedComputesItsLastToken) {
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 1});
  std::mt19937 random(3);
  const auto prompt = RandomPrompt(random, 40);
  rig.Add(prompt, 3);
  while (rig.Step()) {
  }
  const SequenceId again = rig.Add(prompt, 3);
  while (rig.Step()) {
  }
  EXPECT_EQ(rig.cached[again], 39);
  EXPECT_EQ(rig.outputs[1], rig.outputs[again]);
}

TEST(Scheduler, DivergingPromptKeepsOnlyTheCommonPart) {
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 1});
  std::mt19937 random(4);
  auto prompt = RandomPrompt(random, 40);
  rig.Add(prompt, 3);
  while (rig.Step()) {
  }
  prompt[21] = (prompt[21] + 1) % kVocab;
  const SequenceId changed = rig.Add(prompt, 3);
  while (rig.Step()) {
  }
  EXPECT_EQ(rig.cached[changed], 21);
}

TEST(Scheduler, WaitsForRoomInsteadOfFailing) {
  // Ten sequences of 5 blocks each in a pool of 12: two at once, whatever is asked for.
  Rig rig(false, 12, {.max_step_tokens = 64, .max_sequences = 10});
  std::mt19937 random(5);
  for (int i = 0; i < 10; ++i) rig.Add(RandomPrompt(random, 40), 40);
  size_t most = 0;
  while (rig.Step()) most = std::max(most, rig.scheduler.running());
  EXPECT_EQ(rig.outputs.size(), 10u);
  EXPECT_LE(most, 2u);
}

TEST(Scheduler, RandomTrafficWithCancelsKeepsEveryInvariant) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    Rig rig(random() % 2 == 0, static_cast<int32_t>(20 + random() % 60),
            {.max_step_tokens = static_cast<int32_t>(1 + random() % 70),
             .max_sequences = static_cast<int32_t>(1 + random() % 5)});
    std::vector<std::vector<int32_t>> history;
    std::vector<SequenceId> alive;
    for (int step = 0; step < 200; ++step) {
      if (random() % 4 == 0) {
        std::vector<int32_t> prompt;
        if (!history.empty() && random() % 2 == 0) prompt = history[random() % history.size()];
        prompt.resize(std::min<size_t>(prompt.size(), 60));
        const auto extra = RandomPrompt(random, 1 + random() % 30);
        prompt.insert(prompt.end(), extra.begin(), extra.end());
        history.push_back(prompt);
        const auto need = rig.kv.BlocksFor(static_cast<int32_t>(prompt.size()) + 20, 70);
        if (need > rig.kv.pool().total()) continue;
        alive.push_back(rig.Add(prompt, static_cast<int32_t>(1 + random() % 20)));
      }
      if (!alive.empty() && random() % 15 == 0) {
        rig.scheduler.Finish(alive[random() % alive.size()], random() % 2 == 0);
      }
      if (random() % 50 == 0) rig.scheduler.DropCache();
      rig.Step();
      if (HasFailure()) return;
    }
    while (rig.Step()) {
    }
    rig.scheduler.DropCache();
    EXPECT_EQ(rig.kv.pool().free(), rig.kv.pool().total()) << "blocks leaked, seed " << seed;
  }
}

}  // namespace
}  // namespace kvasir
