#pragma once

#include <cstdint>
#include <vector>

#include "kv/manager.h"
#include "sample/params.h"
#include "sched/step.h"

namespace kvasir {

/// One stream of tokens being computed.
struct Sequence {
  SequenceId id = 0;
  std::vector<int32_t> tokens;  ///< prompt, then output; the last may not be computed yet
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;  ///< of output; prompt_tokens + max_tokens fits the context
  SamplingParams sampling;
  SequenceKv kv;                ///< kv.computed tokens have their K and V in the cache
  int32_t cached_tokens = 0;    ///< of the prompt, found in the cache when it was admitted
  int64_t reserved_blocks = 0;  ///< the most it can ever hold; set when admitted

  int32_t total() const { return static_cast<int32_t>(tokens.size()); }
  int32_t output_tokens() const { return total() - prompt_tokens; }
  int32_t pending() const { return total() - kv.computed; }
};

}  // namespace kvasir
