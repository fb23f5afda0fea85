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

  /// What samplers keep, at most; it is not allocated before it is needed.
  static size_t ScratchBytes(const ModelConfig& config, const Backend& backend);

  void Submit(const StepPlan& plan) override;
  StepResult& Collect() override;

 private:
  std::span<float> RunForward();
  /// What one thread samples with.
  struct Sampler {
    SamplerScratch scratch;
    std::vector<float> logits;  // for all samples of a row but the last
  };
  /// `rows`: logits of the slice's wanted rows, [wanted][vocab].
  void SampleSlice(const SeqSlice& slice, std::span<float> rows, Sampler* with,
                   SliceResult* out) const;
  /// Fills in the results of all slices that have one, in order.
  void SampleSlices(std::span<float> logits);

  Model* model_;
  KvStorage kv_;
  std::vector<int32_t> end_of_generation_;
  const StepPlan* plan_ = nullptr;
  std::vector<Sampler> samplers_;  // one a thread
  HeldRows held_;                  // of the model, between its layers
  // Flat arrays of the current step, kept to reuse their memory.
  std::vector<int32_t> tokens_, positions_;
  std::vector<BatchSlice> slices_;
  std::vector<WantedRows> wanted_;
  struct Sampled {
    const SeqSlice* slice;
    std::span<float> rows;
  };
  std::vector<Sampled> sampled_;
  StepResult result_;
};

}  // namespace kvasir
