// Several answers to one prompt on shared blocks - samples and beams - and what else a request may
// ask for: the same bits as without sharing.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <map>

#include "engine/beam_search.h"
#include "sample/sampler.h"
#include "test_model.h"

namespace kvasir {
namespace {

std::vector<int32_t> Text(int32_t size) {
  std::vector<int32_t> text;
  for (int32_t i = 0; i < size; ++i) text.push_back((i * i * 5 + i * 17 + 3) % 250);
  return text;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<uint32_t> logprob_bits;
  FinishReason reason = FinishReason::kError;
  double score = 0;
  RequestStats stats;
};

struct Answers {
  std::map<int32_t, Answer> choices;
  std::vector<SampledToken> prompt;
  int ended = 0;  // how often it was said that nothing more comes
};

/// Runs all that was submitted to the end.
std::map<RequestId, Answers> RunAll(Engine* engine) {
  std::map<RequestId, Answers> out;
  std::vector<Event> events;
  while (engine->Step(&events)) {
    for (Event& e : events) {
      Answers& all = out[e.request];
      EXPECT_EQ(all.ended, 0) << "an event after the last one";
      if (e.kind == Event::Kind::kPrefill) {
        for (SampledToken& t : e.prompt_logprobs) all.prompt.push_back(std::move(t));
        continue;
      }
      Answer& a = all.choices[e.choice];
      if (e.kind == Event::Kind::kToken) {
        a.tokens.push_back(e.token.token);
        a.logprob_bits.push_back(std::bit_cast<uint32_t>(e.token.logprob));
        continue;
      }
      EXPECT_NE(e.reason, FinishReason::kError) << e.error;
      a.reason = e.reason;
      a.score = e.beam_score;
      a.stats = e.stats;
      all.ended += e.last ? 1 : 0;
    }
    events.clear();
    engine->kv().CheckInvariants();
  }
  for (const auto& [id, all] : out) EXPECT_EQ(all.ended, 1);
  return out;
}

Answers RunOne(Engine* engine, Request request) {
  const auto id = engine->Submit(std::move(request));
  EXPECT_TRUE(id.ok()) << id.error().message;
  return id.ok() ? RunAll(engine)[*id] : Answers();
}

Request Sampled(int32_t prompt, int32_t max_tokens) {
  Request r{.prompt = Text(prompt), .max_tokens = max_tokens};
  r.sampling.temperature = 20;  // the tiny models are very sure of themselves
  r.sampling.seed = 21;
  r.sampling.logprobs = 0;
  r.stop.end_of_generation = false;
  return r;
}

TEST(Choices, ManySequencesSampledOnManyThreadsHaveTheTokensOfEachAlone) {
  const auto model = LoadTestModel(Tiny("llama"), {.block_tokens = 16,
                                                   .step_tokens = 64,
                                                   .logit_rows = 32,
                                                   .context = 128,
                                                   .kv_bytes = 16 << 20,
                                                   .threads = 4});
  ASSERT_NE(model, nullptr);
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 24; ++i) {
    requests.push_back(Sampled(5, 40));
    SamplingParams& p = requests.back().sampling;
    p.seed = i;
    p.top_p = i % 3 == 0 ? 1.0f : 0.9f;
    p.top_k = i % 4 == 0 ? 30 : 0;
    p.repetition_penalty = i % 2 == 0 ? 1.0f : 1.2f;
    p.logprobs = 3;
  }
  std::vector<Answer> alone;
  for (const Request& r : requests) {
    const auto quiet = model->MakeEngine();
    alone.push_back(RunOne(quiet.get(), r).choices[0]);
  }
  // Threads that get in each other's way do so not every time.
  for (int round = 0; round < 20; ++round) {
    const auto engine = model->MakeEngine();
    std::vector<RequestId> ids;
    for (const Request& r : requests) ids.push_back(*engine->Submit(r));
    const auto together = RunAll(engine.get());
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(together.at(ids[i]).choices.at(0).tokens, alone[i].tokens) << i;
      EXPECT_EQ(together.at(ids[i]).choices.at(0).logprob_bits, alone[i].logprob_bits) << i;
    }
  }
}

TEST(Choices, EachOfNIsTheSampleThatItsStreamGivesAlone) {
  for (const char* name : {"llama", "gemma3"}) {
    for (const int32_t prompt : {20, 32}) {  // the second ends with a block
      // A pool for all, and one for about two of five.
      for (const double room : {10.0, 1.5}) {
        SCOPED_TRACE(fmt::format("{} {} {}", name, prompt, room));
        TestModelOptions options{
            .block_tokens = 16, .step_tokens = 16, .logit_rows = 8, .context = 64};
        const auto roomy = LoadTestModel(Tiny(name), options);
        ASSERT_NE(roomy, nullptr);
        options.kv_bytes = static_cast<uint64_t>(roomy->plan().kv_blocks * room) *
                           roomy->plan().layout.block_bytes;
        const auto model = LoadTestModel(Tiny(name), options);
        ASSERT_NE(model, nullptr);
        Request request = Sampled(prompt, 30);
        std::vector<Answer> alone;
        for (uint32_t i = 0; i < 5; ++i) {
          const auto engine = model->MakeEngine();
          Request one = request;
          one.sampling.stream = i;
          alone.push_back(RunOne(engine.get(), one).choices[0]);
        }
        EXPECT_NE(alone[0].tokens, alone[1].tokens);
        const auto engine = model->MakeEngine();
        request.n = 5;
        const Answers together = RunOne(engine.get(), request);
        ASSERT_EQ(together.choices.size(), 5u);
        for (int32_t i = 0; i < 5; ++i) {
          EXPECT_EQ(together.choices.at(i).tokens, alone[i].tokens) << i;
          EXPECT_EQ(together.choices.at(i).logprob_bits, alone[i].logprob_bits) << i;
        }
        if (room < 5) {
          EXPECT_GT(engine->scheduler().counters().preemptions, 0u);
        }
        engine->DropCache();
        EXPECT_EQ(engine->kv().pool().free(), engine->kv().pool().total());
      }
    }
  }
}

/// Beam search that computes every hypothesis from its first token on, each time.
std::vector<Answer> NaiveBeams(LoadedModel* model, const Request& request, int32_t end_token) {
  struct Beam {
    std::vector<int32_t> tokens;
    double logprob = 0;
  };
  SamplerScratch scratch;
  std::vector<Beam> live(1);
  std::vector<Answer> complete;
  const auto add = [&](const std::vector<int32_t>& tokens, double logprob, bool end) {
    Answer a;
    a.tokens = tokens;
    a.score = logprob / std::pow(std::max<double>(1, static_cast<double>(tokens.size()) - end),
                                 request.length_penalty);
    a.reason = end ? FinishReason::kStop : FinishReason::kLength;
    complete.push_back(a);
  };
  for (int32_t step = 0; step < request.max_tokens; ++step) {
    std::vector<Beam> next;
    for (const Beam& beam : live) {
      std::vector<int32_t> all = request.prompt;
      all.insert(all.end(), beam.tokens.begin(), beam.tokens.end());
      const std::vector<float> logits = LogitsInChunks(model, all, 16, 1);
      const auto scored = Score(logits, 0, 2 * request.beam_width, scratch);
      for (const TokenLogprob& t : scored->top) {
        next.push_back(beam);
        next.back().tokens.push_back(t.token);
        next.back().logprob += t.logprob;
      }
    }
    std::stable_sort(next.begin(), next.end(),
                     [](const Beam& a, const Beam& b) { return a.logprob > b.logprob; });
    live.clear();
    for (const Beam& b : next) {
      if (live.size() == static_cast<size_t>(request.beam_width)) break;
      if (b.tokens.back() == end_token) {
        add(b.tokens, b.logprob, true);
      } else {
        live.push_back(b);
      }
    }
  }
  for (const Beam& b : live) add(b.tokens, b.logprob, false);
  std::stable_sort(complete.begin(), complete.end(),
                   [](const Answer& a, const Answer& b) { return a.score > b.score; });
  return complete;
}

TEST(Choices, BeamsFindWhatASearchWithoutAnyCacheFinds) {
  int ended = 0;
  for (const char* name : {"llama", "gemma3"}) {
    for (const double room : {10.0, 1.5}) {
      TestModelOptions options{
          .block_tokens = 16, .step_tokens = 16, .logit_rows = 8, .context = 64};
      const auto roomy = LoadTestModel(Tiny(name), options);
      options.kv_bytes =
          static_cast<uint64_t>(roomy->plan().kv_blocks * room) * roomy->plan().layout.block_bytes;
      const auto model = LoadTestModel(Tiny(name), options);
      ASSERT_NE(model, nullptr);
      for (const float penalty : {1.0f, 0.0f}) {
        Request request{.prompt = Text(23), .max_tokens = 20};
        request.n = 3;
        request.beam_width = 4;
        request.length_penalty = penalty;
        request.stop.end_of_generation = false;
        // An end token that is likely somewhere: the third of the greedy answer.
        {
          const auto engine = model->MakeEngine();
          Request greedy = request;
          greedy.n = 1;
          greedy.beam_width = 0;
          request.stop.token_ids = {RunOne(engine.get(), greedy).choices[0].tokens[4]};
        }
        const std::vector<Answer> naive =
            NaiveBeams(model.get(), request, request.stop.token_ids[0]);
        const auto engine = model->MakeEngine();
        const Answers got = RunOne(engine.get(), request);
        ASSERT_EQ(got.choices.size(), 3u);
        for (int32_t i = 0; i < 3; ++i) {
          EXPECT_EQ(got.choices.at(i).tokens, naive[i].tokens)
              << name << " " << room << " " << penalty << " " << i;
          EXPECT_EQ(got.choices.at(i).reason, naive[i].reason);
          EXPECT_NEAR(got.choices.at(i).score, naive[i].score, 1e-9);
          ended += naive[i].reason == FinishReason::kStop ? 1 : 0;
        }
        engine->DropCache();
        EXPECT_EQ(engine->kv().pool().free(), engine->kv().pool().total());
      }
    }
  }
  EXPECT_GT(ended, 0);
}

/// One beam's tokens, the first the most likely.
std::vector<TokenLogprob> Offer(const std::vector<int32_t>& tokens) {
  std::vector<TokenLogprob> offer;
  for (const int32_t t : tokens) offer.push_back({t, -0.5f * static_cast<float>(offer.size() + 1)});
  return offer;
}

TEST(BeamSearch, OffersItsBeamsAsTheyWereWhereNothingCanFollow) {
  BeamSearch search({.width = 1, .max_tokens = 9, .end_tokens = {5}, .passed_over = {5, 6}});
  std::vector<std::vector<TokenLogprob>> offers = {Offer({5, 7, 6, 8})};
  EXPECT_EQ(search.Advance(offers).size(), 1u);
  offers = {Offer({6, 5})};
  EXPECT_TRUE(search.Advance(offers).empty());
  const auto best = search.Best(1);
  ASSERT_EQ(best.size(), 1u);
  ASSERT_EQ(best[0].tokens.size(), 1u);
  EXPECT_EQ(best[0].tokens[0].token, 7);
  EXPECT_TRUE(best[0].ended);
}

TEST(BeamSearch, KeepsNoMoreHypothesesThanItHasBeams) {
  // Each step every beam offers more end tokens than there are beams, none of which can win.
  constexpr int32_t kWidth = 8, kSteps = 200;
  BeamSearch search({.width = kWidth,
                     .length_penalty = 4,
                     .max_tokens = kSteps,
                     .end_tokens = {1, 2, 3, 4, 5, 6, 7, 8}});
  size_t beams = 1;
  for (int32_t step = 0; step + 1 < kSteps; ++step) {
    const std::vector<std::vector<TokenLogprob>> offers(
        beams, Offer({1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17}));
    beams = search.Advance(offers).size();
    ASSERT_GT(beams, 0u);
    ASSERT_EQ(search.Best(100).size(), static_cast<size_t>(kWidth));
  }
  // Twice the tokens: of those that live and those that are complete. Vectors grow by doubling.
  EXPECT_LT(search.bytes(), 2 * 2 * kWidth * (kSteps * sizeof(SampledToken) + 100));
}

TEST(Choices, PromptLogprobsAreThoseOfTheWholePromptWhateverIsCached) {
  const auto model = LoadTestModel(
      Tiny("llama"),
      {.block_tokens = 16, .step_tokens = 16, .logit_rows = 5, .context = 64, .kv_bytes = 1 << 20});
  ASSERT_NE(model, nullptr);
  Request request = Sampled(45, 4);
  const auto vocab = static_cast<size_t>(model->config().vocab);
  std::vector<SampledToken> expected;
  SamplerScratch scratch;
  for (int32_t i = 0; i + 1 < 45; ++i) {
    const std::vector<int32_t> head(request.prompt.begin(), request.prompt.begin() + i + 1);
    const std::vector<float> logits = LogitsInChunks(model.get(), head, 16, 1);
    ASSERT_EQ(logits.size(), vocab);
    expected.push_back(*Score(logits, request.prompt[i + 1], 2, scratch));
  }
  const auto engine = model->MakeEngine();
  const Answers plain = RunOne(engine.get(), request);
  EXPECT_TRUE(plain.prompt.empty());
  request.prompt_logprobs = 2;
  const Answers got = RunOne(engine.get(), request);
  EXPECT_EQ(got.choices.at(0).tokens, plain.choices.at(0).tokens);
  ASSERT_EQ(got.prompt.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(got.prompt[i].token, expected[i].token);
    EXPECT_EQ(std::bit_cast<uint32_t>(got.prompt[i].logprob),
              std::bit_cast<uint32_t>(expected[i].logprob))
        << i;
    ASSERT_EQ(got.prompt[i].top.size(), 2u);
    for (size_t t = 0; t < 2; ++t) EXPECT_EQ(got.prompt[i].top[t].token, expected[i].top[t].token);
  }
}

class ManualClock final : public Clock {
 public:
  int64_t NowNs() const override { return now += 1'000'000; }
  mutable int64_t now = 0;
};

/// Answers what a test says, without a model.
class ScriptedExecutor final : public Executor {
 public:
  /// The most likely tokens after a slice's, best first.
  std::function<std::vector<TokenLogprob>(const SeqSlice&)> offer;
  std::optional<Error> error;  ///< of every step

  void Submit(const StepPlan& plan) override { plan_ = &plan; }
  StepResult& Collect() override {
    result_ = {.step = plan_->step, .slices = {}, .error = error, .work = {}, .logits = {}};
    int32_t rows = 0;
    for (const SeqSlice& s : plan_->slices) {
      rows += s.wanted_end - s.wanted_begin;
      if (s.sampling == nullptr || error) continue;
      SampledToken token{.token = 0, .logprob = 0, .top = offer(s)};
      token.token = token.top.front().token;
      result_.slices.push_back(
          {.sequence = s.sequence,
           .tokens = std::vector<SampledToken>(static_cast<size_t>(s.samples), token),
           .prompt_logprobs = {},
           .error = {}});
    }
    most_rows_ = std::max(most_rows_, rows);
    return result_;
  }
  int32_t most_rows() const { return most_rows_; }

 private:
  const StepPlan* plan_ = nullptr;
  int32_t most_rows_ = 0;
  StepResult result_;
};

struct Limits {
  int32_t max_sequences = 2;
  int64_t max_waiting = 0;
  Executor* executor = nullptr;  // nullptr: the model's
  std::vector<int32_t> end_of_generation;
};

std::unique_ptr<Engine> MakeEngine(LoadedModel* model, const Clock* clock, const Limits& limits) {
  return std::make_unique<Engine>(EngineOptions{.context = 64,
                                                .max_step_tokens = 16,
                                                .max_sequences = limits.max_sequences,
                                                .max_waiting = limits.max_waiting,
                                                .end_of_generation = limits.end_of_generation},
                                  model->plan().layout, model->plan().kv_blocks,
                                  limits.executor != nullptr ? limits.executor : &model->executor(),
                                  &model->tokenizer(), clock);
}

class EngineLimits : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = LoadTestModel(Tiny("llama"), {.block_tokens = 16,
                                           .step_tokens = 16,
                                           .logit_rows = 8,
                                           .context = 64,
                                           .kv_bytes = 1 << 20});
    ASSERT_NE(model_, nullptr);
  }
  std::unique_ptr<LoadedModel> model_;
  ManualClock clock_;
};

TEST_F(EngineLimits, ADeadlineEndsARequestRunningOrWaiting) {
  const auto engine = MakeEngine(model_.get(), &clock_, {.max_sequences = 1});
  Request late = Sampled(20, 40);
  late.deadline_s = 0.03;
  const auto running = engine->Submit(late), waiting = engine->Submit(late);
  Request calm = Sampled(20, 5);
  const auto other = engine->Submit(calm);
  ASSERT_TRUE(running.ok() && waiting.ok() && other.ok());
  auto out = RunAll(engine.get());
  EXPECT_EQ(out[*running].choices[0].reason, FinishReason::kDeadline);
  EXPECT_FALSE(out[*running].choices[0].tokens.empty());
  EXPECT_EQ(out[*waiting].choices[0].reason, FinishReason::kDeadline);
  EXPECT_TRUE(out[*waiting].choices[0].tokens.empty());
  EXPECT_EQ(out[*other].choices[0].reason, FinishReason::kLength);
}

/// Why each choice of the one request ended, once `engine` has nothing more to do.
std::map<int32_t, FinishReason> Ends(Engine* engine) {
  std::map<int32_t, FinishReason> ends;
  std::vector<Event> events;
  int lasts = 0;
  bool more = true;
  for (int steps = 0; more; ++steps) {
    if (steps > 1000) {
      ADD_FAILURE() << "it never ends";
      break;
    }
    more = engine->Step(&events);
    for (const Event& e : events) {
      if (e.kind != Event::Kind::kFinished) continue;
      EXPECT_TRUE(ends.emplace(e.choice, e.reason).second) << "choice " << e.choice;
      lasts += e.last ? 1 : 0;
    }
    events.clear();
  }
  EXPECT_EQ(lasts, 1);
  return ends;
}

TEST_F(EngineLimits, EveryChoiceEndsThoughTheRequestEndsBeforeTheFirstToken) {
  using Ended = std::map<int32_t, FinishReason>;
  const auto all = [](FinishReason reason) { return Ended{{0, reason}, {1, reason}, {2, reason}}; };
  for (const int32_t beams : {0, 3}) {
    SCOPED_TRACE(beams);
    ScriptedExecutor failing;
    failing.error = MakeError(ErrorCode::kIo, "as planned");
    Request r{.prompt = Text(40), .max_tokens = 20};
    r.n = 3;
    r.beam_width = beams;
    const auto engine = MakeEngine(model_.get(), &clock_, {.max_sequences = 3});
    const auto cancelled = engine->Submit(r);
    ASSERT_TRUE(cancelled.ok());
    engine->Cancel(*cancelled);
    EXPECT_EQ(Ends(engine.get()), all(FinishReason::kCancelled));
    const auto failed =
        MakeEngine(model_.get(), &clock_, {.max_sequences = 3, .executor = &failing});
    ASSERT_TRUE(failed->Submit(r).ok());
    EXPECT_EQ(Ends(failed.get()), all(FinishReason::kError));
    r.deadline_s = 0.001;
    ASSERT_TRUE(engine->Submit(r).ok());
    EXPECT_EQ(Ends(engine.get()), all(FinishReason::kDeadline));
  }
}

TEST_F(EngineLimits, ABeamSearchEndsWhereEveryCandidateEndsTheText) {
  using Ended = std::map<int32_t, FinishReason>;
  ScriptedExecutor script;
  script.offer = [](const SeqSlice& s) {
    return Offer(s.sampling->logprobs > 2 ? std::vector<int32_t>{5, 6, 7, 8}
                                          : std::vector<int32_t>{5, 6});
  };
  const auto engine =
      MakeEngine(model_.get(), &clock_, {.executor = &script, .end_of_generation = {5, 6}});
  Request r{.prompt = Text(3), .max_tokens = 4};
  r.beam_width = 1;
  r.deadline_s = 0.5;
  r.sampling.ignore_eos = true;
  // The request's own stop tokens end it, as they end samples.
  Request stopped = r;
  stopped.stop.token_ids = {8, 7};
  ASSERT_TRUE(engine->Submit(stopped).ok());
  EXPECT_EQ(Ends(engine.get()), (Ended{{0, FinishReason::kStop}}));
  // The model's are passed over, and there is always something to go on with.
  ASSERT_TRUE(engine->Submit(r).ok());
  EXPECT_EQ(Ends(engine.get()), (Ended{{0, FinishReason::kLength}}));
  // And where the executor offers nothing else, the request still ends.
  script.offer = [](const SeqSlice&) { return Offer({5, 6}); };
  ASSERT_TRUE(engine->Submit(r).ok());
  EXPECT_EQ(Ends(engine.get()), (Ended{{0, FinishReason::kStop}}));
}

TEST_F(EngineLimits, BeamsThatBecameFewerBecomeAsManyAgainThoughOthersWait) {
  // Of the second tokens all but the first beam's first end the text: one beam is left of four.
  constexpr int32_t kPrompt = 3;
  ScriptedExecutor script;
  script.offer = [](const SeqSlice& s) {
    std::vector<int32_t> tokens = {10, 11, 12, 13, 14, 15, 16, 17};
    if (s.sampling->logprobs > 0 && s.tokens.size() == kPrompt + 1) {
      for (int32_t& t : tokens) t += 10;
      if (s.tokens.back() == 10) tokens[0] = 10;
    }
    return Offer(tokens);
  };
  const auto engine = MakeEngine(model_.get(), &clock_, {.max_sequences = 4, .executor = &script});
  Request beams{.prompt = Text(kPrompt), .max_tokens = 10};
  beams.beam_width = 4;
  beams.length_penalty = 10;
  beams.stop.token_ids = {20, 21, 22, 23, 24, 25, 26, 27};
  const auto id = engine->Submit(beams);
  ASSERT_TRUE(id.ok());
  for (int32_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(engine->Submit({.prompt = {30 + i, 4, 7}, .max_tokens = 20}).ok());
  }
  std::vector<Event> events;
  for (bool ended = false; engine->Step(&events); events.clear()) {
    for (const Event& e : events) ended |= e.request == *id && e.last;
    // Whoever waits for a place gets none of those that the request may still need.
    if (!ended) {
      EXPECT_EQ(engine->scheduler().waiting(), 6u);
    }
    ASSERT_LE(engine->scheduler().running(), 4u);
  }
  EXPECT_EQ(script.most_rows(), 4);
}

TEST_F(EngineLimits, BeamsThatLoseLeaveNothingInTheCache) {
  ScriptedExecutor script;
  script.offer = [](const SeqSlice& s) {
    std::vector<TokenLogprob> offer = Offer({10, 11, 12, 13, 14, 15});
    uint64_t hash = 1;
    for (const int32_t t : s.tokens) hash = hash * 6364136223846793005u + static_cast<uint32_t>(t);
    for (TokenLogprob& o : offer) {
      hash = hash * 6364136223846793005u + 1442695040888963407u;
      o.logprob = -static_cast<float>(hash >> 40) / (1 << 24);
    }
    std::sort(offer.begin(), offer.end(),
              [](const auto& a, const auto& b) { return a.logprob > b.logprob; });
    return offer;
  };
  for (const int32_t n : {1, 3}) {
    // Without and with texts that end early.
    for (const std::vector<int32_t>& stop : {std::vector<int32_t>{}, std::vector<int32_t>{14}}) {
      const auto engine =
          MakeEngine(model_.get(), &clock_, {.max_sequences = 3, .executor = &script});
      Request r{.prompt = Text(20), .max_tokens = 40};
      r.n = n;
      r.beam_width = 3;
      r.length_penalty = 3;
      r.stop.token_ids = stop;
      ASSERT_TRUE(engine->Submit(r).ok());
      std::vector<Event> events;
      while (engine->Step(&events)) {
      }
      std::map<int32_t, std::vector<int32_t>> told;
      for (const Event& e : events) {
        if (e.kind == Event::Kind::kToken) told[e.choice].push_back(e.token.token);
      }
      ASSERT_EQ(told.size(), static_cast<size_t>(n));
      // Of blocks of 16: what is told, and no more than one beside each. Of texts that end early,
      // those stay too that were the best for a while.
      size_t most = 0;
      for (const auto& [choice, text] : told) most += (20 + text.size() + 15) / 16 + 1;
      if (stop.empty()) {
        EXPECT_LE(engine->kv().index().nodes(), static_cast<int64_t>(most)) << n;
      }
      // And a next turn finds what it goes on from, but for the last token, which was not computed.
      Request next{.prompt = Text(20), .max_tokens = 1};
      next.prompt.insert(next.prompt.end(), told[0].begin(), told[0].end());
      const size_t before = next.prompt.size() - 1;
      next.prompt.push_back(9);
      events.clear();
      ASSERT_TRUE(engine->Submit(next).ok());
      while (engine->Step(&events)) {
      }
      EXPECT_EQ(events.back().stats.cached_tokens, static_cast<int32_t>(before)) << n;
    }
  }
}

TEST_F(EngineLimits, BeamsThatTheirQuotaCannotHoldTogetherEndThoughOthersAreBusy) {
  ScriptedExecutor script;
  // Two beams that go on apart from each other.
  script.offer = [](const SeqSlice& s) {
    std::vector<TokenLogprob> offer = Offer({10, 11, 12, 13});
    for (size_t i = s.tokens.size() == 110 ? 2 : 1; i < offer.size(); ++i) offer[i].logprob -= 20;
    return offer;
  };
  const KvLayout layout =
      *KvLayout::Create({.window = {0}, .kv_heads = 1, .head_dim = 16, .block_tokens = 16});
  Engine engine({.context = 400, .max_step_tokens = 64, .max_sequences = 8}, layout, 400, &script,
                &model_->tokenizer(), &clock_);
  // One alone takes nine blocks and one for a copy, two take twelve.
  engine.SetTenant(1, {.weight = 1, .kv_blocks = 10});
  Request beams{.prompt = Text(110), .max_tokens = 20};
  beams.beam_width = 2;
  beams.tenant = 1;
  const auto id = engine.Submit(beams);
  ASSERT_TRUE(id.ok());
  bool ended = false;
  int busy = 0;
  for (int32_t step = 0; !ended; ++step) {
    ASSERT_LT(step, 2000) << "it waits until the others have ended";
    for (; busy < 2; ++busy) {
      Request other{.prompt = {30, step % 40 + 3, 7}, .max_tokens = 50};
      other.tenant = 2;
      ASSERT_TRUE(engine.Submit(other).ok());
    }
    std::vector<Event> events;
    ASSERT_TRUE(engine.Step(&events));
    for (const Event& e : events) {
      ended |= e.last && e.request == *id;
      busy -= e.last && e.request != *id ? 1 : 0;
    }
  }
}

TEST_F(EngineLimits, TheQueueIsBounded) {
  const auto engine = MakeEngine(model_.get(), &clock_, {.max_sequences = 1, .max_waiting = 3});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(engine->Submit(Sampled(10, 3)).ok());
  const auto refused = engine->Submit(Sampled(10, 3));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kBusy);
  EXPECT_NE(refused.error().message.find("3"), std::string::npos);
  EXPECT_EQ(RunAll(engine.get()).size(), 3u);
  EXPECT_TRUE(engine->Submit(Sampled(10, 3)).ok());
}

TEST_F(EngineLimits, AFloodByOneTenantLeavesOthersTheirShareOfTheQueue) {
  const auto engine = MakeEngine(model_.get(), &clock_, {.max_sequences = 1, .max_waiting = 6});
  const auto taken = [&](uint64_t tenant) {
    int count = 0;
    for (int i = 0; i < 20; ++i) {
      Request r = Sampled(10, 3);
      r.tenant = tenant;
      count += engine->Submit(std::move(r)).ok() ? 1 : 0;
    }
    return count;
  };
  EXPECT_EQ(taken(1), 6);
  EXPECT_EQ(taken(2), 3);
  EXPECT_EQ(taken(3), 2);
  EXPECT_EQ(taken(1), 0);
  EXPECT_EQ(taken(4), 1);  // twice the bound in all
  EXPECT_EQ(RunAll(engine.get()).size(), 12u);
}

TEST_F(EngineLimits, WhatCanNeverFitIsRefusedWithNumbers) {
  const auto engine = MakeEngine(model_.get(), &clock_, {});
  engine->SetTenant(7, {.weight = 1, .kv_blocks = 2});
  Request r = Sampled(40, 20);
  r.tenant = 7;
  const auto over = engine->Submit(r);
  ASSERT_FALSE(over.ok());
  EXPECT_NE(over.error().message.find("quota is 2"), std::string::npos);
  r.tenant = 8;
  EXPECT_TRUE(engine->Submit(r).ok());
  const auto message = [&](auto change) {
    Request bad = Sampled(10, 5);
    change(bad);
    const auto id = engine->Submit(bad);
    return id.ok() ? std::string("taken") : id.error().message;
  };
  EXPECT_EQ(message([](Request& b) { b.n = 3; }), "n is 3; use 1 to 2");
  EXPECT_EQ(message([](Request& b) { b.beam_width = 9; }), "beam_width is 9; use 1 to 2");
  EXPECT_EQ(message([](Request& b) { b.priority = 101; }), "priority is 101; use -100 to 100");
  EXPECT_NE(message([](Request& b) { b.deadline_s = -1; }).find("deadline"), std::string::npos);
  EXPECT_NE(message([](Request& b) { b.beam_width = 2; }).find("temperature"), std::string::npos);
  EXPECT_NE(message([](Request& b) { b.prompt_logprobs = -2; }).find("prompt_logprobs"),
            std::string::npos);
}

TEST_F(EngineLimits, WhoNamesNoLimitOfOutputHasWhatThereIsRoomFor) {
  const auto engine = MakeEngine(model_.get(), &clock_, {});
  engine->SetTenant(7, {.weight = 1, .kv_blocks = 2});
  for (const int32_t n : {1, 2}) {
    Request r = Sampled(10, -1);
    r.tenant = 7;
    r.n = n;
    const Answers answers = RunOne(engine.get(), r);
    for (int32_t i = 0; i < n; ++i) {
      const Answer& a = answers.choices.at(i);
      EXPECT_EQ(a.reason, FinishReason::kContext);
      EXPECT_EQ(a.tokens.size(), n == 1 ? 22u : 6u);  // less the block that a fork copies
    }
  }
}

TEST_F(EngineLimits, ChoicesThatEndWithTheirFirstTokenKeepNoPlaces) {
  const auto engine = MakeEngine(model_.get(), &clock_, {});
  Request r = Sampled(10, 20);
  r.n = 2;
  const Answers answers = RunOne(engine.get(), r);
  r.stop.token_ids = {answers.choices.at(1).tokens[0]};
  for (const int32_t token : answers.choices.at(0).tokens) ASSERT_NE(token, r.stop.token_ids[0]);
  ASSERT_TRUE(engine->Submit(r).ok());
  const auto other = engine->Submit(Sampled(12, 2));
  ASSERT_TRUE(other.ok());
  // The first choice goes on; its request's other place is free.
  auto all = RunAll(engine.get());
  EXPECT_LT(all[*other].choices[0].stats.finished_ns,
            all.begin()->second.choices[0].stats.finished_ns);
}

TEST_F(EngineLimits, ARequestsTimesAddUpToItsTime) {
  const auto engine = MakeEngine(model_.get(), &clock_, {.max_sequences = 2});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(engine->Submit(Sampled(10 + 9 * i, 6)).ok());
  double queued = 0;
  for (auto& [id, all] : RunAll(engine.get())) {
    const RequestStats& s = all.choices[0].stats;
    EXPECT_NEAR(s.times.total(), SecondsBetween(s.submitted_ns, s.finished_ns), 1e-9) << id;
    EXPECT_GT(s.times.prefill, 0);
    EXPECT_GT(s.times.decode, 0);
    queued += s.times.queue;
  }
  EXPECT_GT(queued, 0.01);
}

TEST(CacheReport, TellsAClientNothingOfOtherTenants) {
  const CacheReport all{.cached_tokens = 5,
                        .reason = MissReason::kDiverged,
                        .diverged_had = 7,
                        .diverged_got = 8,
                        .diverged_tenant = 2,
                        .evicted_for = 3};
  const CacheReport own = ForClient(all, 2), foreign = ForClient(all, 1);
  EXPECT_EQ(own.diverged_had, 7);
  EXPECT_EQ(foreign.diverged_had, -1);
  EXPECT_EQ(foreign.diverged_got, 8);
  EXPECT_EQ(foreign.evicted_for, 0u);
  EXPECT_EQ(foreign.diverged_tenant, 0u);
}

}  // namespace
}  // namespace kvasir
