#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sched/held_rows.h"
#include "sched/step.h"

namespace kvasir {

/// The oracle of tests and simulations: a model whose next token is a hash of the exact KV content
/// it was given. A slot holds (position, token) of who wrote it last; any wrong, stale, swapped or
/// foreign block changes the output.
class FakeExecutor final : public Executor {
 public:
  FakeExecutor(const KvLayout& layout, int32_t blocks, int32_t vocab);

  void Submit(const StepPlan& plan) override { plan_ = &plan; }
  StepResult& Collect() override;

  /// What a sequence of these tokens must continue with: the same hash, without any cache. The i-th
  /// of several samples is i more, modulo the vocabulary.
  int32_t Expected(std::span<const int32_t> tokens) const;

  /// From now on one slice and one step in 64 fail, which ones depends on `seed`; 0: none.
  void FailSometimes(uint64_t seed) { failing_ = seed; }

  int64_t computed_tokens() const { return computed_tokens_; }
  int32_t largest_step() const { return largest_step_; }

 private:
  uint64_t& Slot(const TableView& table, int32_t position);
  const KvLayout layout_;
  const int32_t vocab_;
  std::vector<uint64_t> slots_;  // [block][token slot]
  const StepPlan* plan_ = nullptr;
  int64_t computed_tokens_ = 0;
  int32_t largest_step_ = 0;
  uint64_t failing_ = 0;
  HeldRows held_;
  StepResult result_;
};

}  // namespace kvasir
