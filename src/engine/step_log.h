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

/// Sums over steps.
struct StepTotals {
  double seconds = 0;
  StepWork work;
};

/// The last steps of an engine, and the sums of all of them. Bounded; nothing is allocated.
class StepLog {
 public:
  static constexpr size_t kKept = 256;

  /// Counts the rows of `plan` into `record`, and keeps it.
  void Add(const StepPlan& plan, const StepWork& work, StepRecord record) {
    record.id = plan.step;
    for (const SeqSlice& s : plan.slices) {
      const bool decodes = s.first_pos >= s.prompt_tokens;
      (decodes ? record.decode : record.prefill) += s.count;
    }
    StepTotals& totals = record.prefill == 0 ? decode_ : record.decode == 0 ? prefill_ : mixed_;
    totals.seconds += record.seconds;
    totals.work.flops += work.flops;
    totals.work.bytes_read += work.bytes_read;
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

  // Of all steps, by what they held.
  const StepTotals& decode() const { return decode_; }
  const StepTotals& prefill() const { return prefill_; }
  const StepTotals& mixed() const { return mixed_; }

 private:
  std::array<StepRecord, kKept> kept_{};
  size_t count_ = 0;
  StepTotals decode_, prefill_, mixed_;
};

}  // namespace kvasir
