#pragma once

#include <vector>

#include "model/model.h"
#include "sched/held_rows.h"
#include "sched/step.h"

namespace kvasir {

/// Executes steps with a model on this machine: flattens the plan, runs the forward pass, samples.
/// A CPU computes inside Collect. Everything passed in must outlive this.
class ModelExecutor final : public Executor {
 public:
  /// `end_of_generation`: the model's end tokens, for min_tokens and ignore_eos.
  ModelExecutor(Model* model, KvStorage kv, std::vector<int32_t> end_of_generation);

  void Submit(const StepPlan& plan) override;
  StepResult Collect() override;

 private:
  std::span<float> RunForward();
  /// `rows`: logits of the slice's wanted rows, [wanted][vocab].
  SliceResult SampleSlice(const SeqSlice& slice, std::span<float> rows);

  Model* model_;
  KvStorage kv_;
  std::vector<int32_t> end_of_generation_;
  const StepPlan* plan_ = nullptr;
  SamplerScratch scratch_;
  HeldRows held_;                   // of the model, between its layers
  std::vector<float> logits_copy_;  // for all samples of a row but the last
  // Flat arrays of the current step, kept to reuse their memory.
  std::vector<int32_t> tokens_, positions_;
  std::vector<BatchSlice> slices_;
  std::vector<WantedRows> wanted_;
};

}  // namespace kvasir
