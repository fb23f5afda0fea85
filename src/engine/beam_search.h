#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sample/sampler.h"

namespace kvasir {

/// The choices of beam search: which beams go on with which token. Knows nothing of caches.
///
/// Each step every beam offers its 2 * width most likely tokens. End tokens complete a hypothesis;
/// of the others the `width` most likely continuations go on. It ends when the length is reached,
/// or when no beam can still beat the worst of `width` complete hypotheses.
class BeamSearch {
 public:
  struct Options {
    int32_t width = 1;
    float length_penalty = 1;
    int32_t max_tokens = 1;
    std::vector<int32_t> end_tokens;  ///< complete a hypothesis
    bool ignore_end = false;          ///< end tokens are passed over instead
  };
  struct Hypothesis {
    std::vector<SampledToken> tokens;  ///< an end token included
    double logprob = 0;                ///< of all its tokens
    double score = 0;
    bool ended = false;  ///< by an end token; else by the length
  };
  /// A beam of the next step: the token `token` after beam `parent` of this one.
  struct Next {
    int32_t parent = 0;
    int32_t token = 0;
  };

  explicit BeamSearch(Options options);

  /// How many candidates each beam must offer.
  int32_t candidates() const { return 2 * options_.width; }
  /// `offers`: for each beam its most likely tokens, best first. The beams of the next step, in the
  /// order of their probability; none when the search is over.
  std::vector<Next> Advance(std::span<const std::vector<TokenLogprob>> offers);
  /// When it is over: the best hypotheses, best first.
  std::vector<Hypothesis> Best(int32_t n) const;

 private:
  double Score(double logprob, size_t tokens) const;
  bool CanStillWin() const;

  Options options_;
  std::vector<Hypothesis> live_, complete_;
};

}  // namespace kvasir
