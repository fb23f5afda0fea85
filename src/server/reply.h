#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/http_server.h"
#include "openai/api_error.h"
#include "tenant/rate_limiter.h"

namespace kvasir {

struct ServerState;

/// The headers of an error's answer. Every 429 and 503 tells when to come again: after
/// `retry_after_s`, rounded up, or else a second.
HttpHeaders HeadersOfError(const ApiError& error, HttpHeaders headers,
                           std::optional<double> retry_after_s);

/// Adds X-Kvasir-Ignored-Fields, which names fields of a body that nobody read; none where there
/// are none.
void NameIgnored(const std::vector<std::string>& fields, HttpHeaders* headers);

/// What a client calls its request (X-Request-Id), if it is printable ASCII, at most 128
/// characters; else empty.
std::string ClientIdOf(const HttpRequest& request);

/// The answer to one request: an HttpReply that knows who asked for what, so that each refusal is
/// counted and logged in one place. All calls on the I/O thread; let go of on any.
class ApiReply {
 public:
  ApiReply(ServerState* state, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
  /// Who asks, once it is known.
  void SetTenant(std::string name) { tenant_ = std::move(name); }

  /// As HttpReply's. A client that named its request finds the name in the answer's X-Request-Id.
  void Send(int status, HttpHeaders headers, std::string body);
  void Begin(int status, HttpHeaders headers);
  void Write(std::string_view bytes) { reply_->Write(bytes); }
  void End() { reply_->End(); }
  void BodyTaken() { reply_->BodyTaken(); }
  bool Reserve(size_t bytes) { return reply_->Reserve(bytes); }
  void OnGone(std::function<void()> gone) { reply_->OnGone(std::move(gone)); }
  bool gone() const { return reply_->gone(); }
  size_t pending() const { return reply_->pending(); }

  void SendJson(const nlohmann::ordered_json& body);
  /// Answers with an error object; see HeadersOfError.
  void SendError(const ApiError& error, HttpHeaders headers = {},
                 std::optional<double> retry_after_s = {});

  /// 429, with when to come again.
  void SendBusy(const char* code, const std::string& message, double retry_after_s);
  void SendLimit(const RateLimiter::Refusal& limit);
  /// Takes one of the requests that the tenant may have in a minute. Where there is none this is
  /// answered, and false.
  bool TakeRequest(const Tenant& tenant);

  const std::string& tenant() const { return tenant_; }
  const std::string& path() const { return path_; }
  const std::string& client_id() const { return client_id_; }

 private:
  HttpHeaders Named(HttpHeaders headers) const;

  ServerState* state_;
  std::shared_ptr<HttpReply> reply_;
  std::string path_, client_id_, tenant_;
};

/// The time in which limits count.
double NowSeconds();

// Errors that several places give.
ApiError LoadingError();
ApiError DrainingError();
ApiError NoMemoryError();
/// The room for large answers is taken.
ApiError NoRoomError();
ApiError ModelNotFound(std::string_view asked, const std::string& served);

}  // namespace kvasir
