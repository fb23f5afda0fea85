#include "server/engine_loop.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <new>
#include <utility>

#include "sched/fake_executor.h"
#include "server/byte_tokenizer.h"

namespace {

/// This thread's allocation that fails, counted from now on; negative: none.
thread_local int failing = -1;

bool Fails() { return failing >= 0 && failing-- == 0; }

}  // namespace

// Not inlined: a compiler that sees free() beside a new expression calls it a mistake.
#define KV_NOINLINE __attribute__((noinline))
KV_NOINLINE void* operator new(size_t bytes) {
  if (Fails()) throw std::bad_alloc();
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes); p != nullptr) return p;
  throw std::bad_alloc();
}
KV_NOINLINE void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return Fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
}
KV_NOINLINE void operator delete(void* p) noexcept { std::free(p); }
KV_NOINLINE void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace kvasir {
namespace {

TEST(EngineLoop, WhicheverAllocationOfASubmissionFailsItIsRefusedAndOthersGoOn) {
  const auto layout = KvLayout::Create({.window = {0, 0},
                                        .kv_heads = 1,
                                        .head_dim = 16,
                                        .block_tokens = 16,
                                        .dtype = KvDType::kF32});
  ASSERT_TRUE(layout.ok());
  const auto tokenizer = ByteTokenizer();
  const auto requests = [](size_t count) {
    Request one{.prompt = std::vector<int32_t>(20, 5), .max_tokens = 3};
    one.sampling.ignore_eos = true;
    return std::vector<Request>(count, one);
  };
  int refused = 0;
  for (int k = 0, armed = 1; armed != 0; ++k) {
    ASSERT_LT(k, 1000);
    armed = 0;
    FakeExecutor executor(*layout, 60, 256);
    std::map<uint64_t, Delivery::Kind> begun;
    std::map<uint64_t, int> ended;
    EngineLoop* loop = nullptr;
    constexpr uint64_t kOthers = 4, kShort = 9;
    EngineLoop own(std::make_unique<Engine>(
                       EngineOptions{.context = 512, .max_step_tokens = 64, .max_sequences = 16},
                       *layout, 60, &executor, tokenizer.get(), &SteadyClock()),
                   [&](std::vector<Delivery>&& deliveries, int64_t) {
                     for (const Delivery& d : deliveries) {
                       if (d.kind != Delivery::Kind::kEvent) {
                         EXPECT_TRUE(begun.emplace(d.ticket, d.kind).second);
                       } else if (d.event.last) {
                         ++ended[d.ticket];
                       }
                     }
                     size_t done = 0;
                     for (const auto& [ticket, count] : ended)
                       done += ticket != kShort && count == 1;
                     const bool all =
                         begun.at(kShort) == Delivery::Kind::kRefused || ended[kShort] == 2;
                     if (done == kOthers && all) loop->Stop();
                   });
    loop = &own;
    // All are taken from the inbox at once, before the first step.
    for (uint64_t ticket = 1; ticket <= kOthers - 1; ++ticket) own.Submit(ticket, requests(1));
    own.Call([k](Engine&) { failing = k; });
    own.Submit(kShort, requests(2));
    own.Call([&armed](Engine&) { armed = std::exchange(failing, -1) < 0 ? 1 : 0; });
    own.Submit(kOthers, requests(1));
    own.Run();
    const bool taken = begun.at(kShort) == Delivery::Kind::kAccepted;
    EXPECT_EQ(taken, armed == 0) << k;
    EXPECT_EQ(ended[kShort], taken ? 2 : 0) << k;
    refused += taken ? 0 : 1;
  }
  EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace kvasir
