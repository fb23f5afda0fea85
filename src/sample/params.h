#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// How the next token is chosen from the logits. The filters run in the order of the fields from
/// `logit_bias` on; each one's definition is that of its source.
struct SamplingParams {
  // Which tokens at all.
  std::vector<std::pair<int32_t, float>> logit_bias;  ///< added to the logit; -100..100
  float repetition_penalty =
      1.0f;  ///< Keskar et al. 2019 (CTRL): > 1 makes seen tokens less likely
  float frequency_penalty =
      0.0f;                       ///< OpenAI API: subtracted once for each occurrence in the output
  float presence_penalty = 0.0f;  ///< OpenAI API: subtracted once if it occurs in the output
  int32_t penalty_last_n = -1;    ///< how many last tokens count for repetition_penalty; -1: all
  bool ignore_eos = false;        ///< end-of-generation tokens are never chosen
  int32_t min_tokens = 0;         ///< no end-of-generation token before so many were generated
  std::vector<int32_t> stop_tokens;  ///< that end the text too: none before min_tokens

  // Filters over the distribution.
  float temperature = 0.0f;  ///< 0: greedy, the first of the largest logits; filters are skipped
  int32_t top_k = 0;         ///< 0: off
  float typical_p = 1.0f;    ///< 1: off. Meister et al. 2022, locally typical sampling
  float top_p = 1.0f;        ///< 1: off. Holtzman et al. 2020, nucleus
  float min_p = 0.0f;        ///< 0: off. Nguyen et al. 2024

  uint64_t seed = 0;      ///< with `stream`, the key of the counter-based random stream
  uint32_t stream = 0;    ///< separates the sequences of one request
  int32_t logprobs = -1;  ///< -1: none; n: the chosen token's and the n most likely ones'
};

/// Checks every range; an error names the field, its value and what is allowed.
/// `vocab_size` bounds logit_bias ids and logprobs.
Status Validate(const SamplingParams& params, int32_t vocab_size);

inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopTokens = 1024;

/// When a generation ends, besides its length limit.
struct StopRules {
  std::vector<std::string> strings;  ///< none is ever shown, not even a part of one
  std::vector<int32_t> token_ids;    ///< ends the text; not shown
  bool end_of_generation = true;     ///< the model's own end tokens end it
};

/// Checks counts and sizes; an error names the field, its value and what is allowed.
Status Validate(const StopRules& rules, int32_t vocab_size);

}  // namespace kvasir
