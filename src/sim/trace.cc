#include "sim/trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

namespace kvasir {
namespace {

constexpr int64_t kMostTokens = 16'000'000;

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;  // splitmix64
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

Error BadLine(const std::string& path, size_t line, const std::string& what) {
  return MakeError(ErrorCode::kInvalid, "{}:{}: {}", path, line, what);
}

Result<TraceRequest> FromJson(const std::string& path, size_t line, const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return BadLine(path, line, "is not a JSON object");
  TraceRequest r;
  const auto number = [&](const char* key, double most, double* out) -> Status {
    const auto it = json.find(key);
    if (it == json.end() || !it->is_number())
      return BadLine(path, line, fmt::format("{} is missing or no number", key));
    *out = it->get<double>();
    if (!(*out >= 0 && *out <= most))
      return BadLine(path, line, fmt::format("{} is {}; it must be from 0 to {}", key, *out, most));
    return {};
  };
  double ms = 0, input = 0, output = 0;
  KV_RETURN_IF_ERROR(number("timestamp", 1e15, &ms));
  KV_RETURN_IF_ERROR(number("input_length", kMostTokens, &input));
  KV_RETURN_IF_ERROR(number("output_length", kMostTokens, &output));
  r.arrival_s = ms / 1e3;
  r.input_tokens = static_cast<int32_t>(input);
  r.output_tokens = static_cast<int32_t>(output);
  const auto ids = json.find("hash_ids");
  if (ids == json.end()) return r;
  if (!ids->is_array()) return BadLine(path, line, "hash_ids is no array");
  for (const auto& id : *ids) {
    if (!id.is_number_integer())
      return BadLine(path, line, "hash_ids holds something else than an integer");
    r.pieces.push_back(id.get<int64_t>());
  }
  if (r.pieces.size() * kTracePiece < static_cast<size_t>(r.input_tokens)) {
    return BadLine(path, line,
                   fmt::format("{} hash_ids for {} tokens; one for each {} is needed",
                               r.pieces.size(), r.input_tokens, kTracePiece));
  }
  return r;
}

/// "2023-11-16 18:15:46.6805900", or a number of seconds.
bool ParseTime(const std::string& text, double* seconds) {
  const char* end = text.data() + text.size();
  const auto number = std::from_chars(text.data(), end, *seconds);
  if (number.ec == std::errc() && number.ptr == end) return true;
  tm t{};
  const char* rest = strptime(text.c_str(), "%Y-%m-%d %H:%M:%S", &t);
  if (rest == nullptr) return false;
  *seconds = static_cast<double>(timegm(&t));
  if (*rest == '.') {
    double fraction = 0;
    std::from_chars(rest, end, fraction);
    *seconds += fraction;
  }
  return true;
}

Result<TraceRequest> FromCsv(const std::string& path, size_t line, const std::string& text) {
  const size_t a = text.find(','), b = text.find(',', a == std::string::npos ? a : a + 1);
  if (b == std::string::npos)
    return BadLine(path, line, "needs TIMESTAMP,ContextTokens,GeneratedTokens");
  TraceRequest r;
  if (!ParseTime(text.substr(0, a), &r.arrival_s))
    return BadLine(path, line, "TIMESTAMP is no time");
  const auto count = [&](size_t from, size_t to, int32_t* out) {
    const auto parsed = std::from_chars(text.data() + from, text.data() + to, *out);
    return parsed.ec == std::errc() && *out >= 0 && *out <= kMostTokens;
  };
  if (!count(a + 1, b, &r.input_tokens))
    return BadLine(path, line, "ContextTokens is no number of tokens");
  if (!count(b + 1, text.size(), &r.output_tokens))
    return BadLine(path, line, "GeneratedTokens is no number of tokens");
  return r;
}

}  // namespace

Result<std::vector<TraceRequest>> ReadTrace(const std::string& path, size_t limit) {
  std::ifstream in(path);
  if (!in.is_open())
    return MakeError(ErrorCode::kNotFound, "cannot open {}: {}", path, std::strerror(errno));
  std::vector<TraceRequest> out;
  std::string text;
  for (size_t line = 1; std::getline(in, text) && (limit == 0 || out.size() < limit); ++line) {
    while (!text.empty() && (text.back() == '\r' || text.back() == ' ')) text.pop_back();
    if (text.empty() || (line == 1 && text.find("Tokens") != std::string::npos)) continue;
    Result<TraceRequest> request =
        text[0] == '{' ? FromJson(path, line, text) : FromCsv(path, line, text);
    if (!request.ok()) return request.error();
    // A request computes at least one token and gives at least one.
    request->input_tokens = std::max(request->input_tokens, 1);
    request->output_tokens = std::max(request->output_tokens, 1);
    out.push_back(std::move(*request));
  }
  if (out.empty()) return MakeError(ErrorCode::kInvalid, "{} holds no request", path);
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.arrival_s < b.arrival_s; });
  const double start = out.front().arrival_s;
  for (TraceRequest& r : out) r.arrival_s -= start;
  return out;
}

std::vector<int32_t> PromptOf(const TraceRequest& request, size_t index) {
  // Mixed one after the other: a sum or product of them would wrap, and meet another's.
  const auto token = [](uint64_t text, size_t position) {
    return static_cast<int32_t>(Mix(Mix(text + 0x9E3779B97F4A7C15ull) + position) & 0x3fffffff);
  };
  constexpr int32_t kLikeNoOther = 0x40000000;  // in all of these tokens, in none of the others
  std::vector<int32_t> tokens(static_cast<size_t>(request.input_tokens));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] =
        request.pieces.empty()
            ? token(index, i) | kLikeNoOther
            : token(static_cast<uint64_t>(request.pieces[i / kTracePiece]), i % kTracePiece);
  }
  return tokens;
}

}  // namespace kvasir
