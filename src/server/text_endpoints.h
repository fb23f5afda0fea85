#pragma once

#include <memory>

#include "http/http_server.h"
#include "server/server_state.h"

namespace kvasir {

/// POST /tokenize: {"prompt": text} or {"messages": [...]}, as vLLM has it; {"content": text}, as
/// llama.cpp has it. Gives tokens, their count, and with return_token_strs or with_pieces their
/// texts.
void AnswerTokenize(ServerState* state, HttpRequest&& request,
                    const std::shared_ptr<HttpReply>& reply);

/// POST /detokenize: {"tokens": [ids]} to {"prompt": text, "content": text}.
void AnswerDetokenize(ServerState* state, HttpRequest&& request,
                      const std::shared_ptr<HttpReply>& reply);

}  // namespace kvasir
