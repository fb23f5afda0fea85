#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace kvasir {

/// An error as the OpenAI API tells it: an HTTP status, and the object under "error".
struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  ///< the field that is wrong; empty: none in particular
  std::string code;
};

/// The code, or the type of an error that has none: a few words, known beforehand.
const std::string& CodeOf(const ApiError& error);

/// {"error": {...}}
nlohmann::ordered_json ToJson(const ApiError& error);

/// What an engine's refusal is to a client: 400, 429, 500 or 503.
ApiError ToApiError(const Error& error);

}  // namespace kvasir
