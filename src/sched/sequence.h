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
  SequenceKv kv;              ///< kv.computed tokens have their K and V in the cache
  int32_t cached_tokens = 0;  ///< of the prompt, found in the cache when it was admitted
  uint64_t salt = 0;          ///< sequences of one salt may share prefixes
  uint64_t tenant = 0;        ///< whose tokens are served
  double weight = 1;          ///< the tenant's share of the machine, relative to others'
  int32_t priority = 0;       ///< higher is admitted first, and preempted last

  // Kept by the scheduler.
  uint64_t arrival = 0;  ///< order of Add
  int32_t preemptions = 0;
  MissReason miss = MissReason::kNone;  ///< why no more of the prompt was cached
  PrefixMatch match;                    ///< numbers of the match at admission; its nodes are empty
  uint64_t waits_for = 0;               ///< a running sequence that is computing its prefix
  int32_t waits_until = 0;              ///< how many tokens of it

  int32_t total() const { return static_cast<int32_t>(tokens.size()); }
  int32_t output_tokens() const { return total() - prompt_tokens; }
  int32_t pending() const { return total() - kv.computed; }
};

}  // namespace kvasir
