#include "openai/api_error.h"

namespace kvasir {

const std::string& CodeOf(const ApiError& e) { return e.code.empty() ? e.type : e.code; }

nlohmann::ordered_json ToJson(const ApiError& e) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  return {{"error",
           {{"message", e.message},
            {"type", e.type},
            {"param", or_null(e.param)},
            {"code", or_null(e.code)}}}};
}

ApiError ToApiError(const Error& error) {
  switch (error.code) {
    case ErrorCode::kBusy:
      return {.status = 429,
              .message = error.message,
              .type = "rate_limit_error",
              .param = {},
              .code = "queue_full"};
    case ErrorCode::kIo:
      return {
          .status = 500, .message = error.message, .type = "server_error", .param = {}, .code = {}};
    case ErrorCode::kCancelled:
      return {
          .status = 503, .message = error.message, .type = "server_error", .param = {}, .code = {}};
    case ErrorCode::kNotFound:
      return {.status = 404, .message = error.message, .param = {}, .code = "not_found"};
    case ErrorCode::kInvalid:
    case ErrorCode::kUnsupported:
    case ErrorCode::kNoMemory:
      break;
  }
  return {.status = 400, .message = error.message, .param = {}, .code = {}};
}

}  // namespace kvasir
