#pragma once

#include <memory>

#include "http/http_server.h"
#include "server/server_state.h"

namespace kvasir {

/// POST /tokenize: {"prompt": text} or {"messages": [...]}, as vLLM has it; {"content": text}, as
/// llama.cpp has it. Gives tokens, their count, and with return_token_strs or with_pieces their
/// texts. What is larger than the limits below is a 413 that names them: the answer takes many
/// times the memory of its text. Takes one of the caller's requests a minute, and its turn of the
/// text workers.
void AnswerTokenize(ServerState* state, HttpRequest&& request,
                    const std::shared_ptr<ApiReply>& reply, const Tenant& caller);

/// POST /detokenize: {"tokens": [ids]} to {"prompt": text, "content": text}.
void AnswerDetokenize(ServerState* state, HttpRequest&& request,
                      const std::shared_ptr<ApiReply>& reply, const Tenant& caller);

inline constexpr size_t kMostTextBody = 8 << 20;        ///< bytes of a body of either
inline constexpr size_t kMostText = 1 << 20;            ///< bytes to tokenize
inline constexpr size_t kMostTokens = 1 << 18;          ///< to give text of
inline constexpr size_t kMostTokensWithText = 1 << 16;  ///< that are given with their texts

}  // namespace kvasir
