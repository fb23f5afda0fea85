#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sample/logits.h"
#include "sample/params.h"

namespace kvasir {

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0.0f;  ///< natural log of the probability, of the model's own distribution
                         ///< (before penalties and filters); only if logprobs were asked for
  std::vector<TokenLogprob> top;  ///< the most likely tokens, best first, ties by lower id
};

/// What the sampler must know of the sequence: all its tokens, and how many of them are prompt.
struct SampleContext {
  std::span<const int32_t> tokens;  ///< prompt and output so far
  int32_t prompt_tokens = 0;
  std::span<const int32_t>
      end_of_generation;  ///< the model's end tokens, for ignore_eos/min_tokens
};

/// Memory that Sample and Score keep between calls, to save allocations.
struct SamplerScratch {
  /// What it grows to at most.
  static size_t Bytes(size_t vocab);

  struct Candidate {
    float logit, weight;  ///< weight: probability, up to a common factor
    int32_t token;
  };
  std::vector<Candidate> candidates;
  std::vector<int32_t> tokens;
  std::vector<float> largest;  ///< of each block of logits
  LogitWeights distribution;
  std::vector<float> raw;       ///< the logits as the model gave them, when logprobs are wanted
  std::vector<int32_t> counts;  ///< [vocab], zero between calls
};

/// Chooses the next token. A pure function of its arguments: the random number is the stream's at
/// position tokens.size(), so the same seed means the same text in any batch, chunking or restart.
/// `logits` [vocab] is used as scratch and is changed. Returns an error when a logit is NaN or
/// +infinity, or no token is left (that request fails; nobody else is touched).
Result<SampledToken> Sample(std::span<float> logits, const SamplingParams& params,
                            const SampleContext& context, SamplerScratch& scratch);

/// The log probability of a given token, and the `most_likely` most likely ones. An error when a
/// logit is NaN or +infinity.
Result<SampledToken> Score(std::span<const float> logits, int32_t token, int32_t most_likely,
                           SamplerScratch& scratch);

}  // namespace kvasir
