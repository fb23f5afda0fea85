#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "api/loaded_model.h"
#include "backend/backend.h"
#include "base/clock.h"
#include "base/result.h"

namespace kvasir {

/// The cost of computing one thing one way, counted by the backend while it did it.
struct ExplainCost {
  OpCounters counters;
  double ms = 0;  ///< the least of a few repetitions

  uint64_t flops() const { return counters.matmul_flops + counters.attention_flops; }
  uint64_t bytes_read() const { return counters.weight_bytes + counters.kv_bytes_read; }
  double flop_per_byte() const;
};

/// Step `step` of a sequence (the token at position `step`, counted from 1) with and without the
/// cache.
struct ExplainStep {
  int32_t step = 0;
  ExplainCost with_cache;     ///< this token only, attending to step - 1 cached ones
  ExplainCost without_cache;  ///< all tokens again
  bool logits_equal = false;  ///< bit for bit
};

/// The two phases over the same tokens.
struct ExplainPhases {
  int32_t tokens = 0;
  ExplainCost prefill;                    ///< all at once: Cache = Dec_kv(x)
  ExplainCost decode;                     ///< one token a step
  uint64_t last_layer_flops_skipped = 0;  ///< what prefill left out at the last layer
  double bandwidth_gb_s = 0;              ///< probe: reading memory
  double compute_gflop_s = 0;             ///< probe: this model's own weights times many rows
};

/// Computes steps of one sequence on a loaded model. Uses the whole KV pool: no engine may run.
class Explainer {
 public:
  /// `tokens` must not be empty; `clock` measures. `progress` gets the number of tokens that were
  /// computed, never while something is measured; may be empty.
  Explainer(LoadedModel* model, std::vector<int32_t> tokens, const Clock* clock,
            std::function<void(int32_t tokens)> progress = {});

  /// Continues the sequence greedily until it has `count` tokens.
  Status Extend(int32_t count);
  const std::vector<int32_t>& tokens() const { return tokens_; }

  /// Measures one step, 1 <= step <= tokens().size(). `damage` is called, when set, after the
  /// tokens before the step are in the cache: tests use it to show that `logits_equal` can fail.
  using Damage = std::function<void(const SequenceKv& kv, KvStorage& storage)>;
  Result<ExplainStep> Step(int32_t step, const Damage& damage = {});

  /// Tokens that Extend, Step and Phases compute, for a bar.
  static int64_t ExtendTokens(int64_t count) { return count; }
  static int64_t StepTokens(int64_t step) { return step - 1 + kRepeats * (1 + step); }
  static int64_t PhasesTokens(int64_t count) { return kPhaseRepeats * 2 * count; }

  /// Measures both phases over the first `count` tokens.
  Result<ExplainPhases> Phases(int32_t count);

 private:
  static constexpr int kRepeats = 3;  // the least of them: what the work costs on a quiet machine
  static constexpr int kPhaseRepeats = 2;

  void Tell(int64_t tokens) const {
    if (progress_) progress_(static_cast<int32_t>(tokens));
  }
  /// Computes tokens [from, to) of a sequence, in slices that fit a step; logits of the last.
  Result<std::vector<float>> ComputeTo(class DirectSequence* sequence, int32_t to);

  LoadedModel* model_;
  std::vector<int32_t> tokens_;
  const Clock* clock_;
  std::function<void(int32_t tokens)> progress_;
  KvManager kv_;
};

}  // namespace kvasir
