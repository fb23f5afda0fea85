#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace kvasir {
namespace {

struct Known {
  size_t bytes;
  MemoryOwner owner;
};

/// All buffers, by address: made and freed a few times in a process's life.
struct Registry {
  std::mutex mutex;
  std::map<uint8_t*, Known> buffers;
};

Registry& Buffers() {
  static Registry registry;
  return registry;
}

}  // namespace

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t bytes, MemoryOwner owner, const char* what) {
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
  const std::lock_guard lock(Buffers().mutex);
  Buffers().buffers.emplace(buffer.data_, Known{bytes, owner});
  return buffer;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  {
    const std::lock_guard lock(Buffers().mutex);
    Buffers().buffers.erase(data_);
  }
  ::munmap(data_, size_);
}

uint64_t ResidentOf(MemoryOwner owner) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  constexpr size_t kPagesAtOnce = 1 << 16;
  std::vector<unsigned char> present(kPagesAtOnce);
  uint64_t pages = 0;
  const std::lock_guard lock(Buffers().mutex);
  for (const auto& [data, known] : Buffers().buffers) {
    if (known.owner != owner) continue;
    for (size_t at = 0; at < known.bytes; at += kPagesAtOnce * page) {
      const size_t bytes = std::min(known.bytes - at, kPagesAtOnce * page);
      if (::mincore(data + at, bytes, present.data()) != 0) continue;
      const auto end = present.begin() + static_cast<ptrdiff_t>((bytes + page - 1) / page);
      pages += std::count_if(present.begin(), end, [](unsigned char p) { return (p & 1) != 0; });
    }
  }
  return pages * page;
}

}  // namespace kvasir
