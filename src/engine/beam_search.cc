#include "engine/beam_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace kvasir {

BeamSearch::BeamSearch(Options options) : options_(std::move(options)) {
  CHECK_GT(options_.width, 0);
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
  std::vector<double> scores;
  for (const Hypothesis& h : complete_) scores.push_back(h.score);
  std::nth_element(scores.begin(), scores.begin() + options_.width - 1, scores.end(),
                   std::greater<>());
  return best > scores[options_.width - 1];
}

std::vector<BeamSearch::Next> BeamSearch::Advance(
    std::span<const std::vector<TokenLogprob>> offers) {
  CHECK_EQ(offers.size(), live_.size());
  struct Choice {
    double logprob;
    int32_t parent, token;
    float own;
  };
  std::vector<Choice> choices;
  for (size_t b = 0; b < offers.size(); ++b) {
    for (const TokenLogprob& o : offers[b]) {
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
    const bool end = std::find(options_.end_tokens.begin(), options_.end_tokens.end(), c.token) !=
                     options_.end_tokens.end();
    if (end && options_.ignore_end) continue;
    Hypothesis h = live_[c.parent];
    h.logprob = c.logprob;
    h.score = Score(c.logprob, h.tokens.size() + (end ? 0 : 1));
    h.tokens.push_back({.token = c.token, .logprob = c.own, .top = {}});
    h.ended = end;
    if (end) {
      complete_.push_back(std::move(h));
      continue;
    }
    live.push_back(std::move(h));
    next.push_back({c.parent, c.token});
  }
  live_ = std::move(live);
  const bool full =
      !live_.empty() && live_[0].tokens.size() >= static_cast<size_t>(options_.max_tokens);
  if (full) {
    std::move(live_.begin(), live_.end(), std::back_inserter(complete_));
    live_.clear();
  }
  if (full || !CanStillWin()) next.clear();
  return next;
}

std::vector<BeamSearch::Hypothesis> BeamSearch::Best(int32_t n) const {
  std::vector<Hypothesis> out = complete_;
  std::stable_sort(out.begin(), out.end(),
                   [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  out.resize(std::min(out.size(), static_cast<size_t>(n)));
  return out;
}

}  // namespace kvasir
