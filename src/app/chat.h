#pragma once

#include <functional>
#include <optional>
#include <string>

#include "api/loaded_model.h"
#include "app/chat_history.h"
#include "app/generate.h"

namespace kvasir {

struct ChatOptions {
  std::optional<std::string> system;  ///< nullopt: kDefaultSystem
  SamplingParams sampling;
  StopRules stop;
  int32_t max_tokens = -1;
  bool quiet = false;  ///< no statistics
};

/// "[first token 0.12 s | 45 tokens at 61.2/s | prompt 37 tokens, 30 from the cache]"
std::string StatsLine(const Reply& reply);

/// Prints a reply as it comes, with a progress bar while a long prompt is computed, and ends its
/// line. What it says about the end of the reply goes to stderr; `in_chat`: with commands that
/// help.
Result<Reply> StreamReply(LoadedModel* model, Engine* engine, Request request, bool quiet,
                          bool in_chat);

/// Talks with whoever sits at the terminal until Ctrl-D or /exit. Gives the exit code.
Result<int> Chat(LoadedModel* model, const ChatOptions& options);

}  // namespace kvasir
