#include "engine/beam_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace kvasir {

BeamSearch::BeamSearch(Options options) : options_(std::move(options)) {
  CHECK_GT(options_.width, 0);
  std::sort(options_.end_tokens.begin(), options_.end_tokens.end());
  std::sort(options_.passed_over.begin(), options_.passed_over.end());
  live_.resize(1);
}

double BeamSearch::Score(double logprob, size_t tokens) const {
  return logprob / std::pow(static_cast<double>(std::max<size_t>(tokens, 1)),
                            double{options_.length_penalty});
}

bool BeamSearch::CanStillWin() const {
  if (complete_.size() < static_cast<size_t>(options_.width)) return true;
  // Log probabilities only fall; the length that divides them is the best one still possible.
  double best = -INFINITY;
  for (const Hypothesis& h : live_) {
    best = std::max({best, Score(h.logprob, h.tokens.size()),
                     Score(h.logprob, static_cast<size_t>(options_.max_tokens))});
  }
  return best > complete_.back().score;
}

/// Keeps a hypothesis if it is among the `width` best: `live`, or `live` and the token that ends
/// it. Only these can be the answer, and each has all its tokens: many may complete in one step.
void BeamSearch::Complete(const Hypothesis& live, const SampledToken* end) {
  const double logprob = live.logprob + (end != nullptr ? end->logprob : 0);
  const double score = Score(logprob, live.tokens.size());
  const auto at = std::upper_bound(complete_.begin(), complete_.end(), score,
                                   [](double s, const Hypothesis& h) { return s > h.score; });
  const auto width = static_cast<size_t>(options_.width);
  if (static_cast<size_t>(at - complete_.begin()) == width) return;
  const auto kept = complete_.insert(at, live);
  kept->logprob = logprob;
  kept->score = score;
  kept->ended = end != nullptr;
  if (end != nullptr) kept->tokens.push_back(*end);
  if (complete_.size() > width) complete_.pop_back();
}

std::vector<BeamSearch::Next> BeamSearch::Advance(
    std::span<const std::vector<TokenLogprob>> offers) {
  CHECK_EQ(offers.size(), live_.size());
  struct Choice {
    double logprob;
    int32_t parent, token;
    float own;
  };
  const auto in = [](const std::vector<int32_t>& sorted, int32_t token) {
    return std::binary_search(sorted.begin(), sorted.end(), token);
  };
  std::vector<Choice> choices;
  for (size_t b = 0; b < offers.size(); ++b) {
    const size_t most = choices.size() + 2 * static_cast<size_t>(options_.width);
    for (const TokenLogprob& o : offers[b]) {
      if (choices.size() == most) break;
      if (in(options_.passed_over, o.token)) continue;
      choices.push_back(
          {live_[b].logprob + o.logprob, static_cast<int32_t>(b), o.token, o.logprob});
    }
  }
  std::stable_sort(choices.begin(), choices.end(),
                   [](const Choice& a, const Choice& b) { return a.logprob > b.logprob; });
  std::vector<Hypothesis> live;
  std::vector<Next> next;
  for (const Choice& c : choices) {
    if (next.size() == static_cast<size_t>(options_.width)) break;
    const SampledToken token{.token = c.token, .logprob = c.own, .top = {}};
    if (in(options_.end_tokens, c.token)) {
      Complete(live_[c.parent], &token);
      continue;
    }
    live.push_back(live_[c.parent]);
    live.back().logprob = c.logprob;
    live.back().tokens.push_back(token);
    next.push_back({c.parent, c.token});
  }
  if (next.empty() && complete_.empty()) {
    // All that could follow is passed over: the beams are the answer as they were.
    for (const Hypothesis& h : live_) Complete(h, nullptr);
    for (Hypothesis& h : complete_) h.ended = true;
  }
  live_ = std::move(live);
  if (!live_.empty() && live_[0].tokens.size() >= static_cast<size_t>(options_.max_tokens)) {
    for (const Hypothesis& h : live_) Complete(h, nullptr);
    live_.clear();
  }
  if (live_.empty() || !CanStillWin()) next.clear();
  return next;
}

std::vector<BeamSearch::Hypothesis> BeamSearch::Best(int32_t n) const {
  const size_t count = std::min(complete_.size(), static_cast<size_t>(n));
  return {complete_.begin(), complete_.begin() + static_cast<ptrdiff_t>(count)};
}

int32_t BeamSearch::Used(std::span<const int32_t> tokens, int32_t n) const {
  int32_t used = -1;
  for (size_t i = 0; i < std::min(complete_.size(), static_cast<size_t>(n)); ++i) {
    const std::vector<SampledToken>& told = complete_[i].tokens;
    const size_t before = told.empty() ? 0 : told.size() - 1;
    if (before <= tokens.size() &&
        std::equal(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(before), told.begin(),
                   [](int32_t a, const SampledToken& b) { return a == b.token; }))
      used = std::max(used, static_cast<int32_t>(before));
  }
  return used;
}

uint64_t BeamSearch::bytes() const {
  uint64_t bytes = 0;
  for (const auto* all : {&live_, &complete_}) {
    for (const Hypothesis& h : *all)
      bytes += sizeof(Hypothesis) + h.tokens.capacity() * sizeof(SampledToken);
  }
  return bytes;
}

}  // namespace kvasir
