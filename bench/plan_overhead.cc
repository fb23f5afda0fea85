// How long planning a step takes, by the number of running sequences: plan_overhead prints two
// lines for each, the second of a tenant whose quota is full, with as many that wait. All decode,
// after a prompt of which 1,024 tokens are shared; the pool has 200,000 blocks.

#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/clock.h"
#include "sched/fake_executor.h"
#include "sched/scheduler.h"

namespace kvasir {
namespace {

void Measure(int running, bool quota) {
  constexpr int kShared = 1024, kOwn = 100, kBlocks = 200'000;
  KvManager kv(
      *KvLayout::Create({.window = {0, 0}, .kv_heads = 1, .head_dim = 16, .block_tokens = 16}),
      kBlocks);
  Scheduler scheduler({.max_step_tokens = 8192, .max_sequences = 2 * running}, &kv);
  // What they hold at the end: 260 tokens of output.
  const int64_t blocks = kShared / 16 + int64_t{running} * ((kOwn + 260) / 16 + 1);
  if (quota) scheduler.SetTenant(0, {.kv_blocks = blocks});
  FakeExecutor executor(kv.layout(), kBlocks, 1000);
  for (int i = 0; i < (quota ? 2 * running : running); ++i) {
    auto s = std::make_unique<Sequence>();
    s->id = static_cast<SequenceId>(i + 1);
    for (int t = 0; t < kShared; ++t) s->tokens.push_back(t);
    for (int t = 0; t < kOwn; ++t) s->tokens.push_back(i * 131 + t);
    s->prompt_tokens = s->total();
    s->max_tokens = 1'000'000;
    scheduler.Add(std::move(s));
  }
  int64_t plan_ns = 0, commit_ns = 0, steps = 0;
  size_t most = 0;
  while (steps < 200) {
    const int64_t a = SteadyClock().NowNs();
    const StepPlan& plan = scheduler.Plan();
    const int64_t b = SteadyClock().NowNs();
    executor.Submit(plan);
    StepResult& result = executor.Collect();
    const int64_t c = SteadyClock().NowNs();
    const bool decoding = plan.rows() == static_cast<int32_t>(plan.slices.size());
    most = std::max(most, plan.slices.size());
    scheduler.Commit(result);
    if (!decoding) continue;
    plan_ns += b - a;
    commit_ns += SteadyClock().NowNs() - c;
    ++steps;
  }
  std::printf("%5zu sequences%s: plan %7.1f us, commit %7.1f us\n", most,
              quota ? ", quota full" : "", static_cast<double>(plan_ns) / 1e3 / 200,
              static_cast<double>(commit_ns) / 1e3 / 200);
}

}  // namespace
}  // namespace kvasir

int main() {
  for (const int running : {16, 64, 256, 1024, 4096}) {
    for (const bool quota : {false, true}) kvasir::Measure(running, quota);
  }
}
