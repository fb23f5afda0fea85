// However a request meets the cache - cold, from a prefix, from within a block, in flight,
// preempted and resumed, in a batch - it gets the bits that it gets alone: tokens and log
// probabilities.

#include <gtest/gtest.h>

#include <bit>
#include <map>

#include "default_model.h"
#include "test_model.h"

namespace kvasir {
namespace {

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<uint32_t> logprob_bits;
  int32_t cached = 0;
  bool operator==(const Answer& o) const {
    return tokens == o.tokens && logprob_bits == o.logprob_bits;
  }
};

Request Ask(const std::vector<int32_t>& prompt, int32_t max_tokens) {
  Request r{.prompt = prompt, .max_tokens = max_tokens};
  r.sampling.logprobs = 0;
  r.sampling.temperature = 0.7f;
  r.sampling.seed = 5;
  r.stop.end_of_generation = false;
  return r;
}

/// Runs requests, the later ones submitted after `delay` steps each, and gives their answers in
/// order.
std::vector<Answer> RunAll(Engine* engine, const std::vector<Request>& requests, int delay) {
  std::map<RequestId, size_t> index;
  std::vector<Answer> out(requests.size());
  std::vector<Event> events;
  size_t next = 0;
  for (int step = 0; next < requests.size() || !index.empty(); ++step) {
    while (next < requests.size() && (delay == 0 || step >= static_cast<int>(next) * delay)) {
      const auto id = engine->Submit(requests[next]);
      EXPECT_TRUE(id.ok()) << id.error().message;
      if (!id.ok()) return {};
      index[*id] = next++;
    }
    engine->Step(&events);
    for (const Event& e : events) {
      Answer& a = out[index.at(e.request)];
      if (e.kind == Event::Kind::kToken) {
        a.tokens.push_back(e.token.token);
        a.logprob_bits.push_back(std::bit_cast<uint32_t>(e.token.logprob));
      } else if (e.kind == Event::Kind::kFinished) {
        EXPECT_NE(e.reason, FinishReason::kError) << e.error;
        a.cached = e.stats.cached_tokens;
        index.erase(e.request);
      }
    }
    events.clear();
    engine->kv().CheckInvariants();
  }
  return out;
}

void CheckEveryWay(const std::string& path, KvDType dtype, int32_t context, int32_t step_tokens,
                   const std::vector<int32_t>& text, int32_t max_tokens) {
  TestModelOptions options{.kv_dtype = dtype,
                           .block_tokens = 16,
                           .step_tokens = step_tokens,
                           .logit_rows = 8,
                           .context = context};
  auto model = LoadTestModel(path, options);
  ASSERT_NE(model, nullptr);
  // Room for all of them, so that what is found tells of the index and not of eviction.
  options.kv_bytes = 10 * model->plan().kv_blocks * model->plan().layout.block_bytes;
  model = LoadTestModel(path, options);
  ASSERT_NE(model, nullptr);
  // Prompts that share beginnings of every kind: whole blocks, parts of a block, everything,
  // nothing.
  std::vector<Request> requests;
  const auto size = static_cast<int32_t>(text.size());
  for (const int32_t common : {size, size - 1, size / 2, size / 2 + 3, 17, 16, 0, size}) {
    std::vector<int32_t> prompt(text.begin(), text.begin() + common);
    for (int32_t i = common; i < size - 2; ++i) prompt.push_back((text[i] + common + 1) % 250);
    requests.push_back(Ask(prompt, max_tokens));
  }
  std::vector<Answer> cold;
  for (const Request& r : requests) {
    const auto engine = model->MakeEngine();
    cold.push_back(RunAll(engine.get(), {r}, 0)[0]);
    EXPECT_EQ(cold.back().cached, 0);
  }
  const auto compare = [&](const std::vector<Answer>& got, const char* how) {
    ASSERT_EQ(got.size(), cold.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(got[i] == cold[i]) << how << ", request " << i << ", " << NameOf(dtype);
  };
  {
    const auto engine = model->MakeEngine();
    std::vector<Answer> warm;
    for (const Request& r : requests) warm.push_back(RunAll(engine.get(), {r}, 0)[0]);
    compare(warm, "one after the other");
    EXPECT_GE(warm[7].cached, size - 1) << "a whole prompt again";
    EXPECT_GE(warm[2].cached, size / 2) << "from within a block";
  }
  {
    const auto engine = model->MakeEngine();
    const std::vector<Answer> together = RunAll(engine.get(), requests, 0);
    compare(together, "all at once");
    EXPECT_GT(together[7].cached, 0) << "in flight";
    compare(RunAll(engine.get(), requests, 3), "again, arriving one by one");
  }
  {
    // A target that nothing can keep: prompts pass a layer or two at a time beside those that
    // decode.
    const auto engine = model->MakeEngine({.itl_target_s = 1e-7});
    compare(RunAll(engine.get(), requests, 2), "layer by layer");
    EXPECT_GT(engine->scheduler().counters().layered, 0u);
  }
}

std::vector<int32_t> Text(int32_t size) {
  std::vector<int32_t> text;
  for (int32_t i = 0; i < size; ++i) text.push_back((i * i * 7 + i * 13 + 5) % 250);
  return text;
}

class CacheExactness : public ::testing::TestWithParam<KvDType> {};

TEST_P(CacheExactness, TinyModelsWithAndWithoutWindows) {
  for (const char* name : {"llama", "mistral", "gemma3", "qwen3"}) {
    SCOPED_TRACE(name);
    CheckEveryWay(std::string(KVASIR_SOURCE_DIR "/tests/data/tiny/") + name + ".gguf", GetParam(),
                  64, 16, Text(45), 15);
  }
}

TEST_P(CacheExactness, PreemptedAndResumed) {
  for (const char* name : {"llama", "gemma3"}) {
    SCOPED_TRACE(name);
    const std::string path = std::string(KVASIR_SOURCE_DIR "/tests/data/tiny/") + name + ".gguf";
    std::vector<Request> requests;
    for (int i = 0; i < 8; ++i) {
      // Short, so that more are admitted than have room when their outputs have grown.
      std::vector<int32_t> prompt = Text(6);
      prompt[3] += i;
      requests.push_back(Ask(prompt, 56));
    }
    std::vector<Answer> cold;
    {
      const auto model = LoadTestModel(path, {.kv_dtype = GetParam(),
                                              .block_tokens = 16,
                                              .step_tokens = 16,
                                              .logit_rows = 8,
                                              .context = 64});
      ASSERT_NE(model, nullptr);
      for (const Request& r : requests) {
        const auto engine = model->MakeEngine();
        cold.push_back(RunAll(engine.get(), {r}, 0)[0]);
      }
    }
    // Room for about two and a half of them.
    const auto roomy = LoadTestModel(path, {.kv_dtype = GetParam(),
                                            .block_tokens = 16,
                                            .step_tokens = 16,
                                            .logit_rows = 8,
                                            .context = 64});
    const uint64_t blocks = 5 * roomy->plan().kv_blocks / 2;
    const auto model = LoadTestModel(path, {.kv_dtype = GetParam(),
                                            .block_tokens = 16,
                                            .step_tokens = 16,
                                            .logit_rows = 8,
                                            .context = 64,
                                            .kv_bytes = blocks * roomy->plan().layout.block_bytes});
    ASSERT_NE(model, nullptr);
    const auto engine = model->MakeEngine();
    const std::vector<Answer> got = RunAll(engine.get(), requests, 0);
    EXPECT_GT(engine->scheduler().counters().preemptions, 0u);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(got[i] == cold[i]) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(KvTypes, CacheExactness,
                         ::testing::Values(KvDType::kF32, KvDType::kF16, KvDType::kBF16,
                                           KvDType::kInt8));

TEST(DefaultModelCache, EveryWayGivesTheSameBits) {
  SKIP_WITHOUT_DEFAULT_MODEL();
  for (const KvDType dtype : {KvDType::kBF16, KvDType::kInt8})
    CheckEveryWay(DefaultModelPath(), dtype, 256, 64, Text(150), 12);
}

}  // namespace
}  // namespace kvasir
