#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace kvasir {

/// Parses JSON that somebody sent. An Error when it is none, or nested deeper than anything that is
/// meant (code that walks a value, its printer among others, does so by recursion), or has so many
/// values that they would take many times the memory of their text, or keys that would take long:
/// an object keeps their order, and looks through all of them for each; or when an object has a key
/// twice.
Result<nlohmann::ordered_json> ParseJson(std::string_view text);
inline constexpr int kMostJsonDepth = 64;
inline constexpr size_t kMostJsonValues = 1 << 20;
inline constexpr size_t kMostJsonKeys = 4096;           ///< of one object
inline constexpr size_t kMostJsonKeyBytes = 512 << 20;  ///< compared for all objects, at most

/// On one line. Bytes that are no UTF-8 become U+FFFD.
std::string JsonLine(const nlohmann::ordered_json& json);

}  // namespace kvasir
