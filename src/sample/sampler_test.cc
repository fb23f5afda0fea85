#include "sample/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace kvasir {
namespace {

const std::vector<float> kLogits = {2.0f, 1.0f, 0.5f, 0.5f, -1.0f, 3.0f, -4.0f, 1.5f, 0.0f, -0.5f};

/// Softmax of `logits` / temperature, in double.
std::vector<double> Probabilities(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  for (const float l : logits) p.push_back(std::exp(l / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

std::vector<int> ByProbability(const std::vector<double>& p) {
  std::vector<int> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
  return order;
}

/// Keeps `kept` and makes it a distribution again.
std::vector<double> Only(const std::vector<double>& p, const std::vector<int>& kept) {
  std::vector<double> out(p.size(), 0.0);
  double sum = 0;
  for (const int i : kept) sum += p[i];
  for (const int i : kept) out[i] = p[i] / sum;
  return out;
}

/// How often each token comes, a position each.
std::vector<double> Draw(const std::vector<float>& from, const SamplingParams& params, int draws) {
  const std::vector<int32_t> tokens(draws, 0);
  SamplerScratch scratch;
  std::vector<double> count(from.size(), 0.0);
  for (int i = 0; i < draws; ++i) {
    std::vector<float> logits = from;
    const SampleContext context{.tokens = {tokens.data(), static_cast<size_t>(i)},
                                .prompt_tokens = i};
    const auto token = Sample(logits, params, context, scratch);
    EXPECT_TRUE(token.ok());
    ++count[token->token];
  }
  return count;
}

/// The chi-square statistic stays below what 99.9999% of right samplers give (Wilson and Hilferty's
/// approximation); what has no probability is never drawn.
void ExpectDistribution(const SamplingParams& params, const std::vector<double>& expected) {
  constexpr int kDraws = 40'000;
  const std::vector<double> count = Draw(kLogits, params, kDraws);
  double statistic = 0;
  int degrees = -1;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(count[i], 0) << "token " << i;
      continue;
    }
    ++degrees;
    const double e = expected[i] * kDraws;
    statistic += (count[i] - e) * (count[i] - e) / e;
  }
  if (degrees == 0) return;
  const double k = degrees, z = 4.75;
  EXPECT_LT(statistic, k * std::pow(1 - 2 / (9 * k) + z * std::sqrt(2 / (9 * k)), 3)) << degrees;
}

TEST(Sampler, TemperatureGivesTheSoftmax) {
  for (const float t : {0.5f, 1.0f, 2.0f}) {
    ExpectDistribution({.temperature = t, .seed = 1}, Probabilities(kLogits, t));
  }
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  const auto p = Probabilities(kLogits, 1);
  for (const int k : {1, 3, 4, 9}) {
    const auto order = ByProbability(p);
    ExpectDistribution({.temperature = 1, .top_k = k, .seed = 2},
                       Only(p, {order.begin(), order.begin() + k}));
  }
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  const auto p = Probabilities(kLogits, 1);
  for (const float limit : {0.3f, 0.6f, 0.9f, 0.999f}) {
    std::vector<int> kept;
    double reached = 0;
    for (const int i : ByProbability(p)) {
      kept.push_back(i);
      reached += p[i];
      if (reached >= limit) break;
    }
    ExpectDistribution({.temperature = 1, .top_p = limit, .seed = 3}, Only(p, kept));
  }
}

TEST(Sampler, MinPKeepsWhatIsNotTooFarBelowTheBest) {
  const auto p = Probabilities(kLogits, 1);
  for (const float limit : {0.05f, 0.2f, 0.5f, 1.0f}) {
    std::vector<int> kept;
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] >= limit * *std::max_element(p.begin(), p.end()))
        kept.push_back(static_cast<int>(i));
    }
    ExpectDistribution({.temperature = 1, .min_p = limit, .seed = 4}, Only(p, kept));
  }
}

TEST(Sampler, TypicalKeepsWhatIsAsSurprisingAsTheEntropy) {
  const auto p = Probabilities(kLogits, 1);
  double entropy = 0;
  for (const double x : p) entropy -= x * std::log(x);
  for (const float limit : {0.2f, 0.5f, 0.9f}) {
    std::vector<int> order = ByProbability(p), kept;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return std::abs(-std::log(p[a]) - entropy) < std::abs(-std::log(p[b]) - entropy);
    });
    double reached = 0;
    for (const int i : order) {
      kept.push_back(i);
      reached += p[i];
      if (reached >= limit) break;
    }
    ExpectDistribution({.temperature = 1, .typical_p = limit, .seed = 5}, Only(p, kept));
  }
}

TEST(Sampler, TypicalOfManyTokensKeepsWhatSortingAllOfThemWould) {
  for (const float scale : {0.3f, 1.0f, 3.0f}) {
    std::vector<float> logits(3000);
    uint32_t state = 9;
    for (float& l : logits) {
      state = state * 1664525u + 1013904223u;
      l = scale * static_cast<float>(state >> 8) / (1 << 22);  // up to 4
    }
    const std::vector<double> p = Probabilities(logits, 1);
    double entropy = 0;
    for (const double x : p) entropy -= x * std::log(x);
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto distance = [&](int i) { return std::abs(-std::log(p[i]) - entropy); };
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return distance(a) < distance(b); });
    for (const float limit : {0.001f, 0.05f, 0.9f}) {
      double reached = 0;
      std::vector<bool> kept(logits.size(), false);
      size_t count = 0;
      for (size_t i = 0; i < order.size() && reached < limit; ++i, ++count) {
        kept[order[i]] = true;
        reached += p[order[i]];
      }
      const SamplingParams params{.temperature = 1, .typical_p = limit, .seed = 8};
      const std::vector<double> drawn = Draw(logits, params, 2000);
      size_t different = 0;
      for (size_t t = 0; t < drawn.size(); ++t) {
        if (drawn[t] == 0) continue;
        ++different;
        ASSERT_TRUE(kept[t]) << t << " " << limit << " " << scale;
      }
      if (count < 10) {
        EXPECT_EQ(different, count);
      } else {
        EXPECT_GT(different, std::min<size_t>(count, 2000) / 4);
      }
    }
  }
}

/// What the filters keep of `logits` if all tokens are sorted, in double. Only for limits that no
/// sum comes near to.
std::vector<bool> KeptBySorting(const std::vector<float>& logits, const SamplingParams& params) {
  const std::vector<double> p = Probabilities(logits, params.temperature);
  std::vector<int> order = ByProbability(p);
  if (params.top_k > 0) order.resize(std::min<size_t>(order.size(), params.top_k));
  double sum = 0, reached = 0;
  for (const int i : order) sum += p[i];
  std::vector<bool> kept(p.size(), false);
  for (const int i : order) {
    if (reached >= params.top_p * sum || p[i] < params.min_p * p[order[0]]) break;
    kept[i] = true;
    reached += p[i];
  }
  return kept;
}

TEST(Sampler, FiltersOfManyTokensKeepWhatSortingAllOfThemWould) {
  constexpr size_t kVocab = 3001;
  for (const float scale : {0.5f, 2.0f, 8.0f}) {
    std::vector<float> logits(kVocab);
    uint32_t state = 7;
    for (float& l : logits) {
      state = state * 1664525u + 1013904223u;
      l = scale * static_cast<float>(state >> 8) / (1 << 24) * static_cast<float>(state >> 28);
    }
    for (const SamplingParams& base : std::vector<SamplingParams>{{.temperature = 1},
                                                                  {.top_k = 1},
                                                                  {.top_k = 40},
                                                                  {.top_k = 2000},
                                                                  {.top_p = 0.01f},
                                                                  {.top_p = 0.5f},
                                                                  {.top_p = 0.97f},
                                                                  {.min_p = 0.3f},
                                                                  {.top_p = 0.9f, .min_p = 0.05f},
                                                                  {.top_k = 100, .top_p = 0.8f}}) {
      SamplingParams params = base;
      params.temperature = 0.9f;
      const std::vector<bool> kept = KeptBySorting(logits, params);
      const std::vector<double> drawn = Draw(logits, params, 3000);
      for (size_t t = 0; t < kVocab; ++t) {
        ASSERT_TRUE(drawn[t] == 0 || kept[t])
            << t << " scale " << scale << " top_k " << params.top_k << " top_p " << params.top_p
            << " min_p " << params.min_p;
      }
      // Whatever should come 20 times comes at least once.
      const auto p = Probabilities(logits, params.temperature);
      double sum = 0;
      for (size_t i = 0; i < kVocab; ++i) sum += kept[i] ? p[i] : 0;
      for (size_t i = 0; i < kVocab; ++i) {
        EXPECT_TRUE(drawn[i] > 0 || !kept[i] || p[i] / sum * 3000 < 20) << i;
      }
    }
  }
}

TEST(Sampler, FiltersWorkInTheirOrderOnWhatIsLeft) {
  const auto p = Probabilities(kLogits, 1.5);
  const auto order = ByProbability(p);
  auto left = Only(p, {order.begin(), order.begin() + 6});  // top-k 6
  std::vector<int> kept;
  double reached = 0;
  for (const int i : ByProbability(left)) {
    kept.push_back(i);
    reached += left[i];
    if (reached >= 0.8f) break;
  }
  ExpectDistribution({.temperature = 1.5f, .top_k = 6, .top_p = 0.8f, .seed = 6}, Only(p, kept));
}

int32_t Greedy(SamplingParams params, const std::vector<int32_t>& tokens, int32_t prompt,
               const std::vector<int32_t>& end = {}) {
  SamplerScratch scratch;
  std::vector<float> logits = kLogits;
  const auto token =
      Sample(logits, params, {.tokens = tokens, .prompt_tokens = prompt, .end_of_generation = end},
             scratch);
  EXPECT_TRUE(token.ok());
  return token->token;
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  EXPECT_EQ(Greedy({}, {}, 0), 5);
  SamplerScratch scratch;
  std::vector<float> ties = {1, 7, 7, 3};
  EXPECT_EQ(Sample(ties, {}, {}, scratch)->token, 1);
}

TEST(Sampler, PenaltiesCountWhatTheySay) {
  // Repetition: prompt and output, once; 3 / 2 is below 2.
  EXPECT_EQ(Greedy({.repetition_penalty = 2}, {5, 5}, 2), 0);
  EXPECT_EQ(Greedy({.repetition_penalty = 2, .penalty_last_n = 1}, {5, 1}, 2), 5);
  // Presence and frequency: the output alone.
  EXPECT_EQ(Greedy({.presence_penalty = 1.5f}, {5}, 1), 5);
  EXPECT_EQ(Greedy({.presence_penalty = 1.5f}, {5}, 0), 0);
  EXPECT_EQ(Greedy({.frequency_penalty = 0.6f}, {5}, 0), 5);
  EXPECT_EQ(Greedy({.frequency_penalty = 0.6f}, {5, 5}, 0), 0);
  EXPECT_EQ(Greedy({.logit_bias = {{6, 10.0f}}}, {}, 0), 6);
}

TEST(Sampler, EndTokensAreHeldBackWhereAsked) {
  EXPECT_EQ(Greedy({.ignore_eos = true}, {}, 0, {5}), 0);
  EXPECT_EQ(Greedy({.min_tokens = 2}, {9, 1}, 1, {5}), 0);
  EXPECT_EQ(Greedy({.min_tokens = 2}, {9, 1, 1}, 1, {5}), 5);
  // The request's own stop tokens, too, but only by min_tokens.
  EXPECT_EQ(Greedy({.min_tokens = 2, .stop_tokens = {5}}, {9, 1}, 1, {}), 0);
  EXPECT_EQ(Greedy({.min_tokens = 2, .stop_tokens = {5}}, {9, 1, 1}, 1, {}), 5);
  EXPECT_EQ(Greedy({.ignore_eos = true, .stop_tokens = {5}}, {}, 0, {}), 5);
}

TEST(Sampler, LogprobsAreOfTheModelsOwnDistribution) {
  SamplerScratch scratch;
  std::vector<float> logits = kLogits;
  const auto token = Sample(logits, {.logit_bias = {{4, 50.0f}}, .logprobs = 3}, {}, scratch);
  ASSERT_TRUE(token.ok());
  const auto p = Probabilities(kLogits, 1);
  EXPECT_EQ(token->token, 4);
  EXPECT_NEAR(token->logprob, std::log(p[4]), 1e-5);
  ASSERT_EQ(token->top.size(), 3u);
  EXPECT_EQ(token->top[0].token, 5);
  EXPECT_EQ(token->top[1].token, 0);
  EXPECT_EQ(token->top[2].token, 7);
  EXPECT_NEAR(token->top[2].logprob, std::log(p[7]), 1e-5);
}

TEST(Sampler, LogprobsOfManyTokensAreThoseOfTheSoftmax) {
  std::vector<float> logits(3001);
  uint32_t state = 3;
  for (float& l : logits) {
    state = state * 1664525u + 1013904223u;
    l = static_cast<float>(state >> 20) / 256.0f;  // some are equal
  }
  const auto p = Probabilities(logits, 1);
  const auto order = ByProbability(p);
  SamplerScratch scratch;
  for (const int32_t wanted : {0, 1, 20, 3001}) {
    const auto scored = Score(logits, 17, wanted, scratch);
    ASSERT_TRUE(scored.ok());
    EXPECT_NEAR(scored->logprob, std::log(p[17]), 2e-6 - 2e-7 * std::log(p[17]));
    ASSERT_EQ(scored->top.size(), static_cast<size_t>(wanted));
    for (int32_t i = 0; i < wanted; ++i) {
      EXPECT_EQ(scored->top[i].token, order[i]);
      EXPECT_NEAR(scored->top[i].logprob, std::log(p[order[i]]), 1e-5);
    }
  }
}

TEST(Sampler, WhatIsNoNumberFailsTheRequest) {
  SamplerScratch scratch;
  for (const float bad : {NAN, INFINITY}) {
    std::vector<float> logits = {0, bad, 1};
    EXPECT_FALSE(Sample(logits, {}, {}, scratch).ok());
  }
  // Made by a penalty.
  std::vector<float> huge = {1, 3e38f};
  EXPECT_FALSE(Sample(huge, {.repetition_penalty = 0.1f},
                      {.tokens = std::vector<int32_t>{1}, .prompt_tokens = 1}, scratch)
                   .ok());
  std::vector<float> none = {-INFINITY, -INFINITY};
  EXPECT_FALSE(Sample(none, {}, {}, scratch).ok());
  std::vector<float> one = {-INFINITY, -3};
  EXPECT_EQ(Sample(one, {.temperature = 1}, {}, scratch)->token, 1);
}

TEST(SamplingParams, RangesAreCheckedByName) {
  const auto message = [](const SamplingParams& p) {
    const Status s = Validate(p, 10);
    return s.ok() ? std::string() : s.error().message;
  };
  EXPECT_EQ(message({}), "");
  EXPECT_NE(message({.temperature = -1}).find("temperature is -1"), std::string::npos);
  EXPECT_NE(message({.temperature = NAN}).find("temperature"), std::string::npos);
  EXPECT_NE(message({.top_p = 1.5f}).find("top_p"), std::string::npos);
  EXPECT_NE(message({.logit_bias = {{10, 0.0f}}}).find("logit_bias"), std::string::npos);
  EXPECT_NE(message({.repetition_penalty = 0}).find("repetition_penalty"), std::string::npos);
  EXPECT_FALSE(Validate(StopRules{.strings = {""}}, 10).ok());
  EXPECT_FALSE(Validate(StopRules{.token_ids = {-1}}, 10).ok());
  EXPECT_TRUE(Validate(StopRules{.token_ids = std::vector<int32_t>(1024, 3)}, 10).ok());
  EXPECT_FALSE(Validate(StopRules{.token_ids = std::vector<int32_t>(1025, 3)}, 10).ok());
  EXPECT_FALSE(Validate(StopRules{.strings = std::vector<std::string>(100, "x")}, 10).ok());
}

}  // namespace
}  // namespace kvasir
