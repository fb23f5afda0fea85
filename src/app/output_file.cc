#include "app/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace kvasir {

Result<OutputFile> OutputFile::Open(const std::string& path) {
  OutputFile out;
  if (path.empty()) return out;
  out.path_ = path;
  out.made_ = access(path.c_str(), F_OK) != 0;
  out.fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (out.fd_ < 0)
    return MakeError(ErrorCode::kIo, "cannot write {}: {}", path, std::strerror(errno));
  return out;
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  close(fd_);
  if (made_) unlink(path_.c_str());
}

Status OutputFile::Write(std::string_view text) {
  if (fd_ < 0) return {};
  // What is no file, a pipe say, has no end to cut off.
  bool written = ftruncate(fd_, 0) == 0 || errno == EINVAL;
  while (written && !text.empty()) {
    const ssize_t n = write(fd_, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    written = n > 0;
    if (written) text.remove_prefix(static_cast<size_t>(n));
  }
  const int error = errno;
  const bool closed = close(std::exchange(fd_, -1)) == 0;
  if (written && closed) return {};
  return MakeError(ErrorCode::kIo, "cannot write {}: {}", path_,
                   std::strerror(written ? errno : error));
}

bool IsOneFile(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return !a.empty() && !b.empty() && (a == b || std::filesystem::equivalent(a, b, ignored));
}

}  // namespace kvasir
