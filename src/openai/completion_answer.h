#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/request.h"
#include "openai/completion_request.h"
#include "openai/reasoning.h"
#include "text/detokenizer.h"

namespace kvasir {

/// What answers have in common.
struct AnswerHead {
  std::string id;     ///< "chatcmpl-..." or "cmpl-..."
  std::string model;  ///< as it is named to clients
  int64_t created = 0;
};

/// "stop" or "length" of a finished choice; the API knows no more reasons.
std::string FinishReasonOf(FinishReason reason);

/// Sums over the choices of one request, or of several.
struct UsageCount {
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  int64_t begun = 0;                              ///< choices that have tokens
  int64_t first_token_ns = 0, last_token_ns = 0;  ///< of them all
  double ttft_s = 0;                              ///< of the first prompt
  double prompt_s = 0;                            ///< prompts were computed, without waiting for it
  /// A choice that ended. `prompt`: the index of its prompt.
  void Add(const RequestStats& stats, size_t prompt, int32_t choice);
};
nlohmann::ordered_json UsageJson(const UsageCount& usage);
/// The fields of llama-server's `timings`, and `ttft_ms`: the wait before the prompt was computed
/// is in it alone.
nlohmann::ordered_json TimingsJson(const UsageCount& usage);
/// Why no more of the prompt was cached, and where the time went: what a client may know. Texts of
/// diverged tokens come from `tokenizer`. `names`, for operators: whose token was there and whose
/// need took the room is told too, but never another tenant's text. nullptr: for anybody else.
nlohmann::ordered_json ReportJson(const RequestStats& stats, uint64_t tenant,
                                  const TenantNames* names, const Tokenizer& tokenizer);
/// The name of a tenant; one that is not known any more is "?".
std::string TenantName(uint64_t tenant, const TenantNames& names);

/// What is computed beyond a prompt of CompletionRequest::only_prompt is nobody's: takes text and
/// count out of an event.
void DropOutput(Event* event);

/// One token with its log probability and the most likely ones, as in a chat's `logprobs.content`.
nlohmann::ordered_json ChatLogprobJson(const SampledToken& token, const Tokenizer& tokenizer);

/// The index that a choice of the i-th prompt has in the answer.
size_t ChoiceIndex(const CompletionRequest& request, size_t prompt, int32_t choice);
/// How many choices all prompts have together.
size_t ChoiceCount(const CompletionRequest& request);
/// Bytes of an answer, about, that tell its prompts again: their text and log probabilities, once
/// for each choice.
size_t PromptBytes(const CompletionRequest& r);
/// The parallel lists of the older form of log probabilities. A token that is a part of a character
/// is named by its bytes ("bytes:\xe2\x82"), as OpenAI does; an offset is that of the character in
/// which the token begins, in characters of the choice's text as it is sent.
class PlainLogprobs {
 public:
  /// `tokenizer` must outlive it. `special`: control tokens are in the text.
  PlainLogprobs(const Tokenizer* tokenizer, bool special);

  /// A prompt that is echoed, before all other tokens: its first token, which has no log
  /// probability, and the rest. The text is that of EchoText.
  void AddPrompt(int32_t first, const std::vector<SampledToken>& rest);
  void Add(const SampledToken& token);
  /// What was added since the last time.
  nlohmann::ordered_json Take();

 private:
  void AddName(int32_t token);

  const Tokenizer* tokenizer_;
  bool special_;
  Detokenizer text_;
  size_t offset_ = 0;  // characters that are complete
  nlohmann::ordered_json names_, logprobs_, tops_, offsets_;
};

/// Gathers the events of one CompletionRequest (all its prompts) into one answer.
class AnswerBuilder {
 public:
  /// Both must outlive it.
  AnswerBuilder(const CompletionRequest* request, const Tokenizer* tokenizer);

  /// `prompt`: the index in request->requests.
  void Add(size_t prompt, Event&& event);
  bool done() const { return open_ == 0; }
  /// The error of a request that failed; the answer is then that.
  const std::string& error() const { return error_; }
  /// When done: the body of the answer.
  nlohmann::ordered_json Body(const AnswerHead& head) const;
  const UsageCount& usage() const { return usage_; }
  /// Of the body, about.
  size_t bytes() const { return bytes_; }

 private:
  struct Choice {
    ReasoningSplitter splitter;
    std::string reasoning, text;
    std::vector<SampledToken> tokens;
    FinishReason reason = FinishReason::kStop;
    RequestStats stats;
    bool finished = false;
  };
  void AddText(Choice* choice, std::string&& text, bool end) const;
  nlohmann::ordered_json ChoiceJson(size_t index) const;
  nlohmann::ordered_json PlainLogprobsJson(const Choice& choice, size_t prompt) const;

  const CompletionRequest* request_;
  const Tokenizer* tokenizer_;
  std::vector<Choice> choices_;  // [prompt][n]
  std::vector<std::vector<SampledToken>> prompt_logprobs_;
  size_t open_;
  std::string error_;
  UsageCount usage_;
  size_t bytes_ = 0;
};

}  // namespace kvasir
