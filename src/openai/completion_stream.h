#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "openai/completion_answer.h"
#include "openai/reasoning.h"

namespace kvasir {

/// One server-sent event with these data.
std::string SseData(std::string_view data);

/// Turns the events of one CompletionRequest into the server-sent events of its stream: the role
/// first (chat), then text, for each choice a finish reason, then the usage if it was asked for,
/// and "[DONE]". The last chunk has the timings, and the report if that was asked for. Never half a
/// UTF-8 character, never part of a stop string: Event::text has neither.
class CompletionStream {
 public:
  /// Request and tokenizer must outlive it.
  CompletionStream(const CompletionRequest* request, const Tokenizer* tokenizer, AnswerHead head);

  /// What is sent before anything was computed.
  std::string Begin() const;
  /// `prompt`: the index in request->requests. `now_ns`: Clock time, for the progress of a prefill.
  /// May give nothing.
  std::string Add(size_t prompt, Event&& event, int64_t now_ns);
  bool done() const { return open_ == 0; }
  const UsageCount& usage() const { return usage_; }
  /// The end of a stream that failed.
  static std::string Fail(const ApiError& error);

 private:
  struct Choice {
    ReasoningSplitter splitter;
    std::vector<SampledToken> tokens;  // whose log probabilities were not sent yet
    PlainLogprobs plain;               // completions: what of them was not sent yet
  };
  std::string Chunk(const nlohmann::ordered_json& choice) const;
  std::string Text(size_t index, const std::string& text, bool end);
  std::string TextChunk(size_t index, const char* field, const std::string& text);
  std::string Echo(size_t prompt);
  std::string FinishChunk(size_t index, const Event& event) const;
  std::string End();
  nlohmann::ordered_json Head() const;
  nlohmann::ordered_json Report() const;
  nlohmann::ordered_json TakeLogprobs(Choice* choice) const;

  const CompletionRequest* request_;
  const Tokenizer* tokenizer_;
  AnswerHead head_;
  std::string before_, after_;  // a chunk's text around its choice
  std::vector<Choice> choices_;
  std::vector<std::vector<SampledToken>> prompt_logprobs_;  // by prompt, until they are echoed
  std::vector<bool> echoed_;                                // by prompt
  size_t open_;
  RequestStats first_;  // of the first choice
  UsageCount usage_;
  std::string error_;
};

}  // namespace kvasir
