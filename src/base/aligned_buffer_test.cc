#include "base/aligned_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

namespace kvasir {
namespace {

constexpr size_t kPage = 4096;

TEST(AlignedBuffer, ALargeOneBeginsAtALargePageAndIsZero) {
  const Result<AlignedBuffer> b = AlignedBuffer::Allocate((3 << 20) + 5, MemoryOwner::kProbe, "x");
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b->data()) % (2 << 20), 0u);
  EXPECT_EQ(b->size(), (3u << 20) + 5);
  EXPECT_EQ(b->data()[0] | b->data()[b->size() - 1], 0);
}

TEST(AlignedBuffer, AFrontIsMemoryOfItsOwnAndIsCountedOnce) {
  const uint64_t before = ResidentOf(MemoryOwner::kProbe);
  Result<AlignedBuffer> whole = AlignedBuffer::Allocate(5 * kPage, MemoryOwner::kProbe, "x");
  ASSERT_TRUE(whole.ok());
  uint8_t* const begin = whole->data();
  AlignedBuffer front = whole->TakeFront(kPage + 1);  // and the rest of its second page
  EXPECT_EQ(front.data(), begin);
  EXPECT_EQ(front.size(), kPage + 1);
  EXPECT_EQ(whole->data(), begin + 2 * kPage);
  EXPECT_EQ(whole->size(), 3 * kPage);
  std::memset(front.data(), 1, front.size());
  std::memset(whole->data(), 2, whole->size());
  EXPECT_EQ(ResidentOf(MemoryOwner::kProbe) - before, 5 * kPage);
  front = AlignedBuffer();
  EXPECT_EQ(whole->data()[0], 2) << "the rest stays when the front is freed";
  EXPECT_EQ(ResidentOf(MemoryOwner::kProbe) - before, 3 * kPage);
  const AlignedBuffer last = whole->TakeFront(3 * kPage);
  EXPECT_EQ(whole->size(), 0u);
  EXPECT_EQ(last.data()[3 * kPage - 1], 2);
}

}  // namespace
}  // namespace kvasir
