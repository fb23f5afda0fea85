#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace kvasir {

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t bytes, const char* what) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return MakeError(ErrorCode::kNoMemory, "cannot allocate {} MiB for {}: {}", bytes >> 20, what,
                     std::strerror(errno));
  }
  // Advice only: fewer TLB misses when streaming weights and KV.
  if (bytes >= (size_t{8} << 20)) ::madvise(p, bytes, MADV_HUGEPAGE);
  buffer.data_ = static_cast<uint8_t*>(p);
  buffer.size_ = bytes;
  return buffer;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace kvasir
