#include "server/reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/clock.h"
#include "openai/json_text.h"
#include "server/request_log.h"
#include "server/server_state.h"

namespace kvasir {
namespace {

constexpr const char* kRequestId = "X-Request-Id";
constexpr size_t kMostIdBytes = 128;

}  // namespace

HttpHeaders HeadersOfError(const ApiError& error, HttpHeaders headers,
                           std::optional<double> retry_after_s) {
  constexpr double kSoon = 1;
  if (!retry_after_s && (error.status == 429 || error.status == 503)) retry_after_s = kSoon;
  if (retry_after_s) {
    const auto seconds = static_cast<int64_t>(std::ceil(std::clamp(*retry_after_s, 1.0, 3600.0)));
    headers.emplace_back("Retry-After", std::to_string(seconds));
  }
  if (error.status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
  headers.emplace_back("Content-Type", "application/json");
  return headers;
}

void NameIgnored(const std::vector<std::string>& fields, HttpHeaders* headers) {
  constexpr size_t kMostBytes = 1000;
  std::string ignored;
  for (const std::string& name : fields) {
    // What a client sent does not go into a header as it is.
    const bool plain = std::all_of(name.begin(), name.end(), [](char ch) {
      return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
             ch == '_' || ch == '-' || ch == '.';
    });
    if (ignored.size() + name.size() > kMostBytes) break;
    ignored += (ignored.empty() ? "" : ", ") + (plain ? name : std::string("?"));
  }
  if (!ignored.empty()) headers->emplace_back("X-Kvasir-Ignored-Fields", std::move(ignored));
}

std::string ClientIdOf(const HttpRequest& request) {
  const std::string_view id = request.Header(kRequestId);
  // It goes into a header and into the log.
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return c >= ' ' && c <= '~'; });
  return printable && id.size() <= kMostIdBytes ? std::string(id) : std::string();
}

ApiReply::ApiReply(ServerState* state, const HttpRequest& request, std::shared_ptr<HttpReply> reply)
    : state_(state),
      reply_(std::move(reply)),
      path_(request.path),
      client_id_(ClientIdOf(request)) {}

HttpHeaders ApiReply::Named(HttpHeaders headers) const {
  if (client_id_.empty()) return headers;
  std::erase_if(headers, [](const auto& header) { return header.first == kRequestId; });
  headers.emplace_back(kRequestId, client_id_);
  return headers;
}

void ApiReply::Send(int status, HttpHeaders headers, std::string body) {
  reply_->Send(status, Named(std::move(headers)), std::move(body));
}

void ApiReply::Begin(int status, HttpHeaders headers) {
  reply_->Begin(status, Named(std::move(headers)));
}

void ApiReply::SendJson(const nlohmann::ordered_json& body) {
  Send(200, {{"Content-Type", "application/json"}}, JsonLine(body));
}

void ApiReply::SendError(const ApiError& error, HttpHeaders headers,
                         std::optional<double> retry_after_s) {
  if (gone()) return;
  state_->metrics.Refused(error.status, CodeOf(error));
  LogRefusal(&state_->refusals, SteadyClock().NowNs(), error, *this);
  Send(error.status, HeadersOfError(error, std::move(headers), retry_after_s),
       JsonLine(ToJson(error)));
}

void ApiReply::SendBusy(const char* code, const std::string& message, double retry_after_s) {
  SendError(
      {.status = 429, .message = message, .type = "rate_limit_error", .param = {}, .code = code},
      {}, retry_after_s);
}

void ApiReply::SendLimit(const RateLimiter::Refusal& limit) {
  SendBusy("rate_limit_exceeded",
           fmt::format("your limit of {} is reached; try again in {:.0f} s", limit.limit,
                       limit.retry_after_s),
           limit.retry_after_s);
}

bool ApiReply::TakeRequest(const Tenant& tenant) {
  const auto limit = state_->limiter.TakeRequest(tenant, NowSeconds());
  if (limit) SendLimit(*limit);
  return !limit;
}

double NowSeconds() { return static_cast<double>(SteadyClock().NowNs()) * 1e-9; }

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

ApiError NoRoomError() {
  return {.status = 503,
          .message = "the answer is too large while others wait to be read",
          .type = "server_error",
          .param = {},
          .code = "no_memory"};
}

ApiError ModelNotFound(std::string_view asked, const std::string& served) {
  return {.status = 404,
          .message = fmt::format("the model \"{}\" does not exist; this server has \"{}\"",
                                 asked.substr(0, 200), served),
          .param = "model",
          .code = "model_not_found"};
}

}  // namespace kvasir
