// The default model: exactness over everything that must not matter, memory as planned, a chat.
// tools/test.sh fetches the model; see SKIP_WITHOUT_DEFAULT_MODEL.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "api/ledger.h"
#include "app/chat_history.h"
#include "app/explain_measure.h"
#include "app/generate.h"
#include "app/perplexity.h"
#include "base/memory_limits.h"
#include "base/rng.h"
#include "default_model.h"
#include "test_model.h"

namespace kvasir {
namespace {

/// Text of about `tokens` tokens that does not repeat.
std::vector<int32_t> SomeTokens(const LoadedModel& model, size_t tokens) {
  std::string text;
  for (int i = 0; static_cast<size_t>(i) < tokens; ++i) {
    text += "Entry " + std::to_string(i * 7919 % 1000) + ": the river carries " +
            std::to_string(i) + " boats. ";
  }
  std::vector<int32_t> ids = model.tokenizer().Encode(text, {.add_special = false});
  ids.resize(tokens);
  return ids;
}

class DefaultModel : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_WITHOUT_DEFAULT_MODEL(); }
};

TEST_F(DefaultModel, ChunksBlocksThreadsAndSetsOfOneArithmeticDoNotChangeABit) {
  constexpr int32_t kTokens = 230, kWanted = 3;
  std::vector<float> first;
  std::vector<Isa> isas = AvailableIsas();
  for (const Isa isa : isas) {
    // Plain C++ is slow: one configuration shows that it agrees.
    const bool slow = isa == Isa::kScalar;
    // Instructions for bf16 have arithmetics of their own.
    if (isa == Isa::kAmx || isa == Isa::kAvx512Bf16) first.clear();
    for (const int32_t block : {16, 64}) {
      for (const int threads : {1, 2}) {
        if (slow && (block != 16 || threads != 2)) continue;
        const auto model = LoadTestModel(DefaultModelPath(), {.block_tokens = block,
                                                              .step_tokens = 256,
                                                              .context = 512,
                                                              .threads = threads,
                                                              .isa = isa});
        ASSERT_NE(model, nullptr);
        const std::vector<int32_t> tokens = SomeTokens(*model, kTokens);
        for (const int32_t chunk : {kTokens, 1, 7, 32, 100}) {
          if (slow && chunk != 100) continue;
          if (chunk == 1 && (block != 16 || threads != 2)) continue;
          const std::vector<float> logits = LogitsInChunks(model.get(), tokens, chunk, kWanted);
          if (first.empty()) first = logits;
          EXPECT_TRUE(SameBits(first, logits))
              << NameOf(isa) << " block " << block << " threads " << threads << " chunk " << chunk;
        }
      }
    }
  }
}

/// Mean square of a difference, relative to the mean square of what is right.
double NormalizedError(const std::vector<float>& got, const std::vector<float>& right) {
  double error = 0, all = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(right[i]);
    error += d * d;
    all += static_cast<double>(right[i]) * static_cast<double>(right[i]);
  }
  return error / all;
}

TEST_F(DefaultModel, TheFasterModeIsExactInItselfAndNearTheOther) {
  constexpr int32_t kTokens = 150, kWanted = 3;
  const auto logits = [&](TestModelOptions options, int32_t chunk) {
    options.step_tokens = 256;
    options.context = 512;
    const auto model = LoadTestModel(DefaultModelPath(), options);
    return LogitsInChunks(model.get(), SomeTokens(*model, kTokens), chunk, kWanted);
  };
  for (const Isa isa : AvailableIsas()) {
    LoadOptions refused{.path = DefaultModelPath(), .cpu = {.isa = isa, .fast = true}};
    if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni || isa == Isa::kNeon) {
      const auto model = LoadedModel::Load(refused);
      ASSERT_FALSE(model.ok());
      EXPECT_NE(model.error().message.find("--fast"), std::string::npos);
      continue;
    }
    if (isa == Isa::kScalar) continue;  // slow; the kernels' tests compare it
    std::vector<float> first;
    for (const int threads : {1, 2}) {
      for (const int32_t chunk : {kTokens, 7, 32}) {
        const auto got = logits({.threads = threads, .isa = isa, .fast = true}, chunk);
        if (first.empty()) first = got;
        EXPECT_TRUE(SameBits(first, got)) << NameOf(isa) << " " << threads << " " << chunk;
      }
    }
    const double error = NormalizedError(first, logits({.isa = isa}, kTokens));
    EXPECT_LE(error, 0.15) << NameOf(isa);  // measured: 0.08
    EXPECT_GT(error, 0) << "the faster mode was not used";
  }
}

TEST_F(DefaultModel, StoringKeysAndValuesInFewerBitsHardlyChangesPerplexity) {
  constexpr int32_t kTokens = 1024, kWindow = 512;
  std::ifstream in(KVASIR_SOURCE_DIR "/docs/scheduling.md");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto nll = [&](KvDType dtype) {
    const auto model =
        LoadTestModel(DefaultModelPath(),
                      {.kv_dtype = dtype, .step_tokens = 128, .logit_rows = 128, .context = 512});
    std::vector<int32_t> tokens = model->tokenizer().Encode(text, {.add_special = false});
    EXPECT_GE(tokens.size(), static_cast<size_t>(kTokens));
    tokens.resize(kTokens);
    const auto result = Perplexity(model.get(), tokens, kWindow, nullptr);
    EXPECT_TRUE(result.ok());
    EXPECT_EQ(result->scored, kTokens - kTokens / kWindow);
    return result->mean_nll();
  };
  // Measured here: 1.0012 and 1.0038; on 16,000 tokens, with less chance in it, 1.0008 and 1.0007
  // (docs/exactness.md).
  const double f32 = nll(KvDType::kF32);
  EXPECT_LT(std::exp(f32), 200) << "the text is no text to this model";
  for (const auto& [dtype, most] : {std::pair{KvDType::kBF16, 1.005}, {KvDType::kInt8, 1.01}}) {
    const double ratio = std::exp(nll(dtype) - f32);
    RecordProperty("ratio_" + std::string(NameOf(dtype)), std::to_string(ratio));
    EXPECT_LE(ratio, most) << NameOf(dtype);
    EXPECT_GE(ratio, 2 - most) << NameOf(dtype);
    EXPECT_NE(ratio, 1) << "K and V were not stored as " << NameOf(dtype);
  }
}

TEST_F(DefaultModel, ABatchOfEightGivesEachSequenceTheBitsItHasAlone) {
  for (const KvDType dtype : {KvDType::kBF16, KvDType::kInt8}) {
    const auto model = LoadTestModel(
        DefaultModelPath(),
        {.kv_dtype = dtype, .step_tokens = 512, .context = 512, .kv_bytes = 64 << 20});
    ASSERT_NE(model, nullptr);
    const std::vector<int32_t> all = SomeTokens(*model, 400);
    std::vector<std::vector<int32_t>> texts;
    for (const int32_t length : {1, 5, 16, 31, 33, 64, 100, 127})
      texts.emplace_back(all.begin() + length, all.begin() + 2 * length);
    KvManager kv(model->plan().layout, model->plan().kv_blocks);
    std::vector<DirectSequence> sequences;
    std::vector<DirectSequence*> pointers;
    std::vector<SeqSlice> slices;
    for (const auto& text : texts) sequences.emplace_back(&model->executor(), &kv, text);
    for (DirectSequence& s : sequences) {
      const auto slice = s.Plan(static_cast<int32_t>(s.tokens().size()), 1);
      ASSERT_TRUE(slice.ok());
      pointers.push_back(&s);
      slices.push_back(*slice);
    }
    const auto logits = ComputeTogether(&model->executor(), kv.layout(), pointers, slices);
    const std::vector<float> together(logits.begin(), logits.end());
    const auto vocab = static_cast<size_t>(model->config().vocab);
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::vector<float> alone = LogitsInChunks(model.get(), texts[i], 512, 1);
      const std::vector<float> row(together.begin() + static_cast<ptrdiff_t>(i * vocab),
                                   together.begin() + static_cast<ptrdiff_t>((i + 1) * vocab));
      EXPECT_TRUE(SameBits(alone, row)) << NameOf(dtype) << " sequence " << i;
    }
  }
}

TEST_F(DefaultModel, ExplainFindsEqualLogitsAndADamagedKey) {
  const auto model = LoadTestModel(DefaultModelPath(), {.logit_rows = 1, .context = 64});
  ASSERT_NE(model, nullptr);
  Explainer explainer(model.get(), SomeTokens(*model, 50), &SteadyClock());
  const auto whole = explainer.Step(50);
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_TRUE(whole->logits_equal);
  EXPECT_LT(whole->with_cache.flops(), whole->without_cache.flops() / 20);
  const auto damaged = explainer.Step(50, [](const SequenceKv& kv, KvStorage& storage) {
    // The highest bit of the fraction of one channel of one cached key. (The lowest may be rounded
    // away where activations and weights of attention are bf16.)
    const TableView table = kv.tables[0].view();
    uint8_t* block = storage.block(table.blocks[0]);
    block[storage.layout->KOffset(3, 1) + 2 * storage.layout->KIndex(20, 5)] ^= 0x40;
  });
  ASSERT_TRUE(damaged.ok());
  EXPECT_FALSE(damaged->logits_equal);
}

TEST_F(DefaultModel, SaysParisAndTheSecondTurnPrefillsOnlyWhatIsNew) {
  const auto model =
      LoadTestModel(DefaultModelPath(), {.step_tokens = 512, .logit_rows = 1, .context = 1024});
  ASSERT_NE(model, nullptr);
  const auto engine = model->MakeEngine();
  ChatHistory history(model.get());
  const auto ask = [&](const std::string& text) {
    const auto prompt = history.AddUser(text, 0);
    EXPECT_TRUE(prompt.ok()) << prompt.error().message;
    const auto reply = Generate(
        engine.get(), {.prompt = *prompt, .max_tokens = 60}, [](std::string_view) { return true; },
        [](int32_t, int32_t) {});
    EXPECT_TRUE(reply.ok()) << reply.error().message;
    return *reply;
  };
  const Reply first = ask("What is the capital of France?");
  EXPECT_NE(first.text.find("Paris"), std::string::npos) << first.text;
  EXPECT_EQ(first.reason, FinishReason::kStop);
  EXPECT_EQ(first.stats.cached_tokens, 0);
  std::vector<int32_t> ids = first.ids();
  ids.pop_back();  // <|im_end|>
  history.AddReply(first.text, ids);
  const Reply second = ask("And of Italy?");
  EXPECT_EQ(second.stats.cached_tokens, first.stats.prompt_tokens + first.stats.output_tokens - 1);
  EXPECT_GT(second.stats.prompt_tokens, second.stats.cached_tokens);
}

TEST_F(DefaultModel, ASecondTurnFromTheCacheGivesTheTokensOfAColdOne) {
  const auto model =
      LoadTestModel(DefaultModelPath(), {.step_tokens = 512, .logit_rows = 1, .context = 1024});
  ASSERT_NE(model, nullptr);
  const std::vector<int32_t> text = SomeTokens(*model, 300);
  const std::vector<int32_t> begin(text.begin(), text.begin() + 180);
  const auto run = [&](Engine* engine, const std::vector<int32_t>& prompt) {
    Request request{.prompt = prompt, .max_tokens = 24};
    request.stop.end_of_generation = false;
    const auto reply = Generate(
        engine, request, [](std::string_view) { return true; }, [](int32_t, int32_t) {});
    EXPECT_TRUE(reply.ok());
    return *reply;
  };
  const auto warm_engine = model->MakeEngine();
  run(warm_engine.get(), begin);
  const Reply warm = run(warm_engine.get(), text);
  EXPECT_GE(warm.stats.cached_tokens, 180);
  warm_engine->DropCache();
  const Reply cold = run(warm_engine.get(), text);
  EXPECT_EQ(cold.stats.cached_tokens, 0);
  EXPECT_EQ(warm.ids(), cold.ids());
}

TEST_F(DefaultModel, EveryByteHasAnOwnerAfterALongMixedRun) {
  const auto model = LoadTestModel(
      DefaultModelPath(),
      {.step_tokens = 256, .logit_rows = 8, .context = 2048, .kv_bytes = uint64_t{96} << 20});
  ASSERT_NE(model, nullptr);
  const auto engine = model->MakeEngine();
  const std::vector<int32_t> text = SomeTokens(*model, 1600);
  const RandomStream random{7, 0};
  std::vector<Event> events;
  std::vector<RequestId> open;
  // Shared prefixes, several answers, cancels, more than the pool holds.
  for (uint64_t i = 0; i < 60; ++i) {
    const auto draw = [&](uint64_t k) { return random.Uniform(8 * i + k); };
    const auto first = static_cast<ptrdiff_t>(draw(0) * 4) * 100;
    const auto count = static_cast<ptrdiff_t>(20 + draw(1) * 1100);
    Request request{.prompt = {text.begin() + first, text.begin() + first + count},
                    .max_tokens = static_cast<int32_t>(1 + draw(2) * 30)};
    request.n = draw(3) < 0.2 ? 3 : 1;
    request.tenant = i % 3;
    request.sampling.temperature = 1;
    const auto id = engine->Submit(std::move(request));
    ASSERT_TRUE(id.ok()) << id.error().message;
    open.push_back(*id);
    if (draw(4) < 0.2)
      engine->Cancel(open[static_cast<size_t>(draw(5) * static_cast<double>(open.size()))]);
    for (int step = 0; step < 6; ++step) engine->Step(&events);
    events.clear();
  }
  EXPECT_GT(engine->kv().index().evicted_blocks(), 0);
  const auto check = [&](const char* when) {
    const Ledger ledger = ReadLedger(*model, ReadEngineBytes(*engine));
    EXPECT_NEAR(static_cast<double>(ledger.total()) / static_cast<double>(ledger.resident_bytes), 1,
                0.02)
        << when << "\n"
        << LedgerText(ledger);
    uint64_t weights = 0;
    for (const LedgerEntry& e : ledger.entries) weights += e.owner == "weights" ? e.bytes : 0;
    EXPECT_NEAR(static_cast<double>(weights), static_cast<double>(model->plan().weights_bytes),
                0.03 * static_cast<double>(weights));
  };
  check("while requests run");
  while (engine->Step(&events)) events.clear();
  check("when all have ended");
}

}  // namespace
}  // namespace kvasir
