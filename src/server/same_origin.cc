#include "server/same_origin.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {
namespace {

/// Host and port of an origin such as "https://a.example:8443"; of what has no scheme, nothing.
std::string_view AuthorityOf(std::string_view origin) {
  const size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? std::string_view() : origin.substr(scheme + 3);
}

/// Without the port, the brackets of an IPv6 address, and the dot of a full domain name.
std::string_view NameOf(std::string_view authority) {
  if (authority.starts_with('['))
    return authority.substr(1, std::min(authority.find(']'), authority.size()) - 1);
  std::string_view name = authority.substr(0, authority.rfind(':'));
  if (name.ends_with('.')) name.remove_suffix(1);
  return name;
}

bool IsAddress(std::string_view name) {
  const std::string text(name);
  in6_addr address;
  return inet_pton(AF_INET, text.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

ApiError Forbidden(std::string message, const char* code) {
  return {.status = 403,
          .message = std::move(message),
          .type = "permission_error",
          .param = {},
          .code = code};
}

}  // namespace

std::optional<ApiError> FromElsewhere(const HttpOptions& options, const HttpRequest& request) {
  const std::vector<std::string>& allowed = options.cors_origins;
  const std::string_view host = request.Header("Host"), origin = request.Header("Origin");
  if (!origin.empty() && !EqualIgnoringCase(AuthorityOf(origin), host) &&
      !AllowsOrigin(allowed, origin)) {
    return Forbidden("pages of this Origin may not ask; allow it with --cors, or use API keys",
                     "origin_not_allowed");
  }
  if (host.empty() || !options.unix_path.empty() || !IsLoopback(options.host)) return {};
  const std::string_view name = NameOf(host);
  if (IsAddress(name) || EqualIgnoringCase(name, "localhost") ||
      EqualIgnoringCase(name, options.host) || AllowsOrigin(allowed, "*") ||
      std::any_of(allowed.begin(), allowed.end(), [name](const std::string& one) {
        return EqualIgnoringCase(NameOf(AuthorityOf(one)), name);
      }))
    return {};
  return Forbidden(
      "this server is called localhost, or by its address; for another name (of a proxy before it) "
      "use --cors http://NAME, or API keys",
      "host_not_allowed");
}

}  // namespace kvasir
