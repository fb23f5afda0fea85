#include "openai/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace kvasir {

namespace {

/// What an object looks through for each of its keys, as it is built: all keys before it.
class KeyCount {
 public:
  void Begin(int depth) {
    if (InRange(depth)) keys_[depth] = 0;
  }
  /// A key of so many bytes in the object at `depth`.
  Status Add(int depth, size_t bytes) {
    if (!InRange(depth)) return {};  // the parser says what is wrong
    // An entry costs about as much to look at as this many bytes of a key.
    constexpr size_t kEntry = 16;
    compared_ += keys_[depth] * (kEntry + bytes);
    if (++keys_[depth] > kMostJsonKeys) {
      return MakeError(ErrorCode::kInvalid, "an object of the JSON has more than {} keys",
                       kMostJsonKeys);
    }
    if (compared_ > kMostJsonKeyBytes) {
      return MakeError(ErrorCode::kInvalid,
                       "the JSON has too many long objects: to compare their keys takes more than "
                       "{} bytes; send fewer or shorter keys",
                       kMostJsonKeyBytes);
    }
    return {};
  }

 private:
  static bool InRange(int depth) { return depth >= 0 && depth <= kMostJsonDepth; }
  size_t keys_[kMostJsonDepth + 1] = {};  // of the object that is open at each depth
  size_t compared_ = 0;
};

/// Finds a key that an object has twice: readers differ in which of the two they take. The keys of
/// an object are sorted at its end; a set of them would take long to empty where many small objects
/// follow a large one.
class RepeatedKeys {
 public:
  void Begin(int depth) {
    if (!InRange(depth)) return;
    open_[depth].plain.clear();
    open_[depth].escaped.clear();
  }
  /// `key`: as it is written, between its quotes.
  void Add(int depth, std::string_view key) {
    if (!InRange(depth)) return;
    if (key.find('\\') == std::string_view::npos) {
      open_[depth].plain.push_back(key);
      return;
    }
    const auto text = nlohmann::json::parse(fmt::format("\"{}\"", key), nullptr, false);
    if (text.is_string()) open_[depth].escaped.push_back(text.get<std::string>());
  }
  void End(int depth) {
    if (!InRange(depth) || repeated_) return;
    std::vector<std::string_view>& keys = open_[depth].plain;
    keys.insert(keys.end(), open_[depth].escaped.begin(), open_[depth].escaped.end());
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) repeated_ = *twice;
  }
  const std::optional<std::string>& repeated() const { return repeated_; }

 private:
  struct Object {
    std::vector<std::string_view> plain;
    std::vector<std::string> escaped;  // what they stand for
  };
  static bool InRange(int depth) { return depth >= 0 && depth <= kMostJsonDepth; }
  Object open_[kMostJsonDepth + 1];  // at each depth
  std::optional<std::string> repeated_;
};

}  // namespace

Result<nlohmann::ordered_json> ParseJson(std::string_view text) {
  int depth = 0;
  size_t values = 1;
  KeyCount keys;
  RepeatedKeys names;
  bool in_string = false;
  size_t string_begin = 0, string_end = 0;  // of the last one
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      string_end = i;
      continue;
    }
    if (c == '"') {
      in_string = true;
      string_begin = i;
    }
    if (c == '[' || c == '{') keys.Begin(++depth);
    if (c == '{') names.Begin(depth);
    if (c == '}') names.End(depth);
    if (c == ']' || c == '}') --depth;
    if (c == ':') {
      KV_RETURN_IF_ERROR(keys.Add(depth, string_end - string_begin));
      if (string_end > string_begin)
        names.Add(depth, text.substr(string_begin + 1, string_end - string_begin - 1));
    }
    // Each value but the first follows one of these.
    values += c == ',' || c == ':' || c == '[' || c == '{';
    if (values > kMostJsonValues)
      return MakeError(ErrorCode::kInvalid, "the JSON has more than {} values", kMostJsonValues);
    if (depth > kMostJsonDepth)
      return MakeError(ErrorCode::kInvalid, "the JSON is nested deeper than {}", kMostJsonDepth);
  }
  try {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(text);
    if (const auto& name = names.repeated(); name) {
      constexpr size_t kShown = 100;
      return MakeError(ErrorCode::kInvalid,
                       "an object of the JSON has the key {} twice; leave one of the two out",
                       JsonLine(name->substr(0, kShown)));
    }
    return json;
  } catch (const nlohmann::json::parse_error& error) {
    return MakeError(ErrorCode::kInvalid, "the JSON is wrong at byte {}", error.byte);
  } catch (const nlohmann::json::out_of_range&) {
    return MakeError(ErrorCode::kInvalid, "the JSON has a number that is out of range");
  }
}

std::string JsonLine(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace kvasir
