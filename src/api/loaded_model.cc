#include "api/loaded_model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "exec/model_executor.h"
#include "model/model.h"
#include "model/weights.h"

namespace kvasir {

struct LoadedModel::State {
  OpenedModel opened;
  std::optional<ChatTemplate> chat_template;
  std::string chat_template_error;
  MemoryPlan plan;
  MemoryRequest request;
  std::unique_ptr<Backend> backend;
  std::optional<Model> model;
  uint64_t text_bytes = 0;
  AlignedBuffer kv_memory;
  KvStorage kv;
  std::vector<int32_t> end_of_generation;
  std::optional<ModelExecutor> executor;
};

Result<OpenedModel> OpenModel(const std::string& path) {
  KV_ASSIGN(GgufFile file, GgufFile::Open(path));
  KV_ASSIGN(ModelConfig config, ReadModelConfig(file));
  KV_ASSIGN(VocabData vocab, ReadVocab(file));
  Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(std::move(vocab));
  if (!tokenizer.ok()) {
    return MakeError(tokenizer.error().code, "{}: {}", path, tokenizer.error().message);
  }
  KV_ASSIGN(std::optional<std::string> chat_template, ReadChatTemplate(file));
  return OpenedModel{std::move(file), std::move(config), std::move(*tokenizer),
                     std::move(chat_template)};
}

LoadedModel::LoadedModel(std::unique_ptr<State> state) : state_(std::move(state)) {}
LoadedModel::~LoadedModel() = default;

Result<std::unique_ptr<LoadedModel>> LoadedModel::Load(const LoadOptions& options) {
  const uint64_t heap_before = HeapInUse();
  KV_ASSIGN(OpenedModel opened, OpenModel(options.path));
  auto s = std::make_unique<State>(State{.opened = std::move(opened), .request = options.memory});
  // A template that Kvasir cannot use is no reason to refuse the model: raw prompts still work.
  if (!s->opened.chat_template) {
    s->chat_template_error = options.path + " has no tokenizer.chat_template";
  } else if (Result<ChatTemplate> compiled = ChatTemplate::Compile(*s->opened.chat_template)) {
    s->chat_template = std::move(*compiled);
  } else {
    s->chat_template_error =
        options.path + ": tokenizer.chat_template: " + compiled.error().message;
  }
  const uint64_t heap_after = HeapInUse();
  s->text_bytes = heap_after - std::min(heap_after, heap_before);
  for (int32_t id = 0; id < s->opened.tokenizer->vocab_size(); ++id) {
    if (s->opened.tokenizer->IsEndOfGeneration(id)) s->end_of_generation.push_back(id);
  }
  KV_ASSIGN(s->backend, MakeCpuBackend(options.cpu));
  KV_ASSIGN(s->plan, PlanMemory(s->opened.file, s->opened.config, *s->backend, ReadMemoryLimits(),
                                options.memory));
  if (options.planned) options.planned(s->plan, s->opened.config);
  KV_ASSIGN(ModelWeights weights,
            LoadWeights(s->opened.file, s->opened.config, *s->backend, options.progress));
  KV_ASSIGN(s->model, Model::Create(s->opened.config, std::move(weights),
                                    {.max_rows = options.memory.max_step_tokens,
                                     .max_logit_rows = options.memory.max_logit_rows,
                                     .max_tokens = s->plan.context,
                                     .max_layered_rows = kMostLayeredRows},
                                    s->backend.get()));
  KV_ASSIGN(s->kv_memory,
            AlignedBuffer::Allocate(s->plan.kv_bytes, MemoryOwner::kKv, "the KV pool"));
  s->kv = {.layout = &s->plan.layout, .base = s->kv_memory.data(), .blocks = s->plan.kv_blocks};
  s->executor.emplace(&*s->model, s->kv, s->end_of_generation);
  return std::unique_ptr<LoadedModel>(new LoadedModel(std::move(s)));
}

const GgufFile& LoadedModel::file() const { return state_->opened.file; }
const ModelConfig& LoadedModel::config() const { return state_->opened.config; }
const Tokenizer& LoadedModel::tokenizer() const { return *state_->opened.tokenizer; }
const ChatTemplate* LoadedModel::chat_template() const {
  return state_->chat_template ? &*state_->chat_template : nullptr;
}
const std::string& LoadedModel::chat_template_error() const { return state_->chat_template_error; }
const std::string& LoadedModel::chat_template_source() const {
  static const std::string none;
  return state_->opened.chat_template ? *state_->opened.chat_template : none;
}
const MemoryPlan& LoadedModel::plan() const { return state_->plan; }
int32_t LoadedModel::max_step_tokens() const { return state_->request.max_step_tokens; }
int LoadedModel::threads() const { return state_->backend->threads(); }
uint64_t LoadedModel::text_bytes() const { return state_->text_bytes; }
MachineLimits LoadedModel::MeasureLimits() {
  constexpr uint64_t kLeast = uint64_t{32} << 20, kMost = uint64_t{512} << 20;
  const MemoryPlan& p = state_->plan;
  const uint64_t left =
      p.limits.available_bytes - std::min(p.limits.available_bytes, p.total_bytes());
  const uint64_t bytes = std::min(std::clamp(p.weights_bytes, kLeast, kMost), left / 4);
  const GgufTensor* most = state_->opened.file.FindTensor("blk.0.ffn_up.weight");
  CHECK(most != nullptr);  // the weights are loaded
  return state_->backend->MeasureLimits(most->view().dtype, bytes);
}
Backend& LoadedModel::backend() { return *state_->backend; }
Executor& LoadedModel::executor() { return *state_->executor; }
KvStorage& LoadedModel::kv_storage() { return state_->kv; }

std::unique_ptr<Engine> LoadedModel::MakeEngine(const EngineTuning& tuning) {
  State& s = *state_;
  const int32_t rows = s.request.max_logit_rows;
  EngineOptions options{
      .context = s.plan.context,
      .max_step_tokens = s.request.max_step_tokens,
      .max_sequences = tuning.max_sequences == 0 ? rows : std::min(tuning.max_sequences, rows),
      .max_logit_rows = rows,
      .itl_target_s = tuning.itl_target_s,
      .least_prefill = tuning.least_prefill,
      .max_waiting = tuning.max_waiting,
      .end_of_generation = s.end_of_generation};
  return std::make_unique<Engine>(std::move(options), s.plan.layout, s.plan.kv_blocks, &*s.executor,
                                  s.opened.tokenizer.get(), &SteadyClock());
}

}  // namespace kvasir
