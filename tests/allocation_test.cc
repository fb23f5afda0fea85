// What a step must not do: ask for memory. What it needs it keeps from the steps before.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "test_model.h"

namespace {

std::atomic<int64_t> g_allocations = 0;  // of C++, by all threads

void* Allocate(size_t bytes) {
  ++g_allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}

}  // namespace

// Not inlined: a compiler that sees free() beside a new expression calls it a mistake.
#define KV_NOINLINE __attribute__((noinline))
KV_NOINLINE void* operator new(size_t bytes) {
  if (void* p = Allocate(bytes); p != nullptr) return p;
  throw std::bad_alloc();
}
KV_NOINLINE void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return Allocate(bytes);
}
KV_NOINLINE void operator delete(void* p) noexcept { std::free(p); }
KV_NOINLINE void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace kvasir {
namespace {

std::vector<int32_t> Tokens(int32_t count, int32_t first) {
  std::vector<int32_t> out;
  for (int32_t i = 0; i < count; ++i) out.push_back((first + i * 7) % 100);
  return out;
}

TEST(Allocation, APassLikeTheOneBeforeHasNone) {
  for (const char* name : {"llama", "gemma3", "qwen3"}) {
    for (const KvDType dtype : {KvDType::kBF16, KvDType::kF16, KvDType::kF32, KvDType::kInt8}) {
      const auto model = LoadTestModel(
          Tiny(name), {.kv_dtype = dtype, .kv_bytes = uint64_t{4} << 20, .pin = true});
      ASSERT_NE(model, nullptr);
      KvManager kv(model->plan().layout, model->plan().kv_blocks);
      Executor& executor = model->executor();
      // A chunk of a prompt, and two sequences that decode; all are sampled from.
      DirectSequence chunk(&executor, &kv, Tokens(40, 0)), a(&executor, &kv, Tokens(20, 1)),
          b(&executor, &kv, Tokens(33, 2));
      ASSERT_TRUE(a.Compute(19, 0).ok());
      ASSERT_TRUE(b.Compute(32, 0).ok());
      SamplingParams greedy, sampled;
      sampled.temperature = 0.8F;
      sampled.top_k = 40;
      sampled.top_p = 0.9F;
      sampled.repetition_penalty = 1.1F;
      StepPlan plan;
      DirectSequence* const all[] = {&chunk, &a, &b};
      for (DirectSequence* s : all) {
        const auto slice = s->Plan(s == &chunk ? 40 : 1, 1);
        ASSERT_TRUE(slice.ok());
        plan.slices.push_back(*slice);
        plan.slices.back().sampling = s == &a ? &greedy : &sampled;
      }
      for (size_t g = 0; g < kv.layout().groups.size(); ++g) {
        for (const DirectSequence* s : all) plan.tables.push_back(s->kv().tables[g].view());
      }
      // The first may have some; and which thread samples which slice is chance, so a later one may
      // be the first of that kind for its thread.
      int without = 0;
      for (int pass = 0; pass < 1000 && without < 20; ++pass) {
        const int64_t before = g_allocations;
        executor.Submit(plan);
        ASSERT_EQ(executor.Collect().slices.size(), plan.slices.size());
        without = g_allocations == before ? without + 1 : 0;
      }
      EXPECT_EQ(without, 20) << name << " " << NameOf(dtype);
    }
  }
}

TEST(Allocation, AStepOfTheEngineThatOnlyDecodesWithinItsBlocksHasNone) {
  const auto model = LoadTestModel(Tiny("llama"), {.block_tokens = 64,
                                                   .step_tokens = 64,
                                                   .context = 256,
                                                   .kv_bytes = uint64_t{4} << 20,
                                                   .threads = 1});
  ASSERT_NE(model, nullptr);
  const auto engine = model->MakeEngine();
  constexpr int kRequests = 5;
  for (int i = 0; i < kRequests; ++i) {
    // 33 tokens: the array doubles before the steps that are counted.
    Request r{.prompt = Tokens(33, i), .max_tokens = 60};
    r.sampling.temperature = i % 2 == 0 ? 0.0F : 0.7F;
    r.sampling.ignore_eos = true;
    r.stop.end_of_generation = false;
    ASSERT_TRUE(engine->Submit(std::move(r)).ok());
  }
  std::vector<Event> events;
  size_t tokens = 0;
  int64_t before = 0;
  // By 10 the prompts are computed; after 28 tokens of output the next block begins.
  for (int step = 0; step < 28; ++step) {
    if (step == 18) before = g_allocations;
    ASSERT_TRUE(engine->Step(&events));
    if (step >= 18) tokens += events.size();
    events.clear();
  }
  const int64_t after = g_allocations;
  EXPECT_EQ(tokens, 10U * kRequests);
  EXPECT_EQ(after - before, 0);
}

}  // namespace
}  // namespace kvasir
