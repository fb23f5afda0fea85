#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// One request of a trace: when, how long, and what its prompt has in common with others'.
struct TraceRequest {
  double arrival_s = 0;
  int32_t input_tokens = 0;
  int32_t output_tokens = 0;
  /// Equal ids mean equal content of a piece of `kTracePiece` tokens after equal pieces; the last
  /// may be partial. Empty: the prompt is like no other.
  std::vector<int64_t> pieces;
  uint64_t tenant = 0;
};
inline constexpr int32_t kTracePiece = 512;

/// Reads a trace: JSON lines in Mooncake's format (timestamp in ms, input_length, output_length,
/// hash_ids), or CSV in Azure's (TIMESTAMP, ContextTokens, GeneratedTokens). At most `limit`
/// requests; 0: all. Errors name the line and the field.
Result<std::vector<TraceRequest>> ReadTrace(const std::string& path, size_t limit);

/// The tokens of a request's prompt: equal pieces give equal tokens, nothing else does. Without
/// pieces it is the text of request `index` alone.
std::vector<int32_t> PromptOf(const TraceRequest& request, size_t index);

}  // namespace kvasir
