#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
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
  /// Off: a prompt is computed in one step, however long (a baseline of the simulator).
  bool chunked_prefill = true;
};

struct SchedulerCounters {
  uint64_t steps = 0, preemptions = 0, admitted = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0;  ///< of first admissions
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

  /// Queues a sequence.
  void Add(std::unique_ptr<Sequence> sequence);

  /// What a step did to one sequence.
  struct Progress {
    Sequence* sequence = nullptr;      ///< valid until Finish
    std::vector<SampledToken> tokens;  ///< already appended to it
    std::optional<Error> error;
  };

  /// The next step; no slices when there is nothing to do. Valid until Commit.
  const StepPlan& Plan();
  /// Takes the result of the planned step. The caller decides who is finished.
  std::vector<Progress> Commit(const StepResult& result);
  /// How long the planned step took: what the cost model learns from.
  void Measured(double seconds);

  /// Ends a sequence in any state. Unknown ids are ignored. With `keep`, the K and V that it has
  /// computed stay for later prompts that start with them.
  void Finish(SequenceId id, bool keep);

  /// Gives up the blocks of all finished sequences.
  void DropCache() { kv_->DropCache(); }

  const Sequence* Find(SequenceId id) const;
  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_; }
  const SchedulerCounters& counters() const { return counters_; }
  CostModel& cost_model() { return cost_; }

 private:
  struct Tenant {
    double served = 0;  // tokens divided by weight
    int32_t sequences = 0;
  };
  /// Waiting sequences: higher priority first, then the tenant served least, then first come.
  struct WaitKey {
    int32_t priority;
    uint64_t arrival;
    bool operator<(const WaitKey& o) const {
      return priority != o.priority ? priority > o.priority : arrival < o.arrival;
    }
  };
  using Queue = std::map<WaitKey, std::unique_ptr<Sequence>>;

  void Admit();
  bool TryAdmit(Sequence* sequence);
  bool StillWaits(Sequence* sequence) const;
  bool PlanSlice(Sequence* sequence, int32_t count);
  bool MakeRoom(Sequence* sequence, int32_t tokens);
  void Preempt(size_t index);
  int32_t PrefillBudget(int32_t decoding) const;
  void Enqueue(std::unique_ptr<Sequence> sequence);

  SchedulerOptions options_;
  KvManager* kv_;
  CostModel cost_;
  std::map<uint64_t, Queue> waiting_by_tenant_;
  size_t waiting_ = 0;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::unordered_map<SequenceId, Sequence*> by_id_;
  std::map<uint64_t, Tenant> tenants_;
  uint64_t arrivals_ = 0;
  SchedulerCounters counters_;
  StepPlan plan_;
  std::vector<Sequence*> planned_;  // of plan_.slices
};

}  // namespace kvasir
