#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sched/step.h"

namespace kvasir {

/// What a step was and how long it took.
struct StepRecord {
  uint64_t id = 0;
  int64_t start_ns = 0;  ///< Clock time
  double seconds = 0;
  double limit_s = 0;   ///< how long it should take at most; 0: no limit
  int32_t decode = 0;   ///< rows of sequences that decode
  int32_t prefill = 0;  ///< rows of prompts
  int32_t running = 0, waiting = 0;
  int32_t preempted = 0;  ///< sequences, while it was planned
};

/// The last steps of an engine, and the time of all of them. Bounded; nothing is allocated.
class StepLog {
 public:
  static constexpr size_t kKept = 256;

  /// Counts the rows of `plan` into `record`, and keeps it.
  void Add(const StepPlan& plan, StepRecord record) {
    record.id = plan.step;
    for (const SeqSlice& s : plan.slices) {
      const bool decodes = s.first_pos >= s.prompt_tokens;
      (decodes ? record.decode : record.prefill) += s.count;
    }
    const size_t kind = record.prefill == 0 ? 0 : record.decode == 0 ? 1 : 2;
    seconds_[kind] += record.seconds;
    kept_[count_++ % kKept] = record;
  }

  /// Oldest first.
  std::vector<StepRecord> Kept() const {
    std::vector<StepRecord> out;
    const size_t n = count_ < kKept ? count_ : kKept;
    out.reserve(n);
    for (size_t i = count_ - n; i < count_; ++i) out.push_back(kept_[i % kKept]);
    return out;
  }

  // Time of all steps, by what they held.
  double decode_seconds() const { return seconds_[0]; }
  double prefill_seconds() const { return seconds_[1]; }
  double mixed_seconds() const { return seconds_[2]; }

 private:
  std::array<StepRecord, kKept> kept_{};
  size_t count_ = 0;
  double seconds_[3] = {};
};

}  // namespace kvasir
