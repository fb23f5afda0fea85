#include "openai/completion_stream.h"

#include <utility>

#include "openai/json_text.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kDone = "data: [DONE]\n\n";

}  // namespace

std::string SseData(std::string_view data) {
  std::string out = "data: ";
  out += data;
  out += "\n\n";
  return out;
}

CompletionStream::CompletionStream(const CompletionRequest* request, const Tokenizer* tokenizer,
                                   AnswerHead head)
    : request_(request),
      tokenizer_(tokenizer),
      head_(std::move(head)),
      choices_(ChoiceCount(*request),
               {.splitter = ReasoningSplitter(request->thinking_begun),
                .tokens = {},
                .plain = PlainLogprobs(tokenizer, request->requests[0].special)}),
      echoed_(request->requests.size(), !request->echo),
      open_(request->requests.size()) {
  // A chunk for each token: what they have in common is printed once.
  Json whole = Head();
  whole["choices"] = Json::array();
  if (request_->include_usage) whole["usage"] = nullptr;
  const std::string text = JsonLine(whole);
  const size_t at = text.find("\"choices\":[]") + std::string_view("\"choices\":[").size();
  before_ = "data: " + text.substr(0, at);
  after_ = text.substr(at) + "\n\n";
}

Json CompletionStream::Head() const {
  return {{"id", head_.id},
          {"object",
           request_->endpoint == Endpoint::kChat ? "chat.completion.chunk" : "text_completion"},
          {"created", head_.created},
          {"model", head_.model}};
}

std::string CompletionStream::Chunk(const Json& choice) const {
  return before_ + JsonLine(choice) + after_;
}

std::string CompletionStream::Begin() const {
  std::string out;
  if (request_->endpoint != Endpoint::kChat) return out;
  for (size_t i = 0; i < choices_.size(); ++i) {
    out += Chunk({{"index", i},
                  {"delta", {{"role", "assistant"}, {"content", ""}}},
                  {"logprobs", nullptr},
                  {"finish_reason", nullptr}});
  }
  return out;
}

Json CompletionStream::TakeLogprobs(Choice* c) const {
  if (!request_->logprobs) return nullptr;
  const std::vector<SampledToken> tokens = std::exchange(c->tokens, {});
  if (request_->endpoint == Endpoint::kCompletions) {
    for (const SampledToken& t : tokens) c->plain.Add(t);
    return c->plain.Take();
  }
  Json content = Json::array();
  for (const SampledToken& t : tokens) content.push_back(ChatLogprobJson(t, *tokenizer_));
  return {{"content", std::move(content)}};
}

std::string CompletionStream::TextChunk(size_t index, const char* field, const std::string& text) {
  Json choice = {{"index", index}};
  if (request_->endpoint == Endpoint::kChat) {
    choice["delta"] = {{field, text}};
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = TakeLogprobs(&choices_[index]);
  choice["finish_reason"] = nullptr;
  return Chunk(choice);
}

std::string CompletionStream::Text(size_t index, const std::string& text, bool end) {
  Choice& c = choices_[index];
  std::string out;
  if (!request_->split_reasoning) {
    // A token without text is told where its log probability is.
    if (!text.empty() || !c.tokens.empty()) out = TextChunk(index, "content", text);
    return out;
  }
  const auto add = [&](const ReasoningSplitter::Piece& piece) {
    if (!piece.reasoning.empty()) out += TextChunk(index, "reasoning_content", piece.reasoning);
    if (!piece.content.empty()) out += TextChunk(index, "content", piece.content);
  };
  add(c.splitter.Push(text));
  if (end) add(c.splitter.Finish());
  if (!c.tokens.empty()) out += TextChunk(index, "content", "");
  return out;
}

/// The prompt before its answers, once for each of them.
std::string CompletionStream::Echo(size_t prompt) {
  echoed_[prompt] = true;
  std::string out;
  for (int32_t i = 0; i < request_->requests[prompt].n; ++i) {
    const size_t index = ChoiceIndex(*request_, prompt, i);
    Json choice = {{"index", index}, {"text", request_->prompt_texts[prompt]}};
    Json logprobs;
    if (request_->logprobs && prompt < prompt_logprobs_.size()) {
      PlainLogprobs& plain = choices_[index].plain;
      plain.AddPrompt(request_->requests[prompt].prompt[0], prompt_logprobs_[prompt]);
      logprobs = plain.Take();
    }
    choice["logprobs"] = std::move(logprobs);
    choice["finish_reason"] = nullptr;
    out += Chunk(choice);
  }
  return out;
}

Json CompletionStream::Report() const {
  return ReportJson(first_, request_->requests[0].tenant, request_->names.get(), *tokenizer_);
}

std::string CompletionStream::FinishChunk(size_t index, const Event& e) const {
  Json choice = {{"index", index}};
  if (request_->endpoint == Endpoint::kChat) {
    choice["delta"] = Json::object();
  } else {
    choice["text"] = "";
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = FinishReasonOf(e.reason);
  if (!done() || request_->include_usage) return Chunk(choice);
  // The last chunk, as llama-server has it.
  Json last = Head();
  last["choices"] = Json::array({std::move(choice)});
  if (request_->report) last["kvasir"] = Report();
  last["timings"] = TimingsJson(usage_);
  return SseData(JsonLine(last));
}

std::string CompletionStream::Fail(const ApiError& error) {
  return SseData(JsonLine(ToJson(error))) + std::string(kDone);
}

std::string CompletionStream::End() {
  if (!error_.empty()) {
    return Fail(
        {.status = 500, .message = error_, .type = "server_error", .param = {}, .code = {}});
  }
  std::string out;
  if (request_->include_usage) {
    Json last = Head();
    last["choices"] = Json::array();
    last["usage"] = UsageJson(usage_);
    if (request_->report) last["usage"]["kvasir"] = Report();
    last["timings"] = TimingsJson(usage_);
    out = SseData(JsonLine(last));
  }
  out += kDone;
  return out;
}

std::string CompletionStream::Add(size_t prompt, Event&& e, int64_t now_ns) {
  if (request_->only_prompt) DropOutput(&e);
  const size_t index = ChoiceIndex(*request_, prompt, e.choice);
  Choice& c = choices_[index];
  std::string out;
  if (e.kind != Event::Kind::kPrefill && !echoed_[prompt]) out = Echo(prompt);
  switch (e.kind) {
    case Event::Kind::kPrefill:
      prompt_logprobs_.resize(request_->requests.size());
      std::move(e.prompt_logprobs.begin(), e.prompt_logprobs.end(),
                std::back_inserter(prompt_logprobs_[prompt]));
      if (request_->return_progress) {
        Json chunk = Head();
        chunk["choices"] = Json::array();
        chunk["prompt_progress"] = {{"total", e.prefill_total},
                                    {"cache", e.stats.cached_tokens},
                                    {"processed", e.prefill_done},
                                    {"time_ms", (now_ns - e.stats.submitted_ns) / 1'000'000}};
        out += SseData(JsonLine(chunk));
      }
      return out;
    case Event::Kind::kToken:
      if (request_->logprobs && !request_->only_prompt) c.tokens.push_back(std::move(e.token));
      return out + Text(index, e.text, false);
    case Event::Kind::kFinished:
      out += Text(index, e.text, true);
      usage_.Add(e.stats, prompt, e.choice);
      if (index == 0) first_ = e.stats;
      if (e.reason == FinishReason::kError && error_.empty()) error_ = e.error;
      if (e.last) --open_;
      if (e.reason != FinishReason::kError) out += FinishChunk(index, e);
      if (e.last && done()) out += End();
  }
  return out;
}

}  // namespace kvasir
