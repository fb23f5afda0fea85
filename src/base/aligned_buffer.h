#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/result.h"

namespace kvasir {

/// Whose bytes they are.
enum class MemoryOwner { kWeights, kScratch, kKv, kProbe };

/// Zeroed memory straight from the system (mmap), page-aligned, counted only when touched; from 2
/// MiB on aligned to large pages and advised to use them. Owns it; move-only. Asking for more than
/// the machine has is an Error, not an abort. All of the process are known by owner: see
/// ResidentOf.
class AlignedBuffer {
 public:
  static Result<AlignedBuffer> Allocate(size_t bytes, MemoryOwner owner, const char* what);

  /// Takes the first `bytes` off this buffer, up to the end of their page, as a buffer of their
  /// own; at most size().
  AlignedBuffer TakeFront(size_t bytes);
  /// What TakeFront takes off for so many bytes.
  static size_t FrontBytes(size_t bytes);

  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer();

  uint8_t* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// Bytes of all buffers of an owner that were touched and are in memory now, in whole pages.
uint64_t ResidentOf(MemoryOwner owner);

}  // namespace kvasir
