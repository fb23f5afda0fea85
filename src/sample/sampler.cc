#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace kvasir {
namespace {

using Candidate = SamplerScratch::Candidate;
constexpr float kNever = -std::numeric_limits<float>::infinity();

bool MoreLikely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

Status CheckLogits(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] <= std::numeric_limits<float>::max())) {
      return MakeError(ErrorCode::kInvalid,
                       "the model gave the logit {} for token {}; its weights or the numbers in "
                       "this prompt are out of range",
                       logits[i], i);
    }
  }
  return {};
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

void ApplyPenalties(std::span<float> logits, const SamplingParams& p, const SampleContext& context,
                    SamplerScratch* scratch) {
  for (const auto& [token, bias] : p.logit_bias) logits[token] += bias;
  scratch->counts.resize(logits.size());
  ApplyRepetitionPenalty(logits, p, context.tokens, &scratch->counts);
  const auto output = context.tokens.subspan(context.prompt_tokens);
  ApplyOutputPenalties(logits, p, output, &scratch->counts);
  if (p.ignore_eos || output.size() < static_cast<size_t>(p.min_tokens)) {
    for (const int32_t t : context.end_of_generation) logits[t] = kNever;
  }
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

/// How many of `items`, put so that these are first, are the smallest set of the first by `before`
/// whose weights reach `wanted`; all, where all do not. Nothing is sorted but a few around where it
/// ends: a flat distribution over 128,256 tokens took 29 ms when all were, which is longer than a
/// step (2026-11-24).
template <typename T, typename Before, typename Weight>
size_t SmallestSet(std::vector<T>* items, double wanted, Before before, Weight weight) {
  const auto at = [items](size_t i) { return items->begin() + static_cast<ptrdiff_t>(i); };
  double reached = 0;  // by those before `begin`, all of which are kept; `end` and on are not
  size_t begin = 0, end = items->size();
  constexpr size_t kFew = 64;
  while (end - begin > kFew) {
    const size_t middle = begin + (end - begin) / 8;  // most distributions are steep
    std::nth_element(at(begin), at(middle), at(end), before);
    double sum = 0;
    for (size_t i = begin; i < middle; ++i) sum += weight((*items)[i]);
    if (reached + sum >= wanted) {
      end = middle;
    } else {
      reached += sum;
      begin = middle;
    }
  }
  std::sort(at(begin), at(end), before);
  while (begin < end && reached < wanted) reached += weight((*items)[begin++]);
  return std::max<size_t>(begin, 1);
}

/// The smallest set of the most likely whose probability reaches `p`.
void KeepTopP(std::vector<Candidate>* c, double p) {
  if (p >= 1.0) return;
  c->resize(SmallestSet(c, p * Sum(*c), MoreLikely, [](const Candidate& x) { return x.weight; }));
}

/// The smallest set of those whose surprise is closest to the entropy and whose probability reaches
/// `p`.
void KeepTypical(std::vector<Candidate>* c, double p) {
  if (p >= 1.0) return;
  const double sum = Sum(*c);
  double entropy = 0;
  for (const Candidate& x : *c) {
    if (x.weight > 0) entropy -= x.weight / sum * std::log(x.weight / sum);
  }
  const auto atypical = [&](const Candidate& x) {
    return x.weight > 0 ? std::abs(-std::log(x.weight / sum) - entropy)
                        : std::numeric_limits<double>::infinity();
  };
  std::vector<std::pair<double, Candidate>> order;
  order.reserve(c->size());
  for (const Candidate& x : *c) order.emplace_back(atypical(x), x);
  const size_t kept = SmallestSet(
      &order, p * sum,
      [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first < b.first : a.second.token < b.second.token;
      },
      [](const auto& x) { return x.second.weight; });
  c->clear();
  for (size_t i = 0; i < kept; ++i) c->push_back(order[i].second);
}

void KeepMinP(std::vector<Candidate>* c, double p) {
  if (p <= 0.0) return;
  double most = 0;
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

int32_t Choose(std::span<const float> logits, int32_t most_likely, const SamplingParams& p,
               uint64_t position, std::vector<Candidate>* c) {
  if (p.temperature == 0.0f) return most_likely;
  c->clear();
  const double top = logits[most_likely];
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kNever) continue;
    c->push_back({std::exp((logits[i] - top) / p.temperature), static_cast<int32_t>(i)});
  }
  KeepTopK(c, static_cast<size_t>(p.top_k));
  KeepTypical(c, p.typical_p);
  KeepTopP(c, p.top_p);
  KeepMinP(c, p.min_p);
  return Draw(*c, RandomStream{p.seed, p.stream}.Uniform(position));
}

/// Of the model's own distribution.
void AddLogprobs(std::span<const float> raw, int32_t wanted, SampledToken* out) {
  const double top = *std::max_element(raw.begin(), raw.end());
  double sum = 0;
  for (const float x : raw) sum += std::exp(x - top);
  const double log_sum = top + std::log(sum);
  const auto logprob = [&](int32_t t) { return static_cast<float>(raw[t] - log_sum); };
  out->logprob = logprob(out->token);
  std::vector<int32_t> order(raw.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto n = std::min(static_cast<size_t>(wanted), order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(n), order.end(),
      [&](int32_t a, int32_t b) { return raw[a] != raw[b] ? raw[a] > raw[b] : a < b; });
  for (size_t i = 0; i < n; ++i) out->top.push_back({order[i], logprob(order[i])});
}

}  // namespace

Result<SampledToken> Score(std::span<const float> logits, int32_t token, int32_t most_likely) {
  KV_RETURN_IF_ERROR(CheckLogits(logits));
  SampledToken out;
  out.token = token;
  AddLogprobs(logits, most_likely, &out);
  return out;
}

Result<SampledToken> Sample(std::span<float> logits, const SamplingParams& params,
                            const SampleContext& context, SamplerScratch& scratch) {
  KV_RETURN_IF_ERROR(CheckLogits(logits));
  if (params.logprobs >= 0) scratch.raw.assign(logits.begin(), logits.end());
  ApplyPenalties(logits, params, context, &scratch);
  const auto most = std::max_element(logits.begin(), logits.end());
  if (*most == kNever) {
    return MakeError(ErrorCode::kInvalid, "no token can follow: all {} have probability 0",
                     logits.size());
  }
  SampledToken out;
  out.token = Choose(logits, static_cast<int32_t>(most - logits.begin()), params,
                     context.tokens.size(), &scratch.candidates);
  if (params.logprobs >= 0) AddLogprobs(scratch.raw, params.logprobs, &out);
  return out;
}

}  // namespace kvasir
