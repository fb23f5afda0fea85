#include "kvasir/kvasir.h"

#include <ctime>

#include "api/chat_prompt.h"
#include "api/loaded_model.h"

namespace kvasir {
namespace {

template <typename T>
T OrThrow(Result<T> result) {
  if (!result.ok()) throw LlmError(result.error().message);
  return std::move(*result);
}

LoadOptions ToLoadOptions(const std::string& path, const LlmOptions& o) {
  LoadOptions load;
  load.path = path;
  load.cpu.threads = o.threads;
  load.cpu.fast = o.fast;
  load.memory = {.context = o.context,
                 .kv_bytes = o.kv_bytes,
                 .kv_dtype = OrThrow(ParseKvDType(o.kv_dtype)),
                 .block_tokens = o.block_tokens,
                 .max_step_tokens = o.step_tokens,
                 .max_logit_rows = o.max_sequences};
  if (o.threads < 0 || o.step_tokens < 1 || o.max_sequences < 1)
    throw LlmError("threads, step_tokens and max_sequences must be positive");
  return load;
}

LlmEvent ToEvent(Event&& e) {
  LlmEvent out;
  out.request = e.request;
  out.choice = e.choice;
  out.text = std::move(e.text);
  if (e.kind == Event::Kind::kToken) {
    out.token = e.token.token;
    out.logprob = e.token.logprob;
    return out;
  }
  out.finished = true;
  out.finish_reason = NameOf(e.reason);
  out.error = std::move(e.error);
  out.prompt_tokens = e.stats.prompt_tokens;
  out.cached_tokens = e.stats.cached_tokens;
  out.output_tokens = e.stats.output_tokens;
  out.ttft_s = e.stats.ttft_seconds();
  out.total_s = SecondsBetween(e.stats.submitted_ns, e.stats.finished_ns);
  out.last = e.last;
  return out;
}

}  // namespace

struct Llm::Impl {
  std::unique_ptr<LoadedModel> model;
  std::unique_ptr<Engine> engine;
  std::vector<Event> events;

  std::vector<int32_t> PromptOf(const LlmRequest& r) const {
    if ((r.messages.empty() ? 0 : 1) + (r.prompt.empty() ? 0 : 1) + (r.tokens.empty() ? 0 : 1) != 1)
      throw LlmError("a request has exactly one of messages, prompt and tokens");
    if (!r.tokens.empty()) return r.tokens;
    std::string text = r.prompt;
    if (!r.messages.empty()) {
      nlohmann::ordered_json messages = nlohmann::ordered_json::array();
      for (const auto& [role, content] : r.messages)
        messages.push_back({{"role", role}, {"content", content}});
      text = OrThrow(RenderChat(*model, std::move(messages), {}, std::time(nullptr)));
    }
    return model->tokenizer().Encode(text, {.add_special = true, .parse_special = true});
  }
};

Llm::Llm(const std::string& path, const LlmOptions& o) : impl_(std::make_unique<Impl>()) {
  impl_->model = OrThrow(LoadedModel::Load(ToLoadOptions(path, o)));
  impl_->engine = impl_->model->MakeEngine({.max_sequences = o.max_sequences,
                                            .itl_target_s = o.itl_target_s,
                                            .max_waiting = o.max_waiting});
}
Llm::~Llm() = default;
Llm::Llm(Llm&&) noexcept = default;
Llm& Llm::operator=(Llm&&) noexcept = default;

uint64_t Llm::Submit(const LlmRequest& r) {
  Request request{.prompt = impl_->PromptOf(r),
                  .max_tokens = r.max_tokens,
                  .sampling = {.logit_bias = r.logit_bias,
                               .repetition_penalty = r.repetition_penalty,
                               .frequency_penalty = r.frequency_penalty,
                               .presence_penalty = r.presence_penalty,
                               .ignore_eos = r.ignore_eos,
                               .temperature = r.temperature,
                               .top_k = r.top_k,
                               .typical_p = r.typical_p,
                               .top_p = r.top_p,
                               .min_p = r.min_p,
                               .seed = r.seed,
                               .logprobs = r.logprobs},
                  .stop = {.strings = r.stop, .token_ids = r.stop_tokens},
                  .n = r.n,
                  .beam_width = r.beam_width,
                  .length_penalty = r.length_penalty,
                  .tenant = r.tenant,
                  .salt = r.salt,
                  .priority = r.priority,
                  .deadline_s = r.deadline_s};
  return OrThrow(impl_->engine->Submit(std::move(request)));
}

void Llm::Cancel(uint64_t request) { impl_->engine->Cancel(request); }

void Llm::SetTenant(uint64_t tenant, double weight, int64_t kv_blocks) {
  if (!(weight > 0) || kv_blocks < 0) throw LlmError("a tenant's weight must be above 0");
  impl_->engine->SetTenant(tenant, {.weight = weight, .kv_blocks = kv_blocks});
}

bool Llm::Step(const std::function<void(const LlmEvent&)>& on_event) {
  impl_->events.clear();
  const bool more = impl_->engine->Step(&impl_->events);
  for (Event& e : impl_->events) {
    if (e.kind != Event::Kind::kPrefill) on_event(ToEvent(std::move(e)));
  }
  return more;
}

void Llm::Run(const std::function<void(const LlmEvent&)>& on_event) {
  while (Step(on_event)) {
  }
}

std::vector<int32_t> Llm::Tokenize(const std::string& text) const {
  return impl_->model->tokenizer().Encode(text, {.add_special = true, .parse_special = true});
}

}  // namespace kvasir
