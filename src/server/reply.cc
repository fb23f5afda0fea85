#include "server/reply.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "openai/json_text.h"

namespace kvasir {

void SendJson(HttpReply* reply, int status, const nlohmann::ordered_json& body,
              HttpHeaders headers) {
  headers.emplace_back("Content-Type", "application/json");
  reply->Send(status, std::move(headers), JsonLine(body));
}

void SendError(HttpReply* reply, const ApiError& error, HttpHeaders headers,
               std::optional<double> retry_after_s) {
  if (retry_after_s) {
    const auto seconds = static_cast<int64_t>(std::ceil(std::clamp(*retry_after_s, 1.0, 3600.0)));
    headers.emplace_back("Retry-After", std::to_string(seconds));
  }
  if (error.status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
  SendJson(reply, error.status, ToJson(error), std::move(headers));
}

ApiError LoadingError() {
  return {.status = 503,
          .message = "the model is being loaded; try again in a moment",
          .type = "server_error",
          .param = {},
          .code = "loading"};
}

ApiError DrainingError() {
  return {.status = 503,
          .message = "the server is ending: it only finishes what it has begun",
          .type = "server_error",
          .param = {},
          .code = "draining"};
}

ApiError NoMemoryError() {
  return {.status = 503,
          .message = "there is no memory for this request now",
          .type = "server_error",
          .param = {},
          .code = "no_memory"};
}

}  // namespace kvasir
