#include "openai/json_text.h"

namespace kvasir {

Result<nlohmann::ordered_json> ParseJson(std::string_view text) {
  int depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    // Each value but the first follows one of these.
    values += c == ',' || c == ':' || c == '[' || c == '{';
    if (values > kMostJsonValues)
      return MakeError(ErrorCode::kInvalid, "the JSON has more than {} values", kMostJsonValues);
    if (depth > kMostJsonDepth)
      return MakeError(ErrorCode::kInvalid, "the JSON is nested deeper than {}", kMostJsonDepth);
  }
  try {
    return nlohmann::ordered_json::parse(text);
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
