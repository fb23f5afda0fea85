#include "app/input.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace kvasir {
namespace {

Result<std::string> ReadAll(int fd, const std::string& name, size_t limit) {
  std::string out;
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return MakeError(ErrorCode::kIo, "cannot read {}: {}", name, std::strerror(errno));
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > limit) {
      return MakeError(ErrorCode::kInvalid, "{} has more than {} bytes", name, limit);
    }
  }
}

}  // namespace

Result<std::string> ReadStdin(size_t limit) { return ReadAll(STDIN_FILENO, "stdin", limit); }

Result<std::string> ReadTextFile(const std::string& path, size_t limit) {
  if (path == "-") return ReadStdin(limit);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return MakeError(ErrorCode::kNotFound, "cannot open {}: {}", path, std::strerror(errno));
  Result<std::string> text = ReadAll(fd, path, limit);
  ::close(fd);
  return text;
}

Result<bool> Exists(const std::string& path) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);  // no error for ENOENT and ENOTDIR
  if (!error) return exists;
  return MakeError(ErrorCode::kIo, "cannot look for {}: {}; let this user search its folder", path,
                   error.message());
}

}  // namespace kvasir
