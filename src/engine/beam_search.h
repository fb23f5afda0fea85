#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sample/sampler.h"

namespace kvasir {

/// The choices of beam search: which beams go on with which token. Knows nothing of caches.
///
/// Each step every beam offers its most likely tokens, 2 * width of them that are not passed over.
/// End tokens complete a hypothesis; of the others the `width` most likely continuations go on. It
/// ends when the length is reached, or when no beam can still beat the worst of `width` complete
/// hypotheses; or when nothing can go on, with at least one hypothesis in any case.
class BeamSearch {
 public:
  struct Options {
    int32_t width = 1;
    float length_penalty = 1;
    int32_t max_tokens = 1;
    std::vector<int32_t> end_tokens;   ///< complete a hypothesis
    std::vector<int32_t> passed_over;  ///< never chosen, though they may be end tokens
  };
  struct Hypothesis {
    std::vector<SampledToken> tokens;  ///< an end token included
    double logprob = 0;                ///< of all its tokens
    double score = 0;
    bool ended = false;  ///< by an end token, or nothing could follow; else by the length
  };
  /// A beam of the next step: the token `token` after beam `parent` of this one.
  struct Next {
    int32_t parent = 0;
    int32_t token = 0;
  };

  explicit BeamSearch(Options options);

  /// `offers`: for each beam its most likely tokens, best first, so many that 2 * width of them are
  /// not passed over. The beams of the next step, in the
  /// order of their probability; none when the search is over.
  std::vector<Next> Advance(std::span<const std::vector<TokenLogprob>> offers);
  /// When it is over: the best hypotheses, best first.
  std::vector<Hypothesis> Best(int32_t n) const;
  /// Of a beam with these tokens: how many of them the `n` best so far begin with, each without its
  /// last token. -1: none of these came of it.
  int32_t Used(std::span<const int32_t> tokens, int32_t n) const;
  /// What the hypotheses take on the heap, about.
  uint64_t bytes() const;

 private:
  double Score(double logprob, size_t tokens) const;
  bool CanStillWin() const;
  void Complete(const Hypothesis& live, const SampledToken* end);

  Options options_;
  std::vector<Hypothesis> live_;
  std::vector<Hypothesis> complete_;  // the `width` best, best first
};

}  // namespace kvasir
