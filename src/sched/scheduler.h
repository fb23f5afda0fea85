#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/manager.h"
#include "sched/cost_model.h"
#include "sched/sequence.h"
#include "sched/step.h"

namespace kvasir {

struct SchedulerOptions {
  int32_t max_step_tokens = 512;  ///< rows of one step at most
  int32_t max_sequences = 1;      ///< running at once at most
  /// Steps in which somebody decodes should take no longer: prefill gets what is left of it. 0:
  /// off.
  double itl_target_s = 0;
  /// The least time of such a step that prompts get, as a share of what decoding takes: where
  /// decoding alone takes longer than the target, a prompt must still end. More lets prompts go on
  /// at the expense of those who decode.
  double least_prefill = 0.2;
  /// Off: a prompt is computed in one step, however long (a baseline of the simulator).
  bool chunked_prefill = true;
  int32_t max_logit_rows = 1 << 30;  ///< wanted rows of one step at most; >= max_sequences
  /// A sequence that waited for so many steps, all its waits together, has the highest priority
  /// that waits, and a running prompt that so many steps left out has the highest that runs.
  /// Fairness among tenants and the order of arrival do the rest: the bound on how long the oldest
  /// waits.
  int32_t max_wait_steps = 1000;
};

/// What a tenant may take. Tenants that were never set have the defaults.
struct TenantOptions {
  double weight = 1;      ///< share of the machine, relative to others'
  int64_t kv_blocks = 0;  ///< blocks that its running sequences hold at most; 0: no limit
};

struct SchedulerCounters {
  uint64_t steps = 0, preemptions = 0, admitted = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0;  ///< of first admissions
  uint64_t layered = 0;                           ///< slices that passed through some layers only
  uint64_t misses[5] = {};                        ///< by MissReason, of first admissions
};

/// Decides whose tokens are computed when. Plan moves no bytes and changes nothing but block
/// tables; results change state in Commit only.
///
/// Prefill and decode differ by the number of tokens alone. Each step takes one token of every
/// sequence that decodes, then chunks of prompts, tenants that were served least first. A sequence
/// is admitted when there is room for its prompt; one whose prefix is being computed for another
/// waits for it. When the pool runs short, blocks that nobody uses are given up; then the youngest
/// sequence is preempted: its blocks stay cached as long as there is room, so it resumes by a hit.
class Scheduler {
 public:
  Scheduler(SchedulerOptions options, KvManager* kv);
  ~Scheduler();

  void SetTenant(uint64_t tenant, const TenantOptions& options);

  /// Queues a sequence. `now_ns` (here and below): any clock; what SequenceTimes count in.
  void Add(std::unique_ptr<Sequence> sequence, int64_t now_ns = 0);
  /// Between steps: a second sequence that goes on from what `parent` has computed, with tokens of
  /// its own after that. Shares the parent's blocks, and takes one of its places if it keeps more.
  /// Where max_sequences run already it waits, as if it had been preempted.
  void Fork(SequenceId parent, std::unique_ptr<Sequence> child);
  /// Between steps: how many places a sequence keeps from now on. Sequences of one request hand
  /// them on when one ends, so that they can become as many again.
  void SetPlaces(SequenceId id, int32_t places);
  /// Between steps: the next token of a sequence whose tokens are chosen outside.
  void Append(SequenceId id, int32_t token);

  /// What a step did to one sequence. The spans belong to the step's result.
  struct Progress {
    SequenceId id = 0;
    Sequence* sequence = nullptr;  ///< valid until Finish
    /// The first is already appended to it, unless they are chosen outside.
    std::span<SampledToken> tokens;
    std::span<SampledToken> prompt_logprobs;  ///< of the prompt's next tokens
    std::optional<Error> error;
  };

  /// The next step; no slices when there is nothing to do. Valid until Commit.
  const StepPlan& Plan(int64_t now_ns = 0);
  /// Takes the result of the planned step. The caller decides who is finished; those with an error
  /// must be. Valid until the next Commit, as far as the result is.
  std::span<Progress> Commit(StepResult& result, int64_t now_ns = 0);
  /// How long the planned step took: what the cost model learns from.
  void Measured(double seconds);

  /// Ends a sequence in any state. Unknown ids are ignored. With `keep`, the K and V that it has
  /// computed of its first `most` tokens stay for later prompts that start with them.
  void Finish(SequenceId id, bool keep, int32_t most = INT32_MAX);

  /// Gives up the blocks of all finished sequences.
  void DropCache() { kv_->DropCache(); }

  const Sequence* Find(SequenceId id) const;
  /// Its times, all until `now_ns` accounted for. CHECKs that it exists.
  const SequenceTimes& TimesUntil(SequenceId id, int64_t now_ns);
  /// Calls fn(sequence) for all of them: running ones in order of admission, then those that wait.
  template <typename F>
  void Visit(F fn) const {
    for (const auto& s : running_) fn(*s);
    for (const auto& [tenant, queue] : waiting_by_tenant_) {
      for (const auto& [key, s] : queue) fn(*s);
    }
  }
  /// Calls fn(id, options, tokens served divided by the weight) for all tenants seen so far.
  template <typename F>
  void VisitTenants(F fn) const {
    for (const auto& [id, tenant] : tenants_) fn(id, tenant.options, tenant.served);
  }
  /// Seconds that the planned step should take at most; 0: no limit.
  double step_limit() const { return step_limit_; }
  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_; }
  /// Of one tenant.
  size_t waiting(uint64_t tenant) const {
    const auto queue = waiting_by_tenant_.find(tenant);
    return queue == waiting_by_tenant_.end() ? 0 : queue->second.size();
  }
  /// Tenants of which some wait; queues may be empty.
  size_t waiting_tenants() const {
    size_t count = 0;
    for (const auto& [tenant, queue] : waiting_by_tenant_) count += queue.empty() ? 0 : 1;
    return count;
  }
  const SchedulerCounters& counters() const { return counters_; }
  CostModel& cost_model() { return cost_; }
  const CostModel& cost_model() const { return cost_; }

 private:
  struct Tenant {
    TenantOptions options;
    double served = 0;           // tokens divided by weight
    uint64_t last_admitted = 0;  // which admission of all was its last
    // Blocks that its running sequences hold, as of the manager's change `counted`: a bound, or
    // with `exact` what they share counted once.
    int64_t held = 0;
    uint64_t counted = 0;
    bool exact = false;
  };
  /// Waiting sequences: higher priority first, then the tenant served least, then first come.
  struct WaitKey {
    int32_t priority;
    uint64_t arrival;
    SequenceId id;
    bool operator<(const WaitKey& o) const {
      if (priority != o.priority) return priority > o.priority;
      return arrival != o.arrival ? arrival < o.arrival : id < o.id;
    }
  };
  using Queue = std::map<WaitKey, std::unique_ptr<Sequence>>;

  enum class Admission { kAdmitted, kWaitsForPrefix, kNoRoom, kOverQuota };
  void Admit();
  Admission AdmitNext(Queue& queue, Queue::iterator* at);
  double Beginning(const Tenant& tenant) const;
  void Dequeued(uint64_t tenant);
  void RaiseOld();
  void GetUnstuck();
  bool PlanOldestAlone();
  Admission TryAdmit(Sequence* sequence);
  bool WaitsForPrefix(Sequence* sequence, const PrefixMatch& match);
  bool StillWaits(Sequence* sequence);
  bool Refused(const Sequence& sequence) const;
  bool HeldUp(const Sequence& writer, const Sequence& waiting) const;
  bool PlanSlice(Sequence* sequence, int32_t count, int32_t layers = 0);
  int32_t PlanDecoding();
  void PlanPrompts(int32_t decoding);
  bool PlanLayers(Sequence* sequence, int32_t rows, double limit);
  double PromptSeconds(const Sequence& sequence, int32_t count) const;
  int64_t ExpectedGrowth(const Sequence& sequence) const;
  int64_t RestOfPrompt(const Sequence& sequence) const;
  /// Rows that a prompt of so many tokens takes in a step at most.
  int32_t MostSlice(int32_t tokens) const {
    return options_.chunked_prefill ? options_.max_step_tokens : tokens;
  }
  int64_t CountBlocks(uint64_t tenant);
  bool WithinQuota(uint64_t tenant, int64_t more);
  bool MayHold(const Sequence& sequence, const PrefixMatch& match, int64_t wanted);
  bool GiveWay(const Sequence& sequence);
  bool MakeQuota(Sequence* sequence, int32_t tokens);
  Sequence* Victim(const Sequence& sequence, bool same_tenant) const;
  void AccountWaiting(Sequence* sequence);
  void AccountStep();
  CostModel::Work PlannedWork() const;
  bool MakeRoom(Sequence* sequence, int32_t tokens);
  void Preempt(Sequence* sequence);
  double StepLimit(int32_t decoding);
  void Enqueue(std::unique_ptr<Sequence> sequence);

  SchedulerOptions options_;
  KvManager* kv_;
  CostModel cost_;
  std::map<uint64_t, Queue> waiting_by_tenant_;
  size_t waiting_ = 0;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::unordered_map<SequenceId, Sequence*> by_id_;
  int32_t places_ = 0;       // of running_
  double step_limit_ = 0;    // of plan_, in seconds
  int32_t mixed_steps_ = 0;  // since one only decoded
  double mean_output_ = 0;   // tokens of output of sequences that ended lately
  int64_t now_ns_ = 0;       // of the last call that told
  int32_t logit_rows_ = 0;   // wanted rows of plan_
  std::map<uint64_t, Tenant> tenants_;
  double last_served_ = 0;      // of the tenant of which last nobody waited any more
  uint64_t admissions_ = 0;     // also again after a preemption
  std::vector<uint64_t> seen_;  // [block] the last count that met it
  uint64_t count_ = 0;
  uint64_t arrivals_ = 0;
  SchedulerCounters counters_;
  StepPlan plan_;
  std::vector<Sequence*> planned_;     // of plan_.slices
  std::vector<Sequence*> candidates_;  // for it, while it is made
  std::vector<Progress> progress_;     // of the last Commit
};

}  // namespace kvasir
