#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "http/http_server.h"
#include "openai/api_error.h"

namespace kvasir {

/// Answers with a JSON body.
void SendJson(HttpReply* reply, int status, const nlohmann::ordered_json& body,
              HttpHeaders headers = {});

/// Answers with an error object; `retry_after_s`, rounded up, becomes Retry-After.
void SendError(HttpReply* reply, const ApiError& error, HttpHeaders headers = {},
               std::optional<double> retry_after_s = {});

// Errors that several places give.
ApiError LoadingError();
ApiError DrainingError();
ApiError NoMemoryError();

}  // namespace kvasir
