// The engine over a tiny model: what a request gets, and that it gets it whoever else is there.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "test_model.h"
#include "text/detokenizer.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = LoadTestModel(KVASIR_SOURCE_DIR "/tests/data/tiny/llama.gguf", {.block_tokens = 16,
                                                                             .step_tokens = 32,
                                                                             .logit_rows = 8,
                                                                             .context = 64,
                                                                             .kv_bytes = 1 << 20});
    ASSERT_NE(model_, nullptr);
    engine_ = model_->MakeEngine();
  }

  struct Outcome {
    std::string text;
    std::vector<int32_t> tokens;
    FinishReason reason = FinishReason::kError;
    RequestStats stats;
    bool finished = false;
  };

  /// Runs all that was submitted to the end.
  std::map<RequestId, Outcome> RunAll() {
    std::map<RequestId, Outcome> out;
    std::vector<Event> events;
    while (engine_->Step(&events)) {
      for (const Event& e : events) {
        Outcome& o = out[e.request];
        EXPECT_FALSE(o.finished) << "an event after the last one";
        EXPECT_TRUE(IsValidUtf8(e.text)) << e.text;
        o.text += e.text;
        if (e.kind == Event::Kind::kToken) o.tokens.push_back(e.token.token);
        if (e.kind == Event::Kind::kFinished) {
          o.finished = true;
          o.reason = e.reason;
          o.stats = e.stats;
        }
      }
      events.clear();
    }
    return out;
  }

  Outcome RunOne(Request request) {
    const auto id = engine_->Submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.error().message;
    return RunAll()[*id];
  }

  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<Engine> engine_;
};

Request Sampled(std::vector<int32_t> prompt, uint64_t seed, int32_t max_tokens = 12) {
  Request r{.prompt = std::move(prompt), .max_tokens = max_tokens};
  r.sampling.temperature = 1.0f;
  r.sampling.seed = seed;
  r.stop.end_of_generation = false;
  return r;
}

TEST_F(EngineTest, ASeedGivesTheSameTokensInAnyBatch) {
  const Outcome alone = RunOne(Sampled({10, 20, 30}, 99));
  ASSERT_EQ(alone.tokens.size(), 12u);
  EXPECT_NE(RunOne(Sampled({10, 20, 30}, 100)).tokens, alone.tokens);
  engine_->DropCache();
  std::vector<RequestId> ids;
  for (int i = 0; i < 12; ++i) {  // more than run at once
    std::vector<int32_t> prompt(static_cast<size_t>(1 + i * 3), i + 5);
    if (i == 7) prompt = {10, 20, 30};
    const auto id = engine_->Submit(Sampled(prompt, i == 7 ? 99 : 1000 + i));
    ASSERT_TRUE(id.ok());
    ids.push_back(*id);
  }
  EXPECT_EQ(RunAll()[ids[7]].tokens, alone.tokens);
}

TEST_F(EngineTest, TheSameRequestFromTheCacheGivesTheSameTokens) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 30; ++i) prompt.push_back(i * 7 % 250);
  const Outcome cold = RunOne(Sampled(prompt, 5));
  EXPECT_EQ(cold.stats.cached_tokens, 0);
  const Outcome warm = RunOne(Sampled(prompt, 5));
  EXPECT_EQ(warm.stats.cached_tokens, 29);  // the last prompt token's logits are wanted
  EXPECT_EQ(warm.tokens, cold.tokens);
  engine_->DropCache();
  EXPECT_EQ(RunOne(Sampled(prompt, 5)).stats.cached_tokens, 0);
}

TEST_F(EngineTest, EndsForTheReasonItNames) {
  const Outcome length = RunOne(Sampled({1, 2}, 3, 5));
  EXPECT_EQ(length.reason, FinishReason::kLength);
  EXPECT_EQ(length.tokens.size(), 5u);
  const Outcome context = RunOne(Sampled({1, 2}, 3, -1));
  EXPECT_EQ(context.reason, FinishReason::kContext);
  EXPECT_EQ(context.stats.prompt_tokens + context.stats.output_tokens, 64);
  Request stop = Sampled({1, 2}, 3, 5);
  stop.stop.token_ids = {length.tokens[2]};
  const Outcome stopped = RunOne(stop);
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens.size(), 3u);
}

TEST_F(EngineTest, AStopStringAcrossTokensIsCutOutOfTheText) {
  const Outcome whole = RunOne(Sampled({7, 8, 9}, 11, 30));
  ASSERT_GT(whole.text.size(), 12u);
  Request request = Sampled({7, 8, 9}, 11, 30);
  // Four characters from the fourth on, whole ones.
  std::vector<size_t> starts;
  for (size_t i = 0; i < whole.text.size();) {
    starts.push_back(i);
    i += static_cast<size_t>(DecodeUtf8(std::string_view(whole.text).substr(i)).bytes);
  }
  ASSERT_GT(starts.size(), 8u);
  request.stop.strings = {whole.text.substr(starts[3], starts[7] - starts[3])};
  const Outcome cut = RunOne(request);
  EXPECT_EQ(cut.reason, FinishReason::kStop);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(request.stop.strings[0])));
}

TEST_F(EngineTest, NothingEndsATextBeforeMinTokens) {
  Request request = Sampled({7, 8, 9}, 11, 30);
  request.sampling.min_tokens = 12;
  const Outcome whole = RunOne(request);
  ASSERT_EQ(whole.tokens.size(), 30u);
  request.stop.token_ids = {whole.tokens[2]};
  const Outcome by_token = RunOne(request);
  ASSERT_GE(by_token.tokens.size(), 12u);
  EXPECT_EQ(std::find(by_token.tokens.begin(), by_token.tokens.begin() + 12, whole.tokens[2]),
            by_token.tokens.begin() + 12);
  // A stop string is no token: the text stays what it is, and goes on.
  request.stop.token_ids.clear();
  request.stop.strings = {whole.text.substr(0, 1)};
  const Outcome by_string = RunOne(request);
  EXPECT_GT(by_string.tokens.size(), 12u);
  EXPECT_TRUE(whole.text.starts_with(by_string.text));
  EXPECT_TRUE(std::equal(by_string.tokens.begin(), by_string.tokens.end(), whole.tokens.begin()));
  request.sampling.min_tokens = 0;
  EXPECT_EQ(RunOne(request).text, "");
}

TEST_F(EngineTest, ACancelledRequestEndsWithTheNextStepAndFreesItsBlocks) {
  const auto id = engine_->Submit(Sampled({1, 2, 3}, 1, -1)),
             other = engine_->Submit(Sampled({4, 5}, 2, 8));
  ASSERT_TRUE(id.ok() && other.ok());
  std::vector<Event> events;
  for (int i = 0; i < 3; ++i) engine_->Step(&events);
  engine_->Cancel(*id);
  engine_->Cancel(12345);  // unknown: ignored
  events.clear();
  engine_->Step(&events);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events[0].request, *id);
  EXPECT_EQ(events[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(RunAll()[*other].reason, FinishReason::kLength);
  engine_->DropCache();
  EXPECT_EQ(engine_->kv().pool().free(), engine_->kv().pool().total());
}

TEST_F(EngineTest, RefusesWithNumbers) {
  const auto message = [&](const Request& r) {
    const auto id = engine_->Submit(r);
    return id.ok() ? std::string() : id.error().message;
  };
  EXPECT_NE(message({.prompt = {}}).find("no tokens"), std::string::npos);
  EXPECT_NE(message({.prompt = std::vector<int32_t>(64, 1)}).find("64"), std::string::npos);
  EXPECT_NE(message({.prompt = {288}}).find("288"), std::string::npos);
  EXPECT_NE(message({.prompt = {-1}}).find("-1"), std::string::npos);
  EXPECT_NE(message({.prompt = {1}, .max_tokens = 0}).find("max_tokens"), std::string::npos);
  std::vector<Event> events;
  EXPECT_FALSE(engine_->Step(&events));
}

TEST_F(EngineTest, ThePromptsProgressIsTold) {
  ASSERT_TRUE(engine_->Submit(Sampled(std::vector<int32_t>(50, 3), 1, 2)).ok());
  std::vector<Event> events;
  engine_->Step(&events);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events[0].kind, Event::Kind::kPrefill);
  EXPECT_EQ(events[0].prefill_done, 32);
  EXPECT_EQ(events[0].prefill_total, 50);
}

/// Without the beginning of a character at its end.
std::string WithoutUnfinished(std::string text) {
  for (size_t bytes = 1; bytes <= 3 && bytes <= text.size(); ++bytes) {
    const std::string_view end = std::string_view(text).substr(text.size() - bytes);
    const Utf8Char c = DecodeUtf8(end);
    if (!c.truncated) continue;
    text.resize(text.size() - bytes);
    break;
  }
  return text;
}

TEST(Detokenizer, NeverShowsHalfACharacter) {
  for (const char* name : {"llama", "gemma3"}) {
    const auto model =
        OpenModel(std::string(KVASIR_SOURCE_DIR "/tests/data/tiny/") + name + ".gguf");
    ASSERT_TRUE(model.ok());
    const Tokenizer& t = *model->tokenizer;
    uint32_t state = 3;
    for (int round = 0; round < 300; ++round) {
      std::vector<TokenId> ids;
      std::string text = round % 3 == 0 ? "Zürich 中文 😀 и" : "";
      for (const TokenId id : t.Encode(text, {.add_special = false})) ids.push_back(id);
      for (int i = 0; i < 12; ++i) {
        state = state * 1664525u + 1013904223u;
        ids.push_back(static_cast<TokenId>((state >> 8) % static_cast<uint32_t>(t.vocab_size())));
      }
      Detokenizer detokenizer(t, true);
      std::string shown;
      for (const TokenId id : ids) {
        const std::string part = detokenizer.Push(id);
        EXPECT_TRUE(IsValidUtf8(part));
        shown += part;
      }
      EXPECT_EQ(shown, ReplaceInvalidUtf8(WithoutUnfinished(t.Decode(ids, true))));
    }
  }
}

}  // namespace
}  // namespace kvasir
