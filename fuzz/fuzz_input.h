#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/check.h"

namespace kvasir {

/// Takes a fuzzer's bytes apart. At the end everything is 0 or empty.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  uint8_t Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  /// 0 .. n - 1
  uint32_t Below(uint32_t n) {
    const uint32_t high = Byte();
    return n <= 256 ? high % n : (high << 8 | Byte()) % n;
  }
  std::string_view Take(size_t n) {
    n = n < size_ ? n : size_;
    const std::string_view out(reinterpret_cast<const char*>(data_), n);
    data_ += n;
    size_ -= n;
    return out;
  }
  std::string_view Rest() { return Take(size_); }

 private:
  const uint8_t* data_;
  size_t size_;
};

/// A file with these bytes, as long as it lives.
class FuzzFile {
 public:
  explicit FuzzFile(std::string_view bytes) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    CHECK_GE(fd_, 0);
    CHECK_EQ(write(fd_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    path_ = "/proc/self/fd/" + std::to_string(fd_);
  }
  ~FuzzFile() { close(fd_); }
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

/// An error says something, and not all of the input.
inline void CheckMessage(const std::string& message) {
  CHECK(!message.empty());
  CHECK_LT(message.size(), size_t{1} << 20);
}

}  // namespace kvasir
