#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace kvasir {

/// A file mapped read-only into memory. Owns the mapping; move-only.
class MappedFile {
 public:
  /// Maps the whole file. An empty file gives an empty span.
  static Result<MappedFile> Open(const std::string& path);

  /// From here on, where bytes of a mapped file cannot be read any more (it was cut, or its disk
  /// does not answer), the process ends with exit code 1 and a line that names the file; without
  /// this it ends with SIGBUS. For programs: a library leaves signals alone.
  static void EndProcessWhereLost();

  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const;
  const std::string& path() const;

  /// Tells the system that [offset, offset + size) will not be read again soon, so that its pages
  /// leave the resident size. They are read anew from the file when they are.
  void DropPages(size_t offset, size_t size) const;
  /// Asks the system to read [offset, offset + size) ahead.
  void WillNeed(size_t offset, size_t size) const;

 private:
  struct Mapping;
  explicit MappedFile(std::unique_ptr<Mapping> mapping);

  std::unique_ptr<Mapping> mapping_;
};

}  // namespace kvasir
