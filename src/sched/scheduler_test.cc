#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include <cstdlib>
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
      : max_sequences(options.max_sequences),
        kv(TestLayout(windows), blocks),
        scheduler(options, &kv),
        executor(kv.layout(), blocks, kVocab) {}

  struct Owner {
    uint64_t tenant = 0, salt = 0;
    int32_t priority = 0;
    int32_t samples = 1;
    int32_t prompt_logprobs = -1;
  };
  SequenceId Add(std::vector<int32_t> prompt, int32_t max_tokens, Owner owner) {
    auto s = std::make_unique<Sequence>();
    s->tenant = owner.tenant;
    s->salt = owner.salt;
    s->priority = owner.priority;
    s->samples = s->places = owner.samples;
    s->prompt_logprobs = owner.prompt_logprobs;
    s->id = next_id++;
    s->prompt_tokens = static_cast<int32_t>(prompt.size());
    s->tokens = std::move(prompt);
    s->max_tokens = max_tokens;
    const SequenceId id = s->id;
    scheduler.Add(std::move(s));
    return id;
  }

  SequenceId Add(std::vector<int32_t> prompt, int32_t max_tokens) {
    return Add(std::move(prompt), max_tokens, Owner());
  }

  /// One step; finishes sequences that reached their limit. False when there was nothing to do.
  bool Step() {
    const StepPlan& plan = scheduler.Plan();
    if (plan.slices.empty()) return false;
    executor.Submit(plan);
    StepResult& result = executor.Collect();
    // A step takes a millisecond, and one more for each row and for each 100 keys.
    double ms = 1;
    for (const SeqSlice& s : plan.slices)
      ms += s.Share(kv.layout().layers()) * s.count * (1 + s.first_pos / 100.0);
    longest_ms = std::max(longest_ms, ms);
    scheduler.Measured(ms * 1e-3);
    for (const auto& p : scheduler.Commit(result)) {
      const Sequence& s = *p.sequence;
      if (p.error) {
        ++failed;
        scheduler.Finish(s.id, false);
        continue;
      }
      for (const SampledToken& t : p.prompt_logprobs) prompt_rows[s.id].push_back(t.token);
      if (p.tokens.empty()) continue;
      CheckForks(p);
      const std::span<const int32_t> before(s.tokens.data(), s.tokens.size() - 1);
      EXPECT_EQ(s.tokens.back(), executor.Expected(before)) << "sequence " << s.id;
      cached[s.id] = s.cached_tokens;
      missed[s.id] = s.match;
      if (s.output_tokens() >= s.max_tokens) {
        outputs[s.id] = s.tokens;
        scheduler.Finish(s.id, true);
      }
    }
    kv.CheckInvariants();
    return true;
  }

  /// Starts the other samples as forks of the first.
  void CheckForks(const Scheduler::Progress& p) {
    const Sequence& s = *p.sequence;
    for (size_t i = 1; i < p.tokens.size(); ++i) {
      EXPECT_EQ(p.tokens[i].token, (p.tokens[0].token + static_cast<int32_t>(i)) % kVocab);
      auto child = std::make_unique<Sequence>();
      child->id = next_id++;
      child->tokens = s.tokens;
      child->tokens.back() = p.tokens[i].token;
      child->prompt_tokens = s.prompt_tokens;
      child->max_tokens = s.max_tokens + 1;  // so that not all end in the same step
      forks.push_back(child->id);
      scheduler.Fork(s.id, std::move(child));
    }
  }

  int32_t max_sequences;
  KvManager kv;
  Scheduler scheduler;
  FakeExecutor executor;
  SequenceId next_id = 1;
  int failed = 0;
  double longest_ms = 0;
  std::vector<SequenceId> forks;
  std::map<SequenceId, std::vector<int32_t>> prompt_rows;
  std::map<SequenceId, std::vector<int32_t>> outputs;
  std::map<SequenceId, int32_t> cached;
  std::map<SequenceId, PrefixMatch> missed;
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

TEST(Scheduler, PreemptsWhereThePoolIsTooSmallAndLosesNothing) {
  // Ten sequences of 5 blocks each in a pool of 12.
  std::map<SequenceId, std::vector<int32_t>> roomy;
  for (const int32_t blocks : {100, 12}) {
    Rig rig(false, blocks, {.max_step_tokens = 64, .max_sequences = 10});
    std::mt19937 random(5);
    for (int i = 0; i < 10; ++i) rig.Add(RandomPrompt(random, 40), 40);
    int steps = 0;
    while (rig.Step()) ASSERT_LT(++steps, 5000);
    EXPECT_EQ(rig.outputs.size(), 10u);
    if (roomy.empty()) {
      roomy = rig.outputs;
      EXPECT_EQ(rig.scheduler.counters().preemptions, 0u);
    } else {
      EXPECT_GT(rig.scheduler.counters().preemptions, 0u);
      EXPECT_EQ(rig.outputs, roomy);
    }
  }
}

TEST(Scheduler, WhatFailedIsNotPublishedNotEvenUntilItsSequenceEnds) {
  Rig rig(false, 200, {.max_step_tokens = 64, .max_sequences = 2});
  std::mt19937 random(5);
  const std::vector<int32_t> prompt = RandomPrompt(random, 40);
  const SequenceId id = rig.Add(prompt, 4);
  rig.executor.Submit(rig.scheduler.Plan());
  StepResult& result = rig.executor.Collect();
  result.slices.clear();
  result.error = MakeError(ErrorCode::kIo, "a planned failure of the step");
  ASSERT_TRUE(rig.scheduler.Commit(result).front().error);
  EXPECT_EQ(rig.kv.Match(0, prompt, INT32_MAX).tokens, 0);
  rig.scheduler.Finish(id, false);
}

TEST(Scheduler, AnOlderPromptIsNotPreemptedForAYoungerThatDecodesBeforeIt) {
  uint64_t preemptions = 0;
  for (int32_t blocks = 12; blocks < 20; ++blocks) {
    Rig rig(false, blocks, {.max_step_tokens = 2, .max_sequences = 2});
    std::mt19937 random(17);
    const SequenceId old = rig.Add(RandomPrompt(random, 150), 5, {.tenant = 1});
    for (int i = 0; i < 2; ++i) rig.Step();
    // It writes more than outputs did lately, while the prompt is computed a token a step.
    rig.Add(RandomPrompt(random, 4), 150, {.tenant = 2});
    for (int steps = 0; rig.outputs.size() < 2; ++steps) {
      ASSERT_TRUE(rig.Step());
      ASSERT_LT(steps, 1000);
      if (const Sequence* s = rig.scheduler.Find(old); s != nullptr) {
        ASSERT_EQ(s->preemptions, 0) << blocks;
      }
    }
    preemptions += rig.scheduler.counters().preemptions;
  }
  EXPECT_GT(preemptions, 0u) << "room was short";
}

TEST(Scheduler, APromptThatFillsThePoolIsComputedAgainFromItsWholeBlocks) {
  // Three blocks: two whole ones and a part, of which a copy would need a fourth.
  Rig rig(false, 3, {.max_step_tokens = 64, .max_sequences = 2});
  std::mt19937 random(23);
  const auto prompt = RandomPrompt(random, 40);
  const SequenceId first = rig.Add(prompt, 4);
  for (int steps = 0; rig.Step(); ++steps) ASSERT_LT(steps, 100);
  const SequenceId again = rig.Add(prompt, 4);
  for (int steps = 0; rig.Step(); ++steps) ASSERT_LT(steps, 100);
  ASSERT_EQ(rig.outputs.count(again), 1u) << "it waits for room that nobody gives back";
  EXPECT_EQ(rig.outputs.at(first), rig.outputs.at(again));
  EXPECT_EQ(rig.scheduler.counters().cached_tokens, 32u);
}

TEST(Scheduler, APrefixIsSharedWhileItsOwnerStillRuns) {
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 4});
  std::mt19937 random(6);
  auto prompt = RandomPrompt(random, 100);
  rig.Add(prompt, 30);
  for (int i = 0; i < 4; ++i) rig.Step();
  prompt.resize(90);
  const SequenceId second = rig.Add(prompt, 5);
  const int64_t before = rig.executor.computed_tokens();
  rig.Step();
  EXPECT_EQ(rig.executor.computed_tokens() - before, 2);  // one of each
  while (rig.Step()) {
  }
  EXPECT_EQ(rig.cached[second], 89);
}

TEST(Scheduler, TwoPromptsThatArriveTogetherAreComputedOnce) {
  Rig rig(false, 200, {.max_step_tokens = 32, .max_sequences = 8});
  std::mt19937 random(7);
  const auto shared = RandomPrompt(random, 160);
  for (int i = 0; i < 5; ++i) {
    auto prompt = shared;
    prompt.push_back(i);
    rig.Add(prompt, 4);
  }
  while (rig.Step()) {
  }
  EXPECT_EQ(rig.outputs.size(), 5u);
  // The shared part once, its own token and three of output (the last is not computed) of each.
  EXPECT_EQ(rig.executor.computed_tokens(), 160 + 5 * (1 + 3));
}

TEST(Scheduler, SaltsKeepTenantsApart) {
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 2});
  std::mt19937 random(8);
  const auto prompt = RandomPrompt(random, 64);
  rig.Add(prompt, 2);
  while (rig.Step()) {
  }
  const SequenceId other = rig.Add(prompt, 2, {.tenant = 2, .salt = 2});
  const SequenceId same = rig.Add(prompt, 2);
  while (rig.Step()) {
  }
  EXPECT_EQ(rig.cached[other], 0);
  EXPECT_EQ(rig.cached[same], 63);
  // And the other way round: what a salt has computed is its own.
  const auto second = RandomPrompt(random, 64);
  std::vector<int32_t> cached;
  for (const uint64_t salt : {2, 0, 3, 2}) {
    const SequenceId id = rig.Add(second, 2, {.tenant = salt, .salt = salt});
    while (rig.Step()) {
    }
    cached.push_back(rig.cached[id]);
  }
  EXPECT_EQ(cached, (std::vector<int32_t>{0, 0, 0, 63}));
}

TEST(Scheduler, AMissNamesItsReason) {
  Rig rig(false, 12, {.max_step_tokens = 64, .max_sequences = 1});
  std::mt19937 random(9);
  const auto first = RandomPrompt(random, 64);
  const auto run = [&](const std::vector<int32_t>& prompt) {
    const SequenceId id = rig.Add(prompt, 1);
    while (rig.Step()) {
    }
    return rig.missed[id];
  };
  EXPECT_EQ(run(first).reason, MissReason::kNeverSeen);
  auto changed = first;
  changed[40] = (changed[40] + 1) % kVocab;
  const PrefixMatch diverged = run(changed);
  EXPECT_EQ(diverged.reason, MissReason::kDiverged);
  EXPECT_EQ(diverged.tokens, 40);
  EXPECT_EQ(diverged.diverged_had, first[40]);
  EXPECT_EQ(diverged.diverged_got, changed[40]);
  for (int i = 0; i < 5; ++i) run(RandomPrompt(random, 120));
  const PrefixMatch gone = run(first);
  EXPECT_EQ(gone.reason, MissReason::kEvicted) << gone.tokens << " " << rig.kv.index().nodes();
}

TEST(Scheduler, AFloodDoesNotTakeTheOthersShare) {
  Rig rig(false, 400, {.max_step_tokens = 32, .max_sequences = 2});
  std::mt19937 random(10);
  for (int i = 0; i < 40; ++i) rig.Add(RandomPrompt(random, 60), 4, {.tenant = 1, .salt = 1});
  const SequenceId quiet = rig.Add(RandomPrompt(random, 60), 4, {.tenant = 2, .salt = 2});
  int steps = 0;
  while (rig.outputs.count(quiet) == 0) {
    ASSERT_TRUE(rig.Step());
    ++steps;
  }
  EXPECT_LT(steps, 25);  // one or two of the flood are before it, not forty
}

/// Steps that a small request of tenant 1 takes beside a flood of tenant 2, whose queue is never
/// empty, after `alone` requests that it had computed before.
struct Flood {
  explicit Flood(SchedulerOptions options) : rig(false, 4000, options) {}
  SequenceId Ask(uint64_t tenant, int32_t output) {
    return rig.Add(RandomPrompt(random, 60), output, {.tenant = tenant, .salt = tenant});
  }
  void Alone(int requests) {
    for (int i = 0; i < requests; ++i) {
      const SequenceId id = Ask(1, 20);
      while (rig.outputs.count(id) == 0) rig.Step();
    }
  }
  int StepsBesideTheFlood() {
    const auto keep = [&] {
      while (rig.scheduler.waiting(2) < 8) Ask(2, 20);
    };
    keep();
    rig.Step();
    const SequenceId quiet = Ask(1, 20);
    int steps = 0;
    for (; rig.outputs.count(quiet) == 0 && steps < 2000; ++steps) {
      keep();
      rig.Step();
    }
    return steps;
  }

  std::mt19937 random{10};
  Rig rig;
};

TEST(Scheduler, WhoHadTheMachineAloneOwesNothingForIt) {
  constexpr SchedulerOptions kOptions{.max_step_tokens = 32, .max_sequences = 2};
  Flood fresh(kOptions), before(kOptions);
  before.Alone(100);
  EXPECT_LE(before.StepsBesideTheFlood(), fresh.StepsBesideTheFlood() + 5);
}

TEST(Scheduler, WhoWantedLessThanItsShareHasNoCreditForIt) {
  constexpr SchedulerOptions kOptions{.max_step_tokens = 64, .max_sequences = 4};
  const auto steps = [&](int requests) {
    Flood flood(kOptions);
    flood.Ask(2, 100'000);  // one long answer, and nothing that waits
    flood.Alone(requests);
    return flood.StepsBesideTheFlood();
  };
  EXPECT_LE(steps(100), steps(0) + 20);
}

TEST(Scheduler, WhoComputesAPrefixGoesAsEarlyAsTheMostUrgentThatWaitsForIt) {
  Rig rig(false, 4000, {.max_step_tokens = 64, .max_sequences = 16});
  std::mt19937 random(23);
  std::vector<int32_t> prompt = RandomPrompt(random, 320);
  rig.Add(prompt, 2, {.priority = 0});
  rig.Step();
  const auto keep = [&] {
    while (rig.scheduler.running() + rig.scheduler.waiting() < 8)
      rig.Add(RandomPrompt(random, 100), 2, {.priority = 5});
  };
  keep();
  prompt.push_back(3);
  const SequenceId urgent = rig.Add(prompt, 1, {.priority = 9});
  int steps = 0;
  for (; rig.outputs.count(urgent) == 0 && steps < 2000; ++steps) {
    keep();
    rig.Step();
  }
  EXPECT_LT(steps, 20);
  EXPECT_GE(rig.cached[urgent], 304) << "and it was not computed twice";
}

TEST(Scheduler, NobodyWaitsForAPrefixThatAnotherTenantsQuotaHoldsUp) {
  Rig rig(false, 400, {.max_step_tokens = 17, .max_sequences = 8});
  rig.scheduler.SetTenant(1, {.kv_blocks = 12});
  std::mt19937 random(29);
  const std::vector<int32_t> prompt = RandomPrompt(random, 150);
  // While a prompt that goes first takes the rows, one of tenant 1 comes to hold its whole quota.
  const SequenceId urgent = rig.Add(RandomPrompt(random, 3200), 1, {.tenant = 3, .priority = 5});
  rig.Add(RandomPrompt(random, 1), 800, {.tenant = 1, .priority = 6});
  rig.Step();
  const SequenceId held_up = rig.Add(prompt, 1, {.tenant = 1});
  while (rig.outputs.count(urgent) == 0) ASSERT_TRUE(rig.Step());
  ASSERT_NE(rig.scheduler.Find(held_up)->kv.id, 0u);
  ASSERT_EQ(rig.scheduler.Find(held_up)->kv.computed, 0);
  const SequenceId other = rig.Add(prompt, 1, {.tenant = 2});
  int steps = 0;
  for (; rig.outputs.count(other) == 0 && steps < 2000; ++steps) ASSERT_TRUE(rig.Step());
  EXPECT_LT(steps, 20);
}

TEST(Scheduler, SeveralTenantsFillTheMachineAsFastAsOne) {
  for (const uint64_t tenants : {1, 2, 5}) {
    Rig rig(false, 4000, {.max_step_tokens = 512, .max_sequences = 60});
    std::mt19937 random(3);
    for (uint64_t i = 0; i < 60; ++i) rig.Add(RandomPrompt(random, 8), 4, {.tenant = i % tenants});
    rig.Step();
    EXPECT_EQ(rig.scheduler.waiting(), 0u) << tenants << " tenants";
  }
}

TEST(Scheduler, PlacesAreGivenToTenantsInTurn) {
  Rig rig(false, 4000, {.max_step_tokens = 512, .max_sequences = 6});
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) rig.Add(RandomPrompt(random, 8), 4, {.tenant = 1});
  for (int i = 0; i < 20; ++i) rig.Add(RandomPrompt(random, 8), 4, {.tenant = 2});
  rig.Step();
  EXPECT_EQ(rig.scheduler.waiting(1), 17u);
  EXPECT_EQ(rig.scheduler.waiting(2), 17u);
}

TEST(Scheduler, WhoDecodesIsNotLeftOutWhereOneBeforeItIsPreempted) {
  int preempted = 0;
  for (const int32_t blocks : {18, 19, 21, 22, 24, 25}) {
    Rig rig(false, blocks, {.max_step_tokens = 3, .max_sequences = 3});
    std::mt19937 random(31);
    rig.Add(RandomPrompt(random, 200), 5, {.priority = 0});
    rig.Step();
    const SequenceId first = rig.Add(RandomPrompt(random, 1), 300, {.priority = 5});
    const SequenceId second = rig.Add(RandomPrompt(random, 1), 300, {.priority = 5});
    for (int i = 0; i < 150; ++i) {
      const uint64_t preemptions = rig.scheduler.counters().preemptions;
      const Sequence* a = rig.scheduler.Find(first);
      const Sequence* b = rig.scheduler.Find(second);
      const int32_t had_a = a->total(), had_b = b->total();
      const bool decoded = a->pending() == 1 && b->pending() == 1 && had_a > 1 && had_b > 1;
      ASSERT_TRUE(rig.Step());
      if (!decoded || rig.scheduler.counters().preemptions == preemptions || b->kv.id == 0)
        continue;
      ++preempted;
      EXPECT_EQ(a->total() - had_a, 1) << blocks;
      EXPECT_EQ(b->total() - had_b, 1) << blocks;
    }
  }
  EXPECT_GT(preempted, 0);
}

TEST(Scheduler, WhereThereAreNoPromptsNoTimeIsTheirs) {
  Rig rig(false, 4000, {.max_step_tokens = 4, .max_sequences = 16});
  std::mt19937 random(3);
  for (int i = 0; i < 16; ++i) rig.Add(RandomPrompt(random, 1), 1000);
  int64_t now = 0;
  for (int i = 0; i < 40; ++i) {
    rig.executor.Submit(rig.scheduler.Plan(now));
    now += 1'000'000;
    rig.scheduler.Commit(rig.executor.Collect(), now);
  }
  const SequenceTimes& t = rig.scheduler.TimesUntil(1, now);
  EXPECT_EQ(t.others, 0);
  EXPECT_NEAR(t.total(), 40e-3, 1e-9);
}

TEST(Scheduler, SamplesOfOnePromptShareItsBlocksAndCopyWhatTheyWrite) {
  for (const bool windows : {false, true}) {
    for (const size_t length : {40, 48}) {  // the second ends with a block
      Rig rig(windows, 100, {.max_step_tokens = 64, .max_sequences = 4});
      std::mt19937 random(11);
      rig.Add(RandomPrompt(random, length), 30, {.samples = 4});
      rig.Step();
      const auto used = [&] { return rig.kv.pool().total() - rig.kv.pool().free(); };
      const int32_t alone = used();
      rig.Step();  // each of the four writes its first token: three copies of the last block
      const int32_t groups = static_cast<int32_t>(rig.kv.layout().groups.size());
      EXPECT_EQ(used() - alone, (length == 48 ? 4 : 3) * groups) << windows << length;
      while (rig.Step()) {
      }
      EXPECT_EQ(rig.outputs.size(), 4u);
      EXPECT_EQ(rig.scheduler.running(), 0u);
    }
  }
}

TEST(Scheduler, PromptLogprobsComeForEveryTokenInOrderAndOnce) {
  std::mt19937 random(12);
  const auto prompt = RandomPrompt(random, 50);
  for (const int32_t blocks : {200, 9}) {
    Rig rig(false, blocks, {.max_step_tokens = 20, .max_sequences = 3, .max_logit_rows = 7});
    rig.Add(prompt, 4);
    while (rig.Step()) {
    }
    const SequenceId id = rig.Add(prompt, 20, {.prompt_logprobs = 0});
    rig.Add(RandomPrompt(random, 60), 20);
    const SequenceId second = rig.Add(prompt, 20, {.tenant = 1, .salt = 1, .prompt_logprobs = 0});
    while (rig.Step()) {
    }
    for (const SequenceId s : {id, second}) {
      EXPECT_EQ(rig.prompt_rows[s], std::vector<int32_t>(prompt.begin() + 1, prompt.end()));
      EXPECT_EQ(rig.cached[s], 0);
    }
  }
}

TEST(Scheduler, AQuotaBoundsATenantsBlocksAndNobodyElses) {
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 16});
  rig.scheduler.SetTenant(1, {.weight = 1, .kv_blocks = 12});
  std::mt19937 random(13);
  std::map<SequenceId, uint64_t> owner;
  for (int i = 0; i < 16; ++i) {
    const uint64_t tenant = i % 2;
    owner[rig.Add(RandomPrompt(random, 40), 40, {.tenant = tenant, .salt = tenant})] = tenant;
  }
  int64_t most[2] = {0, 0};
  int steps = 0;
  do {
    int64_t held[2] = {0, 0};
    for (const auto& [id, tenant] : owner) {
      const Sequence* s = rig.scheduler.Find(id);
      if (s == nullptr || s->kv.id == 0) continue;
      for (const BlockTable& table : s->kv.tables) held[tenant] += table.size();
    }
    for (const int t : {0, 1}) most[t] = std::max(most[t], held[t]);
    ASSERT_LT(++steps, 5000);
  } while (rig.Step());
  EXPECT_EQ(rig.outputs.size(), 16u);
  EXPECT_LE(most[1], 12);
  EXPECT_GT(most[0], 24);
}

TEST(Scheduler, AQuotaCountsABlockOnceThatSequencesShare) {
  // Six whole blocks of the prompt and one each, where the sum of what each holds is fourteen.
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 4});
  rig.scheduler.SetTenant(1, {.weight = 1, .kv_blocks = 12});
  std::mt19937 random(22);
  rig.Add(RandomPrompt(random, 100), 10, {.tenant = 1, .samples = 2});
  for (int steps = 0; rig.Step(); ++steps) ASSERT_LT(steps, 200);
  EXPECT_EQ(rig.outputs.size(), 2u);
  EXPECT_EQ(rig.scheduler.counters().preemptions, 0u);
}

TEST(Scheduler, AnOldRequestOfLowPriorityIsNotOvertakenForEver) {
  Rig rig(false, 100, {.max_step_tokens = 64, .max_sequences = 1, .max_wait_steps = 50});
  std::mt19937 random(14);
  const SequenceId low = rig.Add(RandomPrompt(random, 20), 2, {.priority = 0});
  int steps = 0;
  while (rig.outputs.count(low) == 0) {
    rig.Add(RandomPrompt(random, 20), 2, {.priority = 5});
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(++steps, 70);
  }
  EXPECT_GE(steps, 50);
}

TEST(Scheduler, ARunningPromptOfLowPriorityIsNotLeftOutForEver) {
  Rig rig(false, 2000, {.max_step_tokens = 64, .max_sequences = 8, .max_wait_steps = 50});
  std::mt19937 random(22);
  const SequenceId low = rig.Add(RandomPrompt(random, 200), 2, {.tenant = 1, .priority = 0});
  int steps = 0;
  while (rig.outputs.count(low) == 0) {
    while (rig.scheduler.running() + rig.scheduler.waiting() < 6)
      rig.Add(RandomPrompt(random, 100), 2, {.tenant = 2, .priority = 5});
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(++steps, 100);
  }
  EXPECT_GE(steps, 50);
}

TEST(Scheduler, APromptOfHigherPriorityGoesFirstAlsoWhereThereIsOneTenant) {
  Rig rig(false, 2000, {.max_step_tokens = 64, .max_sequences = 8});
  std::mt19937 random(23);
  for (int i = 0; i < 5; ++i) rig.Add(RandomPrompt(random, 500), 2);
  rig.Step();
  const SequenceId high = rig.Add(RandomPrompt(random, 50), 1, {.priority = 5});
  rig.Step();
  EXPECT_EQ(rig.outputs.count(high), 1u);
}

TEST(Scheduler, WhereMoreDecodeThanAStepHasRowsTheyTakeTurnsAndPromptsGetOn) {
  Rig rig(false, 2000, {.max_step_tokens = 12, .max_sequences = 64});
  std::mt19937 random(24);
  for (int i = 0; i < 3; ++i) rig.Add(RandomPrompt(random, 20), 60, {.samples = 16});
  while (rig.forks.size() < 45) ASSERT_TRUE(rig.Step());
  // 48 decode, 10 to 12 a step.
  std::map<SequenceId, int32_t> before;
  rig.scheduler.Visit([&](const Sequence& s) { before[s.id] = s.output_tokens(); });
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(rig.Step());
  int32_t least = INT32_MAX, most = 0;
  rig.scheduler.Visit([&](const Sequence& s) {
    const int32_t got = s.output_tokens() - before[s.id];
    least = std::min(least, got);
    most = std::max(most, got);
  });
  EXPECT_GE(least, 10);
  EXPECT_LE(most - least, 1);
  const SequenceId late = rig.Add(RandomPrompt(random, 20), 1);
  int steps = 0;
  while (rig.outputs.count(late) == 0) {
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(++steps, 15);
  }
}

TEST(Scheduler, PromptsThatDoNotFitTogetherAreComputedOnce) {
  constexpr int32_t kPrompts = 20, kLength = 320, kOutput = 16;
  for (const uint64_t tenants : {1, 4}) {
    // Room for four.
    Rig rig(false, 4 * (kLength + 2 * kOutput) / 16, {.max_step_tokens = 64, .max_sequences = 16});
    std::mt19937 random(25);
    for (int32_t i = 0; i < kPrompts; ++i)
      rig.Add(RandomPrompt(random, kLength), kOutput, {.tenant = i % tenants});
    while (rig.Step()) {
    }
    EXPECT_EQ(rig.outputs.size(), static_cast<size_t>(kPrompts));
    EXPECT_EQ(rig.scheduler.counters().preemptions, 0u) << tenants << " tenants";
    // Two that begin with the same token may share it.
    EXPECT_LE(rig.executor.computed_tokens(), kPrompts * (kLength + kOutput - 1)) << tenants;
  }
}

TEST(Scheduler, WhatAllStepsWithPromptsTakeIsNotAllTheirs) {
  // No step only decodes, so nothing was measured of what decoding alone costs.
  Rig rig(false, 4000, {.max_step_tokens = 32, .max_sequences = 4});
  std::mt19937 random(26);
  int64_t now = 0;
  const SequenceId first = rig.Add(RandomPrompt(random, 16), 100);
  for (int i = 0; i < 80; ++i) rig.Add(RandomPrompt(random, 1000), 1);
  for (int i = 0; i < 60; ++i) {
    const StepPlan& plan = rig.scheduler.Plan(now);
    rig.executor.Submit(plan);
    StepResult& result = rig.executor.Collect();
    now += 1'000'000 * plan.rows();
    rig.scheduler.Measured(1e-3 * plan.rows());
    rig.scheduler.Commit(result, now);
  }
  const SequenceTimes& times = rig.scheduler.TimesUntil(first, now);
  EXPECT_GT(times.decode, 0.02 * times.others);
}

TEST(Scheduler, ATimesCauseIsItsOwnAndTheSumIsAllTime) {
  Rig rig(false, 100, {.max_step_tokens = 32, .max_sequences = 2});
  std::mt19937 random(15);
  int64_t now = 0;
  const auto add = [&](size_t length, int32_t output) {
    auto s = std::make_unique<Sequence>();
    s->id = rig.next_id++;
    s->tokens = RandomPrompt(random, length);
    s->prompt_tokens = static_cast<int32_t>(length);
    s->max_tokens = output;
    const SequenceId id = s->id;
    rig.scheduler.Add(std::move(s), now);
    return id;
  };
  const SequenceId ids[] = {add(20, 30), add(100, 5), add(40, 5)};
  std::map<SequenceId, SequenceTimes> times;
  std::map<SequenceId, double> total;
  for (;;) {
    const StepPlan& plan = rig.scheduler.Plan(now);
    if (plan.slices.empty()) break;
    now += 1'000'000 * plan.rows();  // a step takes as long as it has rows
    rig.executor.Submit(plan);
    for (const auto& p : rig.scheduler.Commit(rig.executor.Collect(), now)) {
      if (p.sequence->output_tokens() < p.sequence->max_tokens) continue;
      const SequenceId id = p.sequence->id;
      times[id] = rig.scheduler.TimesUntil(id, now);
      total[id] = static_cast<double>(now) * 1e-9;
      rig.scheduler.Finish(id, true);
    }
  }
  for (const SequenceId id : ids) EXPECT_NEAR(times[id].total(), total[id], 1e-9) << id;
  EXPECT_NEAR(times[ids[0]].prefill, 0.020, 1e-9);
  EXPECT_GT(times[ids[0]].others, 0.088);  // 100 tokens of the second, 12 of them beside its own
  EXPECT_GT(times[ids[2]].queue, 0.1);
  EXPECT_EQ(times[ids[0]].queue, 0);
}

TEST(Scheduler, WhatIsLongerThanAStepIsComputedSomeLayersAtATime) {
  std::map<SequenceId, std::vector<int32_t>> free;
  for (const double target_ms : {0.0, 7.0, 12.0}) {
    Rig rig(true, 200,
            {.max_step_tokens = 64, .max_sequences = 4, .itl_target_s = target_ms * 1e-3});
    std::mt19937 random(16);
    for (int i = 0; i < 3; ++i) rig.Add(RandomPrompt(random, 10), 400);
    for (int i = 0; i < 8; ++i) rig.Step();
    rig.longest_ms = 0;
    // Near its end a token takes as long as five: more than the target leaves.
    const SequenceId last = rig.Add(RandomPrompt(random, 300), 5);
    int steps = 0;
    while (rig.outputs.count(last) == 0) {
      ASSERT_TRUE(rig.Step());
      ++steps;
    }
    if (target_ms == 0) {
      free = rig.outputs;
      EXPECT_GT(rig.longest_ms, 100);
      EXPECT_EQ(rig.scheduler.counters().layered, 0u);
    } else {
      EXPECT_EQ(rig.outputs.at(last), free.at(last));
      EXPECT_LT(rig.longest_ms, 1.4 * std::max(target_ms, 1.2 * 13));
      EXPECT_GT(rig.scheduler.counters().layered, static_cast<uint64_t>(steps / 4));
      EXPECT_LT(steps, 400);
    }
  }
}

TEST(Scheduler, AChunkBetweenItsLayersDoesNotWaitForThoseThatBeganToDecode) {
  Rig rig(true, 3000, {.max_step_tokens = 64, .max_sequences = 64, .itl_target_s = 7e-3});
  std::mt19937 random(18);
  for (int i = 0; i < 3; ++i) rig.Add(RandomPrompt(random, 10), 1000);
  for (int i = 0; i < 8; ++i) rig.Step();
  const SequenceId last = rig.Add(RandomPrompt(random, 300), 2);
  int steps = 0;
  while (rig.scheduler.Find(last)->layered < 2) {
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(++steps, 200);
  }
  // So many that the chunk's rows are no more in the step beside them.
  const int32_t left = 64 - 3 - rig.scheduler.Find(last)->layered;
  for (int i = 0; i < left + 1; ++i) rig.Add(RandomPrompt(random, 1), 1000);
  for (steps = 0; rig.outputs.count(last) == 0; ++steps) {
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(steps, 900) << "it waits until others have ended";
  }
  EXPECT_EQ(rig.outputs.size(), 1u);
}

TEST(Scheduler, AChunkThatIsPreemptedBetweenItsLayersBeginsAgain) {
  int between = 0;
  for (int32_t blocks = 80; blocks < 130; blocks += 2) {
    Rig rig(true, blocks, {.max_step_tokens = 64, .max_sequences = 8, .itl_target_s = 7e-3});
    std::mt19937 random(18);
    for (int i = 0; i < 3; ++i) rig.Add(RandomPrompt(random, 10), 260);
    for (int i = 0; i < 8; ++i) rig.Step();
    // The youngest: when those that decode want its room, they get it.
    const SequenceId last = rig.Add(RandomPrompt(random, 300), 2);
    for (int steps = 0; rig.outputs.size() < 4; ++steps) {
      const Sequence* s = rig.scheduler.Find(last);
      const bool layered = s != nullptr && s->layered > 0;
      const int32_t preemptions = s != nullptr ? s->preemptions : 0;
      ASSERT_TRUE(rig.Step());
      ASSERT_LT(steps, 3000);
      s = rig.scheduler.Find(last);
      if (layered && s != nullptr && s->preemptions > preemptions) ++between;
    }
  }
  EXPECT_GT(between, 0);
}

TEST(Scheduler, AWaitForAPrefixIsForWhatItsWriterComputes) {
  Rig rig(false, 100, {.max_step_tokens = 16, .max_sequences = 4});
  std::mt19937 random(19);
  std::vector<int32_t> all = RandomPrompt(random, 128);
  // The first computes four blocks, the second eight, as it wants its prompt's own rows.
  const SequenceId first = rig.Add({all.begin(), all.begin() + 64}, 200);
  rig.Add(all, 1, {.prompt_logprobs = 0});
  all.push_back(3);
  const SequenceId third = rig.Add(all, 1);
  for (int steps = 0; rig.outputs.count(third) == 0; ++steps) {
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(steps, 200);
  }
  ASSERT_NE(rig.scheduler.Find(first), nullptr);
  EXPECT_LT(rig.scheduler.Find(first)->total(), 64 + 40);
  EXPECT_EQ(rig.cached[third], 128);
}

TEST(Scheduler, OnlyStepsThatItWaitedRaiseASequence) {
  Rig rig(false, 12, {.max_step_tokens = 64, .max_sequences = 2, .max_wait_steps = 50});
  std::mt19937 random(20);
  const SequenceId low = rig.Add(RandomPrompt(random, 20), 150);
  for (int i = 0; i < 60; ++i) rig.Step();
  for (int i = 0; i < 8; ++i) rig.Add(RandomPrompt(random, 30), 100, {.priority = 5});
  int waited = 0, raised_after = 0;
  for (int steps = 0; rig.outputs.count(low) == 0; ++steps) {
    ASSERT_TRUE(rig.Step());
    ASSERT_LT(steps, 5000);
    const Sequence* s = rig.scheduler.Find(low);
    if (s == nullptr) break;
    if (s->priority == 5 && raised_after == 0) raised_after = waited;
    if (s->kv.id == 0) ++waited;
  }
  EXPECT_GE(raised_after, 49);
}

TEST(Scheduler, WhoHoldsNothingAloneIsNotPreemptedWhereAnotherGivesRoom) {
  Rig rig(false, 20, {.max_step_tokens = 100, .max_sequences = 4});
  std::mt19937 random(21);
  const SequenceId old = rig.Add(RandomPrompt(random, 16), 10);
  const SequenceId own = rig.Add(RandomPrompt(random, 4), 10);
  // Two beams that wait for their next tokens and share all their blocks.
  auto beam = std::make_unique<Sequence>();
  beam->id = rig.next_id++;
  beam->tokens = RandomPrompt(random, 20);
  beam->prompt_tokens = 20;
  beam->max_tokens = 10;
  beam->places = 2;
  beam->chosen_outside = true;
  const SequenceId first = beam->id, second = rig.next_id++;
  rig.scheduler.Add(std::move(beam));
  const auto step = [&] {
    rig.executor.Submit(rig.scheduler.Plan());
    rig.scheduler.Commit(rig.executor.Collect());
  };
  step();
  auto fork = std::make_unique<Sequence>();
  fork->id = second;
  fork->tokens = rig.scheduler.Find(first)->tokens;
  fork->prompt_tokens = 20;
  fork->max_tokens = 10;
  fork->chosen_outside = true;
  fork->answered = 20;
  rig.scheduler.Fork(first, std::move(fork));
  SequenceKv rest = rig.kv.NewSequence();
  ASSERT_TRUE(rig.kv.Grow(rest, rig.kv.pool().free() * 16));
  step();
  EXPECT_EQ(rig.scheduler.Find(old)->kv.computed, 17);
  EXPECT_EQ(rig.scheduler.Find(own)->preemptions, 1);
  EXPECT_EQ(rig.scheduler.Find(first)->preemptions, 0);
  EXPECT_EQ(rig.scheduler.Find(second)->preemptions, 0);
}

/// Requests of three tenants come, are cancelled, fork and fail, in a pool of `least` blocks or up
/// to `more` more.
void RandomTraffic(uint32_t seed, int32_t least = 20, uint32_t more = 60) {
  std::mt19937 random(seed);
  const int64_t quota = std::min(least + static_cast<int32_t>(more) / 8, 20);
  Rig rig(random() % 2 == 0, static_cast<int32_t>(static_cast<uint32_t>(least) + random() % more),
          {.max_step_tokens = static_cast<int32_t>(1 + random() % 70),
           .max_sequences = static_cast<int32_t>(1 + random() % 5),
           .itl_target_s = random() % 2 == 0 ? 0 : 1e-3 * static_cast<double>(1 + random() % 20),
           .max_logit_rows = static_cast<int32_t>(5 + random() % 20),
           .max_wait_steps = static_cast<int32_t>(1 + random() % 100)});
  const bool failing = random() % 4 == 0;
  if (failing) rig.executor.FailSometimes(seed + 1);
  if (random() % 4 == 0) rig.scheduler.SetTenant(2, {.weight = 2, .kv_blocks = quota});
  const int32_t most_samples = std::min<int32_t>(4, rig.max_sequences);
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
      const uint64_t tenant = random() % 3;
      if (tenant == 2 && need > quota) continue;
      const bool several = random() % 4 == 0, rows = random() % 8 == 0;
      alive.push_back(rig.Add(
          prompt, static_cast<int32_t>(1 + random() % 20),
          {.tenant = tenant,
           .salt = tenant / 2,
           .priority = static_cast<int32_t>(random() % 2),
           .samples = several
                          ? static_cast<int32_t>(1 + random() % static_cast<uint32_t>(most_samples))
                          : 1,
           .prompt_logprobs = rows ? 0 : -1}));
    }
    if (!alive.empty() && random() % 15 == 0) {
      rig.scheduler.Finish(alive[random() % alive.size()], random() % 2 == 0);
    }
    if (!rig.forks.empty() && random() % 20 == 0) {
      rig.scheduler.Finish(rig.forks[random() % rig.forks.size()], random() % 2 == 0);
    }
    if (random() % 50 == 0) rig.scheduler.DropCache();
    rig.Step();
    if (::testing::Test::HasFailure()) return;
  }
  int steps = 0;
  while (rig.Step()) ASSERT_LT(++steps, 5000) << "no progress, seed " << seed;
  EXPECT_EQ(rig.scheduler.running() + rig.scheduler.waiting(), 0u);
  rig.scheduler.DropCache();
  EXPECT_EQ(rig.kv.pool().free(), rig.kv.pool().total()) << "blocks leaked, seed " << seed;
}

TEST(Scheduler, RandomTrafficWithCancelsKeepsEveryInvariant) {
  const char* more = std::getenv("KVASIR_SIMULATIONS");
  const uint32_t seeds = more != nullptr ? static_cast<uint32_t>(std::atoi(more)) : 2000;
  for (uint32_t seed = 0; seed < seeds && !HasFailure(); ++seed) RandomTraffic(seed);
}

TEST(Scheduler, RandomTrafficInPoolsOfAFewBlocksComesToItsEnd) {
  for (uint32_t seed = 0; seed < 2000 && !HasFailure(); ++seed) RandomTraffic(seed, 5, 18);
}

TEST(Scheduler, ASequenceWhoseLastRoomTheCacheHoldsForItBeginsAgain) { RandomTraffic(7138); }

}  // namespace
}  // namespace kvasir
