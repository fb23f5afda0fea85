#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace kvasir {
namespace {

using Candidate = SamplerScratch::Candidate;

bool MoreLikely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

/// Finds the largest of the blocks of `logits`; an error where one is no number that a model should
/// give.
Status CheckLogits(std::span<const float> logits, std::vector<float>* largest) {
  if (FindLargest(logits, largest)) return {};
  const auto wrong = std::find_if_not(
      logits.begin(), logits.end(), [](float x) { return x <= std::numeric_limits<float>::max(); });
  return MakeError(ErrorCode::kInvalid,
                   "the model gave the logit {} for token {}; its weights or the numbers in this "
                   "prompt are out of range",
                   *wrong, wrong - logits.begin());
}

void ApplyRepetitionPenalty(std::span<float> logits, const SamplingParams& p,
                            std::span<const int32_t> tokens, std::vector<int32_t>* counts) {
  if (p.repetition_penalty == 1.0f) return;
  if (p.penalty_last_n >= 0 && static_cast<size_t>(p.penalty_last_n) < tokens.size()) {
    tokens = tokens.last(p.penalty_last_n);
  }
  for (const int32_t t : tokens) {
    if ((*counts)[t]++ != 0) continue;
    logits[t] = logits[t] > 0 ? logits[t] / p.repetition_penalty : logits[t] * p.repetition_penalty;
  }
  for (const int32_t t : tokens) (*counts)[t] = 0;
}

void ApplyOutputPenalties(std::span<float> logits, const SamplingParams& p,
                          std::span<const int32_t> output, std::vector<int32_t>* counts) {
  if (p.frequency_penalty == 0.0f && p.presence_penalty == 0.0f) return;
  for (const int32_t t : output) ++(*counts)[t];
  for (const int32_t t : output) {
    const int32_t count = std::exchange((*counts)[t], 0);
    if (count == 0) continue;
    logits[t] -= static_cast<float>(count) * p.frequency_penalty + p.presence_penalty;
  }
}

/// Whether any logit may have changed.
bool ApplyPenalties(std::span<float> logits, const SamplingParams& p, const SampleContext& context,
                    SamplerScratch* scratch) {
  const auto output = context.tokens.subspan(context.prompt_tokens);
  const bool too_short = output.size() < static_cast<size_t>(p.min_tokens);
  const bool must_go_on = p.ignore_eos || too_short;
  if (p.logit_bias.empty() && p.repetition_penalty == 1.0f && p.frequency_penalty == 0.0f &&
      p.presence_penalty == 0.0f && !must_go_on) {
    return false;
  }
  for (const auto& [token, bias] : p.logit_bias) logits[token] += bias;
  scratch->counts.resize(logits.size());
  ApplyRepetitionPenalty(logits, p, context.tokens, &scratch->counts);
  ApplyOutputPenalties(logits, p, output, &scratch->counts);
  if (must_go_on) {
    for (const int32_t t : context.end_of_generation) logits[t] = kNoLogit;
  }
  if (too_short) {
    for (const int32_t t : p.stop_tokens) logits[t] = kNoLogit;
  }
  return true;
}

double Sum(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  return sum;
}

void KeepTopK(std::vector<Candidate>* c, size_t k) {
  if (k == 0 || k >= c->size()) return;
  std::nth_element(c->begin(), c->begin() + static_cast<ptrdiff_t>(k) - 1, c->end(), MoreLikely);
  c->resize(k);
}

/// Keeps the smallest set of the first by `before` whose weights reach `wanted`; all, where all do
/// not. Nothing is sorted but a few around where it ends: a flat distribution over 128,256 tokens
/// took 29 ms when all were, which is longer than a step (2026-11-24).
template <typename Before>
void KeepSmallestSet(std::vector<Candidate>* c, double wanted, Before before) {
  const auto at = [c](size_t i) { return c->begin() + static_cast<ptrdiff_t>(i); };
  double reached = 0;  // by those before `begin`, all of which are kept; `end` and on are not
  size_t begin = 0, end = c->size();
  constexpr size_t kFew = 64;
  while (end - begin > kFew) {
    const size_t middle = begin + (end - begin) / 8;  // most distributions are steep
    std::nth_element(at(begin), at(middle), at(end), before);
    double sum = 0;
    for (size_t i = begin; i < middle; ++i) sum += (*c)[i].weight;
    if (reached + sum >= wanted) {
      end = middle;
    } else {
      reached += sum;
      begin = middle;
    }
  }
  std::sort(at(begin), at(end), before);
  while (begin < end && reached < wanted) reached += (*c)[begin++].weight;
  c->resize(std::max<size_t>(begin, 1));
}

/// The smallest set of those whose surprise is closest to the entropy and whose probability reaches
/// `p`.
void KeepTypical(std::vector<Candidate>* c, float top, const SamplingParams& params) {
  const double sum = Sum(*c), log_sum = std::log(sum);
  const auto surprise = [&](const Candidate& x) {
    return log_sum + (static_cast<double>(top) - x.logit) / params.temperature;
  };
  double entropy = 0;
  for (const Candidate& x : *c) {
    if (x.weight > 0) entropy += x.weight / sum * surprise(x);
  }
  const auto more_typical = [&](const Candidate& a, const Candidate& b) {
    const double x = std::abs(surprise(a) - entropy), y = std::abs(surprise(b) - entropy);
    return x != y ? x < y : a.token < b.token;
  };
  KeepSmallestSet(c, params.typical_p * sum, more_typical);
}

void KeepMinP(std::vector<Candidate>* c, float p) {
  if (p <= 0.0f) return;
  float most = 0;
  for (const Candidate& x : *c) most = std::max(most, x.weight);
  std::erase_if(*c, [&](const Candidate& x) { return x.weight < p * most; });
}

int32_t Draw(const std::vector<Candidate>& c, double uniform) {
  const double wanted = uniform * Sum(c);
  double reached = 0;
  int32_t last = c.front().token;
  for (const Candidate& x : c) {
    if (x.weight <= 0) continue;
    reached += x.weight;
    last = x.token;
    if (reached > wanted) break;
  }
  return last;
}

/// Tokens among which are all that the filters keep, and the sum of the weights of all that they
/// are given to choose from.
double CollectCandidates(std::span<const float> logits, float top, const SamplingParams& p,
                         SamplerScratch* scratch) {
  std::vector<Candidate>& c = scratch->candidates;
  c.clear();
  c.reserve(logits.size());  // not as much again as it happens to need
  const auto collect = [&] {
    for (const int32_t t : scratch->tokens)
      c.push_back({logits[t], WeightOf(logits[t], top, p.temperature), t});
  };
  if (p.top_k > 0 && static_cast<size_t>(p.top_k) < logits.size()) {
    CollectLargest(logits, scratch->largest, static_cast<size_t>(p.top_k), &scratch->tokens);
    collect();
    KeepTopK(&c, static_cast<size_t>(p.top_k));
    return Sum(c);
  }
  const LogitWeights& all = scratch->distribution;
  Weigh(logits, top, p.temperature, &scratch->distribution);
  double least = 0;
  if (p.typical_p >= 1.0f) {
    // Those below the mean of what top-p leaves out are together less than that.
    const double left_out = (1.0 - p.top_p) * all.sum;
    least = std::max<double>(p.min_p, left_out / static_cast<double>(logits.size()));
  }
  CollectHeaviest(all, least, &scratch->tokens);
  collect();
  return all.sum;
}

int32_t Choose(std::span<const float> logits, int32_t most_likely, const SamplingParams& p,
               uint64_t position, SamplerScratch* scratch) {
  if (p.temperature == 0.0f) return most_likely;
  const float top = logits[most_likely];
  const double uniform = RandomStream{p.seed, p.stream}.Uniform(position);
  if (p.top_k == 0 && p.typical_p >= 1.0f && p.top_p >= 1.0f && p.min_p <= 0.0f) {
    Weigh(logits, top, p.temperature, &scratch->distribution);
    return DrawFrom(scratch->distribution, uniform * scratch->distribution.sum);
  }
  double sum = CollectCandidates(logits, top, p, scratch);
  std::vector<Candidate>& c = scratch->candidates;
  if (p.typical_p < 1.0f) {
    KeepTypical(&c, top, p);
    sum = Sum(c);
  }
  if (p.top_p < 1.0f) KeepSmallestSet(&c, p.top_p * sum, MoreLikely);
  KeepMinP(&c, p.min_p);
  return Draw(c, uniform);
}

/// Natural logarithm of the sum of e^logit.
double LogSum(std::span<const float> logits, SamplerScratch* scratch) {
  const float top = *std::max_element(scratch->largest.begin(), scratch->largest.end());
  Weigh(logits, top, 1.0f, &scratch->distribution);
  return top + std::log(scratch->distribution.sum);
}

/// The `wanted` most likely.
std::vector<TokenLogprob> MostLikely(std::span<const float> logits, double log_sum, int32_t wanted,
                                     SamplerScratch* scratch) {
  std::vector<int32_t>& tokens = scratch->tokens;
  CollectLargest(logits, scratch->largest, static_cast<size_t>(wanted), &tokens);
  const auto n = std::min(static_cast<size_t>(wanted), tokens.size());
  std::partial_sort(
      tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(n), tokens.end(),
      [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::vector<TokenLogprob> out;
  for (size_t i = 0; i < n; ++i)
    out.push_back({tokens[i], static_cast<float>(logits[tokens[i]] - log_sum)});
  return out;
}

}  // namespace

size_t SamplerScratch::Bytes(size_t vocab) {
  const size_t each = sizeof(Candidate) + sizeof(tokens[0]) + sizeof(distribution.weights[0]) +
                      sizeof(raw[0]) + sizeof(counts[0]);
  const size_t block = sizeof(largest[0]) + sizeof(distribution.sums[0]);
  return (vocab + kLogitBlock) * each + (vocab / kLogitBlock + 1) * block;
}

Result<SampledToken> Score(std::span<const float> logits, int32_t token, int32_t most_likely,
                           SamplerScratch& scratch) {
  KV_RETURN_IF_ERROR(CheckLogits(logits, &scratch.largest));
  const double log_sum = LogSum(logits, &scratch);
  return SampledToken{.token = token,
                      .logprob = static_cast<float>(logits[token] - log_sum),
                      .top = MostLikely(logits, log_sum, most_likely, &scratch)};
}

Result<SampledToken> Sample(std::span<float> logits, const SamplingParams& params,
                            const SampleContext& context, SamplerScratch& scratch) {
  KV_RETURN_IF_ERROR(CheckLogits(logits, &scratch.largest));
  SampledToken out;
  double log_sum = 0;
  if (params.logprobs >= 0) {
    log_sum = LogSum(logits, &scratch);
    out.top = MostLikely(logits, log_sum, params.logprobs, &scratch);
    scratch.raw.assign(logits.begin(), logits.end());
  }
  if (ApplyPenalties(logits, params, context, &scratch)) {
    KV_RETURN_IF_ERROR(CheckLogits(logits, &scratch.largest));
  }
  const int32_t most_likely = FirstOfLargest(logits, scratch.largest);
  if (logits[most_likely] == kNoLogit) {
    return MakeError(ErrorCode::kInvalid, "no token can follow: all {} have probability 0",
                     logits.size());
  }
  out.token = Choose(logits, most_likely, params, context.tokens.size(), &scratch);
  if (params.logprobs >= 0) {
    out.logprob = static_cast<float>(scratch.raw[out.token] - log_sum);
  }
  return out;
}

}  // namespace kvasir
