#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/request.h"
#include "engine/step_log.h"
#include "kv/manager.h"
#include "sched/scheduler.h"
#include "sched/step.h"
#include "text/tokenizer.h"

namespace kvasir {

struct EngineOptions {
  int32_t context = 0;            ///< longest sequence, prompt and output
  int32_t max_step_tokens = 512;  ///< rows of one step at most
  int32_t max_sequences = 1;      ///< running at once at most
  int32_t max_logit_rows = 0;     ///< of one step; 0: max_sequences
  double itl_target_s = 0;        ///< see SchedulerOptions
  double least_prefill = 0.2;     ///< see SchedulerOptions
  /// Requests that may wait; 0: no bound. Beyond, a tenant with less than an equal share of the
  /// places still gets one, up to twice as many in all: a flood by one does not shut others out.
  int64_t max_waiting = 0;
  std::vector<int32_t> end_of_generation;  ///< the model's end tokens
};

/// The step loop: requests in, events out. Owns scheduler and KV manager; the executor and
/// tokenizer must outlive it. One thread calls it.
class Engine {
 public:
  Engine(EngineOptions options, KvLayout layout, int32_t blocks, Executor* executor,
         const Tokenizer* tokenizer, const Clock* clock);
  ~Engine();

  /// Takes a request, or refuses it with numbers: empty, longer than the context, more blocks than
  /// there are or than its tenant may have, parameters out of range (kInvalid, kNoMemory), or
  /// too many are waiting (kBusy).
  Result<RequestId> Submit(Request request);
  /// Ends a request; its kFinished events come with the next Step. Unknown ids are ignored.
  void Cancel(RequestId id);

  /// Runs one step and appends what happened to `events`. False when there is nothing to do.
  bool Step(std::vector<Event>* events);

  /// From now on.
  void SetTenant(uint64_t tenant, const TenantOptions& options);
  /// Forgets the K and V of finished requests.
  void DropCache();

  const KvManager& kv() const;
  const Scheduler& scheduler() const;
  const StepLog& step_log() const;
  const Clock& clock() const;
  /// Bytes of requests and their texts, tokens and stop rules; estimated.
  uint64_t queue_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
