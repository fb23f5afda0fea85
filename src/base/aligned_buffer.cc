#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "base/check.h"
#include "base/checked.h"

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

constexpr size_t kLargePage = size_t{2} << 20;

size_t PageBytes() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

/// A mapping that begins at a large page, or MAP_FAILED.
void* MapAtLargePage(size_t bytes) {
  const size_t whole = RoundUp(bytes, PageBytes());
  void* p = ::mmap(nullptr, whole + kLargePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
  if (p == MAP_FAILED) return p;
  auto* const begin = static_cast<uint8_t*>(p);
  const size_t skipped =
      RoundUp(reinterpret_cast<uintptr_t>(p), kLargePage) - reinterpret_cast<uintptr_t>(p);
  if (skipped > 0) ::munmap(begin, skipped);
  if (skipped < kLargePage) ::munmap(begin + skipped + whole, kLargePage - skipped);
  // Advice only: fewer TLB misses when streaming weights and KV.
  ::madvise(begin + skipped, whole, MADV_HUGEPAGE);
  return begin + skipped;
}

}  // namespace

size_t AlignedBuffer::FrontBytes(size_t bytes) { return RoundUp(bytes, PageBytes()); }

AlignedBuffer AlignedBuffer::TakeFront(size_t bytes) {
  CHECK_LE(bytes, size_);
  AlignedBuffer front;
  if (bytes == 0) return front;
  const size_t taken = std::min(FrontBytes(bytes), size_);
  const std::lock_guard lock(Buffers().mutex);
  auto& buffers = Buffers().buffers;
  const auto it = buffers.find(data_);
  const MemoryOwner owner = it->second.owner;
  buffers.erase(it);
  front.data_ = data_;
  front.size_ = bytes;
  buffers.emplace(front.data_, Known{bytes, owner});
  size_ -= taken;
  data_ = size_ > 0 ? data_ + taken : nullptr;
  if (size_ > 0) buffers.emplace(data_, Known{size_, owner});
  return front;
}

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t bytes, MemoryOwner owner, const char* what) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  void* p =
      bytes >= kLargePage && bytes <= SIZE_MAX - 2 * kLargePage
          ? MapAtLargePage(bytes)
          : ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    return MakeError(ErrorCode::kNoMemory, "cannot allocate {} MiB for {}: {}", bytes >> 20, what,
                     std::strerror(errno));
  }
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
  const size_t page = PageBytes();
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
