#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace kvasir {

/// A file mapped read-only into memory. Owns the mapping; move-only.
class MappedFile {
 public:
  /// Maps the whole file. An empty file gives an empty span.
  static Result<MappedFile> Open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  /// Tells the system that [offset, offset + size) will not be read again soon, so that its pages
  /// leave the resident size. They are read anew from the file when they are.
  void DropPages(size_t offset, size_t size) const;
  /// Asks the system to read [offset, offset + size) ahead.
  void WillNeed(size_t offset, size_t size) const;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

}  // namespace kvasir
