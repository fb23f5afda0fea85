// How long planning a step takes, by the number of running sequences: plan_overhead prints a line
// for each. All decode; the pool has 100,000 blocks.

#include <cstdio>

#include "base/clock.h"
#include "sched/fake_executor.h"
#include "sched/scheduler.h"

int main() {
  using namespace kvasir;
  for (const int running : {16, 64, 256, 1024, 4096}) {
    KvManager kv(
        *KvLayout::Create({.window = {0, 0}, .kv_heads = 1, .head_dim = 16, .block_tokens = 16}),
        100'000);
    Scheduler scheduler({.max_step_tokens = 8192, .max_sequences = running}, &kv);
    FakeExecutor executor(kv.layout(), 100'000, 1000);
    for (int i = 0; i < running; ++i) {
      auto s = std::make_unique<Sequence>();
      s->id = static_cast<SequenceId>(i + 1);
      for (int t = 0; t < 100; ++t) s->tokens.push_back(i * 131 + t);
      s->prompt_tokens = 100;
      s->max_tokens = 1'000'000;
      scheduler.Add(std::move(s));
    }
    int64_t plan_ns = 0, commit_ns = 0, steps = 0;
    for (int step = 0; step < 260; ++step) {
      const int64_t a = SteadyClock().NowNs();
      const StepPlan& plan = scheduler.Plan();
      const int64_t b = SteadyClock().NowNs();
      executor.Submit(plan);
      StepResult& result = executor.Collect();
      const int64_t c = SteadyClock().NowNs();
      scheduler.Commit(result);
      if (static_cast<int>(plan.slices.size()) > running || step < 60) continue;
      plan_ns += b - a;
      commit_ns += SteadyClock().NowNs() - c;
      ++steps;
    }
    std::printf("%5d sequences: plan %7.1f us, commit %7.1f us\n", running,
                static_cast<double>(plan_ns) / 1e3 / static_cast<double>(steps),
                static_cast<double>(commit_ns) / 1e3 / static_cast<double>(steps));
  }
}
