#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace kvasir {

/// A file for a result, opened before the work: that it cannot be written is said before minutes of
/// measuring, not after them. What it had is kept until Write, and one that was made for nothing is
/// removed again.
class OutputFile {
 public:
  /// An empty path: no file, and Write does nothing.
  static Result<OutputFile> Open(const std::string& path);
  OutputFile(OutputFile&& other) noexcept
      : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), made_(other.made_) {}
  ~OutputFile();

  /// All of the file; once. Errors name it.
  Status Write(std::string_view text);

 private:
  OutputFile() = default;

  std::string path_;
  int fd_ = -1;
  bool made_ = false;
};

/// Whether two names, not empty, are of one file.
bool IsOneFile(const std::string& a, const std::string& b);

}  // namespace kvasir
