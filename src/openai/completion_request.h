#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "api/loaded_model.h"
#include "engine/request.h"
#include "openai/api_error.h"

namespace kvasir {

enum class Endpoint { kChat, kCompletions };
using TenantNames = std::map<uint64_t, std::string>;  // by id

/// A body of POST /v1/chat/completions or /v1/completions, checked and turned into requests.
struct CompletionRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::string model;              ///< as the client named it; empty: not at all
  std::vector<Request> requests;  ///< one for each prompt; a chat has one
  /// Text that the prompts stand for, where `echo` shows it.
  std::vector<std::string> prompt_texts;
  bool stream = false;
  bool include_usage = false;    ///< stream_options.include_usage
  bool return_progress = false;  ///< extension: chunks that tell how far the prefill is
  bool logprobs = false;         ///< log probabilities in the answer
  bool prompt_logprobs = false;  ///< extension: of the prompt, beside the answer's
  bool echo = false;             ///< completions: the prompt before its answer
  /// Completions with echo and max_tokens 0: nothing but the prompt is in the answer, nor counted.
  /// The engine computes a token all the same.
  bool only_prompt = false;
  bool report = false;  ///< extension kvasir_report: misses and times in the usage
  /// The report is for an operator, and names whom it tells of. Set by the server, never by a body.
  std::shared_ptr<const TenantNames> names;
  /// Chat: what the model thinks in tags goes into `reasoning_content`, apart from `content`
  /// (extension reasoning_format: "auto", or "none" for the text as it is).
  bool split_reasoning = false;
  bool thinking_begun = false;              ///< the prompt ends with the opening tag
  std::vector<std::string> unknown_fields;  ///< ignored; told in a header
};

/// The text of a prompt that is echoed: as an answer's text would be, without the space that SPM
/// puts in front.
std::string EchoText(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt, bool special);

using ParsedCompletion = std::variant<CompletionRequest, ApiError>;

/// Checks a body: known fields with wrong types or values out of range are an ApiError that names
/// the field; unknown ones are ignored and listed; null is as if left out. Renders the chat
/// template and tokenizes. `now`: Unix time, for templates and, mixed with a counter, for seeds
/// that were not given.
ParsedCompletion ParseCompletion(const LoadedModel& model, Endpoint endpoint,
                                 const nlohmann::ordered_json& body, int64_t now);

}  // namespace kvasir
