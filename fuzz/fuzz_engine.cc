// The scheduler and the KV manager under requests, cancels, tenants and failures, with a model
// whose next token is a hash of the K and V it was given: every request must get what it would
// alone.
#include <map>

#include "base/clock.h"
#include "engine/engine.h"
#include "fuzz_input.h"
#include "fuzz_models.h"
#include "sched/fake_executor.h"

namespace kvasir {
namespace {

struct StepClock final : Clock {
  int64_t NowNs() const override { return now; }
  mutable int64_t now = 1;
};

struct Asked {
  std::vector<int32_t> tokens;
  int32_t got = 0;
  bool cancelled = false;
};

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const OpenedModel* const model = OpenTinyModel("llama");
  FuzzInput in(data, size);
  const bool windowed = in.Byte() % 2 == 1;
  const auto blocks = static_cast<int32_t>(8 + in.Below(24));
  const auto places = static_cast<int32_t>(1 + in.Below(6));
  const KvLayout layout = *KvLayout::Create(
      {.window = windowed ? std::vector<int32_t>{0, 24} : std::vector<int32_t>{0, 0},
       .kv_heads = 1,
       .head_dim = 16,
       .block_tokens = 16,
       .dtype = KvDType::kF32});
  const int32_t vocab = model->tokenizer->vocab_size();
  FakeExecutor executor(layout, blocks, vocab);
  StepClock clock;
  Engine engine({.context = 128,
                 .max_step_tokens = static_cast<int32_t>(8 + in.Below(40)),
                 .max_sequences = places,
                 .max_waiting = 20},
                layout, blocks, &executor, model->tokenizer.get(), &clock);
  std::map<RequestId, Asked> asked;
  std::vector<RequestId> ids;
  const auto step = [&] {
    std::vector<Event> events;
    const bool more = engine.Step(&events);
    clock.now += 1'000'000;
    for (const Event& e : events) {
      Asked& a = asked.at(e.request);
      if (e.kind == Event::Kind::kToken) {
        CHECK_EQ(e.token.token, executor.Expected(a.tokens));
        a.tokens.push_back(e.token.token);
        ++a.got;
      } else if (e.kind == Event::Kind::kFinished) {
        CHECK(e.last);
        CHECK_EQ(e.stats.output_tokens, a.got);
        CHECK(a.cancelled || e.reason == FinishReason::kLength ||
              e.reason == FinishReason::kContext || e.reason == FinishReason::kDeadline);
        asked.erase(e.request);
      }
    }
    engine.kv().CheckInvariants();
    return more;
  };
  while (!in.empty()) {
    switch (in.Below(8)) {
      case 0:
      case 1: {
        Request r;
        const uint32_t length = 1 + in.Below(100);
        const uint8_t kind = in.Byte(), differs = in.Byte();
        for (uint32_t i = 0; i < length; ++i)
          r.prompt.push_back(i == differs ? kind : static_cast<int32_t>((kind % 3) * 50 + i % 40));
        r.max_tokens = static_cast<int32_t>(1 + in.Below(24));
        r.sampling.ignore_eos = true;
        r.stop.end_of_generation = false;
        r.tenant = in.Below(3);
        r.salt = r.tenant % 2;
        r.priority = static_cast<int32_t>(in.Below(3));
        if (in.Byte() % 16 == 0) r.deadline_s = 0.01;
        Asked a{.tokens = r.prompt};
        const auto id = engine.Submit(std::move(r));
        if (!id.ok()) {
          CheckMessage(id.error().message);
          break;
        }
        asked.emplace(*id, std::move(a));
        ids.push_back(*id);
        break;
      }
      case 2:
        if (!ids.empty()) {
          const RequestId id = ids[in.Below(static_cast<uint32_t>(ids.size()))];
          engine.Cancel(id);
          if (const auto it = asked.find(id); it != asked.end()) it->second.cancelled = true;
        }
        break;
      case 3:
        engine.SetTenant(in.Below(3),
                         {.weight = 1.0 + in.Below(4), .kv_blocks = in.Below(2) == 0 ? 0 : blocks});
        break;
      case 4:
        if (in.Byte() % 8 == 0) engine.DropCache();
        break;
      default:
        step();
    }
  }
  // With nobody new all end, within a bounded number of steps.
  int steps = 0;
  while (step()) CHECK_LT(++steps, 20'000);
  CHECK(asked.empty());
  CHECK_EQ(engine.kv().pool().free() + engine.kv().index().idle_blocks(),
           static_cast<int64_t>(blocks));
  engine.DropCache();
  CHECK_EQ(engine.kv().pool().free(), blocks);
  return 0;
}
