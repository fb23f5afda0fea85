#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "kv/manager.h"
#include "sample/params.h"
#include "sample/sampler.h"
#include "sched/scheduler.h"
#include "sched/step.h"
#include "text/tokenizer.h"

namespace kvasir {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> prompt;  ///< at least one token
  int32_t max_tokens = -1;      ///< -1: until the context is full
  SamplingParams sampling;
  StopRules stop;
  bool special = false;  ///< control tokens appear in the text
};

enum class FinishReason {
  kStop,     ///< a stop string, stop token or end-of-generation token
  kLength,   ///< max_tokens
  kContext,  ///< the context is full
  kCancelled,
  kError,
};
std::string_view NameOf(
    FinishReason reason);  ///< "stop", "length", "context", "cancelled", "error"

/// What a request used, and when (Clock time).
struct RequestStats {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;  ///< of the prompt, whose K and V were still in the cache
  int32_t output_tokens = 0;  ///< generated, end-of-generation and stop tokens included
  int64_t submitted_ns = 0;
  int64_t first_token_ns = 0;  ///< 0: none yet
  int64_t last_token_ns = 0;

  double ttft_seconds() const;  ///< submission to first token
  double decode_tokens_per_second()
      const;  ///< of the tokens after the first; 0 with fewer than two
};

/// Something that happened to a request, in order.
struct Event {
  enum class Kind { kPrefill, kToken, kFinished };
  RequestId request = 0;
  Kind kind = Kind::kToken;
  // kPrefill: progress of the prompt, cached tokens counted as done.
  int32_t prefill_done = 0, prefill_total = 0;
  // kToken: the token, and the text that became certain with it (may be empty). Stop strings and
  // stop tokens never show in the text.
  SampledToken token;
  std::string text;
  // kFinished: `text` holds what was still held back.
  FinishReason reason = FinishReason::kStop;
  RequestStats stats;
  std::string error;  ///< kError: what happened
};

struct EngineOptions {
  int32_t context = 0;                     ///< longest sequence, prompt and output
  int32_t max_step_tokens = 512;           ///< rows of one step at most
  int32_t max_sequences = 1;               ///< running at once at most
  std::vector<int32_t> end_of_generation;  ///< the model's end tokens
};

/// The step loop: requests in, events out. Owns scheduler and KV manager; the executor and
/// tokenizer must outlive it. One thread calls it.
class Engine {
 public:
  Engine(EngineOptions options, KvLayout layout, int32_t blocks, Executor* executor,
         const Tokenizer* tokenizer, const Clock* clock);
  ~Engine();

  /// Takes a request, or refuses it with numbers (empty, longer than the context, more blocks than
  /// there are, bad sampling parameters).
  Result<RequestId> Submit(Request request);
  /// Ends a request; its kFinished event comes with the next Step. Unknown ids are ignored.
  void Cancel(RequestId id);

  /// Runs one step and appends what happened to `events`. False when there is nothing to do.
  bool Step(std::vector<Event>* events);

  /// Forgets the K and V of finished requests.
  void DropCache();

  const KvManager& kv() const;
  const SchedulerCounters& scheduler_counters() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
