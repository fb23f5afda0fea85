#include "server/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "server/completions.h"
#include "server/kv_feed.h"
#include "server/reply.h"
#include "server/same_origin.h"
#include "server/text_endpoints.h"
#include "web/web_files.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// A request on its way to whoever answers it.
struct Call {
  ServerState* state;
  Tenant caller;
  HttpRequest request;
  std::shared_ptr<ApiReply> reply;
};

enum class Access { kPublic, kTenant, kOperator };

struct RouteRow {
  std::string_view method, path;
  Access access;
  bool needs_model;  // 503 before it is loaded and while the server drains
  void (*answer)(Call&& call);
};

void Health(Call&& c) {
  if (c.state->draining) return c.reply->SendError(DrainingError());
  if (c.state->model == nullptr) return c.reply->SendError(LoadingError());
  c.reply->SendJson({{"status", "ok"}});
}

void Version(Call&& c) { c.reply->SendJson({{"version", KVASIR_VERSION}}); }

Json ModelJson(const ServerState& state) {
  return {{"id", state.options.model_name},
          {"object", "model"},
          {"created", state.started},
          {"owned_by", "kvasir"},
          {"max_model_len", state.model->plan().context}};
}

void Models(Call&& c) {
  c.reply->SendJson({{"object", "list"}, {"data", Json::array({ModelJson(*c.state)})}});
}

constexpr std::string_view kModelPath = "/v1/models/";

/// Names may have slashes in them.
void OneModel(Call&& c) {
  const std::string_view id = std::string_view(c.request.path).substr(kModelPath.size());
  const std::string& served = c.state->options.model_name;
  if (id != served) return c.reply->SendError(ModelNotFound(id, served));
  c.reply->SendJson(ModelJson(*c.state));
}

void ChatCompletions(Call&& c) {
  c.state->completions->Begin(Endpoint::kChat, c.caller, std::move(c.request), c.reply);
}
void PlainCompletions(Call&& c) {
  c.state->completions->Begin(Endpoint::kCompletions, c.caller, std::move(c.request), c.reply);
}
void Tokenize(Call&& c) { AnswerTokenize(c.state, std::move(c.request), c.reply, c.caller); }
void Detokenize(Call&& c) { AnswerDetokenize(c.state, std::move(c.request), c.reply, c.caller); }
void Kv(Call&& c) { c.state->kv_feed->Once(c.reply); }
void KvStream(Call&& c) { c.state->kv_feed->Watch(c.request, std::move(c.reply)); }
void Metrics(Call&& c) { c.state->kv_feed->Metrics(c.reply); }

/// The page and its files.
void Page(Call&& c) {
  const std::string path = c.request.path == "/" ? "/web/index.html" : c.request.path;
  for (const WebFile& file : WebFiles()) {
    const bool found = path == fmt::format("/web/{}", file.path);
    if (!found) continue;
    HttpHeaders headers = {
        {"Content-Type", std::string(file.type)},
        {"ETag", std::string(file.etag)},
        {"Cache-Control", "no-cache"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
         "'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}};
    if (c.request.Header("If-None-Match") == file.etag)
      return c.reply->Send(304, std::move(headers), "");
    return c.reply->Send(200, std::move(headers), std::string(file.body));
  }
  c.reply->SendError(
      {.status = 404, .message = "there is no such page", .param = {}, .code = "not_found"});
}

constexpr RouteRow kRoutes[] = {
    {"GET", "/health", Access::kPublic, false, Health},
    {"GET", "/", Access::kPublic, false, Page},
    {"GET", "/version", Access::kTenant, false, Version},
    {"GET", "/v1/models", Access::kTenant, true, Models},
    {"POST", "/v1/chat/completions", Access::kTenant, true, ChatCompletions},
    {"POST", "/v1/completions", Access::kTenant, true, PlainCompletions},
    {"POST", "/tokenize", Access::kTenant, true, Tokenize},
    {"POST", "/detokenize", Access::kTenant, true, Detokenize},
    {"GET", "/v1/kv", Access::kOperator, true, Kv},
    {"GET", "/v1/kv/stream", Access::kOperator, true, KvStream},
    {"GET", "/metrics", Access::kOperator, true, Metrics},
};
/// All that a path begins with.
constexpr RouteRow kFolders[] = {
    {"GET", "/web/", Access::kPublic, false, Page},
    {"GET", kModelPath, Access::kTenant, true, OneModel},
};

/// The row of a request; `allow`: the methods of rows that only differ in it.
const RouteRow* Find(const HttpRequest& request, std::string* allow) {
  const std::string_view method =
      request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  for (const RouteRow& row : kFolders) {
    if (!request.path.starts_with(row.path)) continue;
    if (method == row.method) return &row;
    *allow = "GET, HEAD";
    return nullptr;
  }
  for (const RouteRow& row : kRoutes) {
    if (row.path != request.path) continue;
    if (row.method == method) return &row;
    *allow = row.method == "GET" ? "GET, HEAD" : std::string(row.method);
  }
  return nullptr;
}

/// Who asks, or an error. Without keys everybody is the same operator.
std::optional<ApiError> Identify(const ServerState& state, const HttpRequest& request,
                                 Tenant* caller) {
  if (!state.keys) {
    *caller = {.id = 0, .name = "", .is_operator = true, .limits = {.priority = 100}, .salt = 0};
    return FromElsewhere(state.options.http, request);
  }
  const std::string_view key = KeyOf(request);
  const Tenant* tenant = key.empty() ? nullptr : state.keys->Find(key);
  if (tenant == nullptr) {
    return ApiError{.status = 401,
                    .message = key.empty() ? "an API key is needed: Authorization: Bearer KEY"
                                           : "the API key is not known",
                    .type = "authentication_error",
                    .param = {},
                    .code = "invalid_api_key"};
  }
  *caller = *tenant;
  return {};
}

/// What becomes of a request: its row and who asks, or an error.
struct Decision {
  const RouteRow* row = nullptr;
  Tenant caller;
  std::optional<ApiError> error;
  HttpHeaders headers;  // of the error
};

Decision Decide(const ServerState& state, const HttpRequest& request) {
  Decision d;
  std::string allow;
  d.row = Find(request, &allow);
  if (d.row == nullptr && allow.empty()) {
    d.error = {.status = 404,
               .message = fmt::format("there is no {} here; see the API's documentation for what "
                                      "there is",
                                      request.path.substr(0, 200)),
               .param = {},
               .code = "not_found"};
    return d;
  }
  if (d.row == nullptr) {
    d.error = {.status = 405,
               .message = fmt::format("{} takes {} only", request.path, allow),
               .param = {},
               .code = "method_not_allowed"};
    d.headers = {{"Allow", allow}};
    return d;
  }
  if (d.row->access != Access::kPublic) {
    d.error = Identify(state, request, &d.caller);
    if (d.error) return d;
    if (d.row->access == Access::kOperator && !d.caller.is_operator) {
      d.error = {.status = 403,
                 .message = "this needs the key of an operator",
                 .type = "permission_error",
                 .param = {},
                 .code = "operator_needed"};
      return d;
    }
  }
  const std::string_view coding = request.Header("Content-Encoding");
  if (d.row->method == "POST" && !coding.empty() && !EqualIgnoringCase(coding, "identity")) {
    d.error = {.status = 415,
               .message = fmt::format("Content-Encoding is {}; send the body as it is, without it",
                                      coding.substr(0, 50)),
               .param = {},
               .code = "unsupported_encoding"};
    d.headers = {{"Accept-Encoding", "identity"}};
  } else if (d.row->needs_model && state.model == nullptr) {
    d.error = LoadingError();
  } else if (d.row->needs_model && state.draining) {
    d.error = DrainingError();
  }
  return d;
}

}  // namespace

std::string_view KeyOf(const HttpRequest& request) {
  std::string_view value = request.Header("Authorization");
  // RFC 9110, 11.1 and 11.4: the scheme in any case, then spaces.
  constexpr std::string_view kBearer = "Bearer";
  const size_t space = value.find(' ');
  if (space != std::string_view::npos && EqualIgnoringCase(value.substr(0, space), kBearer)) {
    value.remove_prefix(std::min(value.find_first_not_of(' ', space), value.size()));
    if (!value.empty()) return value;
  }
  return request.Header("X-Api-Key");
}

std::optional<uint64_t> Admit(const ServerState& state, const HttpRequest& head) {
  const Decision d = Decide(state, head);
  // Only POST has a use for a body. A stranger's would take the room of all others' bodies.
  if (d.error || d.row->method != "POST") return std::nullopt;
  return d.caller.id;
}

void Route(ServerState* state, HttpRequest&& request, std::shared_ptr<HttpReply> http) {
  auto reply = std::make_shared<ApiReply>(state, request, std::move(http));
  Decision d = Decide(*state, request);
  reply->SetTenant(d.caller.name);
  if (d.error) return reply->SendError(*d.error, std::move(d.headers));
  d.row->answer({state, std::move(d.caller), std::move(request), std::move(reply)});
}

}  // namespace kvasir
