#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

/// A request as it came, whole.
struct HttpRequest {
  std::string method;
  std::string path;   ///< percent-decoded, without the query; no control characters
  std::string query;  ///< as it came, without the "?"
  HttpHeaders headers;
  std::string body;
  std::string peer;  ///< address of the client; empty with a Unix socket

  /// The first header of a name, in any case; empty if there is none.
  std::string_view Header(std::string_view name) const;
  /// The first query parameter of a name, decoded: empty if that is malformed. Nothing if there is
  /// none.
  std::optional<std::string> QueryParam(std::string_view name) const;
};

/// Undoes percent encoding. Nothing if it is malformed.
std::optional<std::string> PercentDecode(std::string_view text);

/// Takes "/path?query" apart. Nothing for what is no path, or has control characters in it.
std::optional<std::pair<std::string, std::string>> SplitTarget(std::string_view target);

bool EqualIgnoringCase(std::string_view a, std::string_view b);

/// Whether `allowed`, a list of origins, has this one, or "*".
bool AllowsOrigin(const std::vector<std::string>& allowed, std::string_view origin);

/// Whether only this machine reaches what listens there.
bool IsLoopback(std::string_view host);

/// The head of an answer: status line, headers, Date, Server and the empty line.
std::string HeadText(int status, const HttpHeaders& headers);

/// An error object as the body of an answer that no handler made. `code`: empty for null.
std::string ErrorBody(std::string_view message, std::string_view type, std::string_view code = {});

/// One chunk of the chunked transfer encoding (RFC 9112, 7.1).
void AppendChunk(std::string_view bytes, std::string* out);

}  // namespace kvasir
