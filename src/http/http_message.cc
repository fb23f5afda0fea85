#include "http/http_message.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/status.hpp>
#include <ctime>

namespace kvasir {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = Lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/// Headers are written as they are given: nothing may end a line.
bool IsPlain(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

bool EqualIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return Lower(x) == Lower(y); });
}

bool AllowsOrigin(const std::vector<std::string>& allowed, std::string_view origin) {
  return std::any_of(allowed.begin(), allowed.end(),
                     [origin](const std::string& one) { return one == "*" || one == origin; });
}

bool IsLoopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (EqualIgnoringCase(key, name)) return value;
  }
  return {};
}

std::optional<std::string> HttpRequest::QueryParam(std::string_view name) const {
  for (std::string_view rest = query; !rest.empty();) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    if (PercentDecode(pair.substr(0, equals)) != name) continue;
    return PercentDecode(pair.substr(std::min(equals + 1, pair.size()))).value_or("");
  }
  return {};
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return {};
    const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return {};
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::optional<std::pair<std::string, std::string>> SplitTarget(std::string_view target) {
  const size_t question = std::min(target.find('?'), target.size());
  auto path = PercentDecode(target.substr(0, question));
  const std::string_view query = target.substr(std::min(question + 1, target.size()));
  if (!path || path->empty() || (*path)[0] != '/' || !IsPlain(*path) || !IsPlain(query)) return {};
  return std::pair(std::move(*path), std::string(query));
}

std::string HeadText(int status, const HttpHeaders& headers) {
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  std::string out = fmt::format(
      "HTTP/1.1 {} {}\r\nServer: kvasir\r\nDate: {:%a, %d %b %Y %H:%M:%S} GMT\r\n", status,
      std::string_view(reason.data(), reason.size()), fmt::gmtime(std::time(nullptr)));
  for (const auto& [name, value] : headers) {
    if (IsPlain(name) && IsPlain(value)) out += name + ": " + value + "\r\n";
  }
  out += "\r\n";
  return out;
}

std::string ErrorBody(std::string_view message, std::string_view type, std::string_view code) {
  // All texts are our own: there is nothing to escape.
  return fmt::format(R"({{"error":{{"message":"{}","type":"{}","param":null,"code":{}}}}})",
                     message, type, code.empty() ? "null" : fmt::format("\"{}\"", code));
}

void AppendChunk(std::string_view bytes, std::string* out) {
  if (bytes.empty()) return;  // an empty chunk would be the last one
  fmt::format_to(std::back_inserter(*out), "{:x}\r\n", bytes.size());
  *out += bytes;
  *out += "\r\n";
}

}  // namespace kvasir
