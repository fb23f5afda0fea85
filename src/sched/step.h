#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "kv/layout.h"
#include "sample/params.h"
#include "sample/sampler.h"

namespace kvasir {

using SequenceId = uint64_t;

/// Consecutive tokens of one sequence to compute in one step: a chunk of a prompt or one decode
/// token, without a difference. Plain data; the spans belong to the scheduler and do not change
/// until the step is committed.
struct SeqSlice {
  SequenceId sequence = 0;
  int32_t first_pos = 0;  ///< positions [first_pos, first_pos + count) are computed
  int32_t count = 0;
  /// Rows of the slice, counted from its first, whose logits are wanted: [wanted_begin,
  /// wanted_end).
  int32_t wanted_begin = 0, wanted_end = 0;
  std::span<const int32_t> tokens;  ///< all tokens of the sequence known so far
  int32_t prompt_tokens = 0;        ///< how many of them are prompt
  /// Set when the last row's logits choose the next token: `samples` of them, the i-th from the
  /// random stream sampling->stream + i.
  const SamplingParams* sampling = nullptr;
  int32_t samples = 1;
  /// >= 0: the wanted rows also give the log probabilities of the prompt's own next tokens, with so
  /// many most likely ones beside each.
  int32_t prompt_logprobs = -1;
  /// Layered prefill: a chunk that would take longer than a step may is computed over several
  /// steps, some layers in each: from `first_layer` on, `layers` of them; 0: all that are left.
  /// Such a slice is its plan's last, and has at most kMostLayeredRows rows. The executor keeps its
  /// rows between the layers from one such step to the next, for one slice at a time.
  int32_t first_layer = 0, layers = 0;

  /// False: other layers follow in a later step.
  bool complete() const { return layers == 0; }
  bool layered() const { return first_layer > 0 || layers > 0; }
  /// The part of its work that this step does, if the model has so many layers.
  double Share(int32_t all_layers) const {
    return static_cast<double>(complete() ? all_layers - first_layer : layers) / all_layers;
  }
  /// True if the step's result has something for this slice.
  bool has_result() const { return sampling != nullptr || prompt_logprobs >= 0; }
};

inline constexpr int32_t kMostLayeredRows = 64;

/// One forward pass over a batch of slices: made by the scheduler, immutable, moves no bytes
/// itself.
struct StepPlan {
  uint64_t step = 0;
  std::vector<SeqSlice> slices;
  std::vector<TableView> tables;  ///< [group][slice]
  std::vector<BlockCopy> copies;  ///< done before anything is computed

  int32_t rows() const {
    int32_t n = 0;
    for (const SeqSlice& s : slices) n += s.count;
    return n;
  }
};

/// What came of one slice that was to give something.
struct SliceResult {
  SequenceId sequence = 0;
  std::vector<SampledToken> tokens;           ///< the samples; none without sampling
  std::vector<SampledToken> prompt_logprobs;  ///< of the tokens that follow the wanted rows
  std::optional<Error> error;  ///< this sequence failed (not finite logits); others did not
};

/// What a step had to do: the sums by which a machine's limits bound it.
struct StepWork {
  uint64_t flops = 0;       ///< of matrix products and attention
  uint64_t bytes_read = 0;  ///< of weights, keys and values
};

/// Kept by whoever executes, and filled anew in each step, so that one like the last allocates
/// nothing.
struct StepResult {
  uint64_t step = 0;
  std::vector<SliceResult> slices;  ///< of those that has_result(), in order of the plan
  std::optional<Error> error;       ///< the whole step failed: nothing of it was computed
  /// Sequences of which K or V came out as no finite number: they failed, with a result or without.
  std::vector<SequenceId> not_finite;
  StepWork work;
  /// Logits of the wanted rows of all slices, in order: [wanted rows][vocab]. Valid until the next
  /// Submit. Rows that were sampled from hold the sampler's scratch afterwards.
  std::span<const float> logits;
};

/// Where steps are executed: the boundary behind which a model, a simulation or a remote worker
/// sits. Submit may return before the work is done; Collect waits for it. One step at a time. What
/// Collect returns is valid until the next Submit, and its tokens may be moved out of it.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void Submit(const StepPlan& plan) = 0;
  virtual StepResult& Collect() = 0;
};

}  // namespace kvasir
