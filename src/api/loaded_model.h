#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/cpu/cpu_backend.h"
#include "engine/engine.h"
#include "exec/memory_plan.h"
#include "model/config.h"
#include "model/gguf.h"
#include "sched/step.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir {

struct LoadOptions {
  std::string path;  ///< of a GGUF file
  CpuBackendOptions cpu;
  MemoryRequest memory;
  /// Called now and then while weights are packed: bytes done of all. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
  /// Called once, when it is known what will be taken and nothing large is. May be empty.
  std::function<void(const MemoryPlan& plan, const ModelConfig& config)> planned;
};

/// What an engine may do at once.
struct EngineTuning {
  int32_t max_sequences = 0;   ///< running at once at most; 0: as many as steps have logit rows
  double itl_target_s = 0;     ///< see SchedulerOptions
  double least_prefill = 0.2;  ///< see SchedulerOptions
  int64_t max_waiting = 0;     ///< see EngineOptions
};

/// A model file that was opened and checked, without its weights: enough for show, tokenize, plan.
struct OpenedModel {
  GgufFile file;
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<std::string> chat_template;  ///< source, if the file has one
};
Result<OpenedModel> OpenModel(const std::string& path);

/// A model ready to compute: weights packed, KV pool allocated. `Executor` is the boundary of a
/// step; MakeEngine puts the step loop on top of it. Must outlive what it made.
class LoadedModel {
 public:
  static Result<std::unique_ptr<LoadedModel>> Load(const LoadOptions& options);
  ~LoadedModel();

  const GgufFile& file() const;
  const ModelConfig& config() const;
  const Tokenizer& tokenizer() const;
  /// nullptr if the file has none that compiles; then chat_template_error() says why.
  const ChatTemplate* chat_template() const;
  const std::string& chat_template_error() const;
  /// Empty if the file has none.
  const std::string& chat_template_source() const;
  const MemoryPlan& plan() const;
  int32_t max_step_tokens() const;  ///< rows of one step at most
  int threads() const;
  /// What the vocabulary, the merges and the chat template took of the heap.
  uint64_t text_bytes() const;
  /// Of this machine with weights as most of the model's are. Some hundredths of a second, between
  /// steps; reads a buffer as large as the weights, where there is room for one.
  MachineLimits MeasureLimits();
  Backend& backend();
  Executor& executor();
  KvStorage& kv_storage();  ///< the pool's bytes, for `explain`'s test that damages a key

  /// An engine over the whole KV pool; at most one at a time.
  std::unique_ptr<Engine> MakeEngine(const EngineTuning& tuning = {});

 private:
  struct State;
  explicit LoadedModel(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
