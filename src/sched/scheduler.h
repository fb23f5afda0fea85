#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "kv/manager.h"
#include "sched/sequence.h"
#include "sched/step.h"

namespace kvasir {

struct SchedulerOptions {
  int32_t max_step_tokens = 512;  ///< rows of one step at most
  int32_t max_sequences = 1;      ///< running at once at most
};

/// Decides whose tokens are computed when. Plan moves no bytes and changes nothing but block
/// tables; results change state in Commit only.
///
/// A sequence is admitted when the most blocks it can ever need are free or only hold the cache of
/// finished sequences, so no running sequence ever runs short. The K and V of finished sequences
/// stay until their room is needed: a request whose prompt starts with the tokens of one continues
/// it.
class Scheduler {
 public:
  Scheduler(SchedulerOptions options, KvManager* kv);

  /// Queues a sequence. Its blocks are reserved when it is admitted, first come first served.
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

  /// Ends a sequence in any state. Unknown ids are ignored. With `keep`, the K and V that it has
  /// computed stay for a later prompt that starts with them.
  void Finish(SequenceId id, bool keep);

  /// Gives up the blocks of all finished sequences.
  void DropCache();

  const Sequence* Find(SequenceId id) const;
  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_.size(); }

 private:
  struct Finished {
    std::vector<int32_t> tokens;  // those computed
    SequenceKv kv;
  };
  void Admit();
  void TakeCachedPrefix(Sequence* sequence);
  void PlanSlice(Sequence* sequence, int32_t* budget);
  bool GrowOrEvict(Sequence* sequence, int32_t tokens);

  SchedulerOptions options_;
  KvManager* kv_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::list<Finished> finished_;                    // most recently used first
  int64_t reserved_ = 0;
  StepPlan plan_;
};

}  // namespace kvasir
