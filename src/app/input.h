#pragma once

#include <string>

#include "base/result.h"

namespace kvasir {

/// All of stdin, up to `limit` bytes.
Result<std::string> ReadStdin(size_t limit);
/// All of a file, up to `limit` bytes; "-" is stdin.
Result<std::string> ReadTextFile(const std::string& path, size_t limit);
/// Whether there is something at `path`. An Error where that cannot be known, because a folder may
/// not be searched, say: whoever takes that for "no" runs without what the file asks for.
Result<bool> Exists(const std::string& path);

/// More text than any context holds.
inline constexpr size_t kMaxInputBytes = size_t{256} << 20;

}  // namespace kvasir
