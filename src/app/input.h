#pragma once

#include <string>

#include "base/result.h"

namespace kvasir {

/// All of stdin, up to `limit` bytes.
Result<std::string> ReadStdin(size_t limit);
/// All of a file, up to `limit` bytes; "-" is stdin.
Result<std::string> ReadTextFile(const std::string& path, size_t limit);

/// More text than any context holds.
inline constexpr size_t kMaxInputBytes = size_t{256} << 20;

}  // namespace kvasir
