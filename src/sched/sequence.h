#pragma once

#include <cstdint>
#include <vector>

#include "kv/manager.h"
#include "sample/params.h"
#include "sched/step.h"

namespace kvasir {

/// Where a sequence's time went, in seconds. The sum is all its time in the scheduler.
struct SequenceTimes {
  double queue = 0;      ///< before it was admitted first
  double prefix = 0;     ///< waiting for a prefix that another was computing
  double prefill = 0;    ///< its prompt was computed
  double others = 0;     ///< steps, or shares of steps, that computed others' prompts
  double preempted = 0;  ///< waiting after a preemption, and computing again what was lost
  double decode = 0;     ///< its output was computed
  double output = 0;     ///< from its last step to its end: text and stop rules

  double total() const { return queue + prefix + prefill + others + preempted + decode + output; }
};

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
  int32_t priority = 0;       ///< higher is admitted first, and preempted last
  /// Sequences that it may become by Fork: places among the running that are kept for them.
  int32_t places = 1;
  int32_t samples = 1;  ///< drawn from its next logits (parallel sampling); then 1
  /// Its tokens are chosen by whoever owns it, with Append: Commit adds none (beam search).
  bool chosen_outside = false;
  int32_t prompt_logprobs = -1;  ///< >= 0: wanted for the prompt, with so many beside each

  // Kept by the scheduler.
  uint64_t arrival = 0;        ///< order of Add
  uint64_t waits_since = 0;    ///< step since which it waits, if it does
  uint64_t waited_steps = 0;   ///< that it waited before
  uint64_t refused_step = 0;   ///< when its tenant's quota last left no room for it
  uint64_t admitted_step = 0;  ///< when it was admitted first
  uint64_t served_step = 0;    ///< when it was admitted last, or last part of a step after that
  int64_t since_ns = 0;        ///< all time before it is accounted for in `times`
  SequenceTimes times;
  int32_t logprobs_done = 0;  ///< rows whose prompt_logprobs were given
  int32_t answered = 0;       ///< chosen_outside: how many tokens it had when it last gave logits
  int32_t slice = -1;         ///< its slice in the planned step
  /// > 0: this many tokens after kv.computed have passed through `layers_done` layers.
  int32_t layered = 0;
  int32_t layers_done = 0;
  int32_t preemptions = 0;
  MissReason miss = MissReason::kNone;  ///< why no more of the prompt was cached
  PrefixMatch match;                    ///< numbers of the match at admission; its nodes are empty
  uint64_t waits_for = 0;               ///< a running sequence that is computing its prefix
  int32_t waits_until = 0;              ///< how many tokens of it

  int32_t total() const { return static_cast<int32_t>(tokens.size()); }
  int32_t output_tokens() const { return total() - prompt_tokens; }
  int32_t pending() const { return total() - kv.computed; }
  /// Whoever chooses its tokens has its logits, and is to choose.
  bool waits_for_choice() const { return chosen_outside && answered == total(); }
  /// Of two, the one that came first: it may take the other's room, never the other way round.
  bool OlderThan(const Sequence& o) const {
    return arrival != o.arrival ? arrival < o.arrival : id < o.id;
  }
};

}  // namespace kvasir
