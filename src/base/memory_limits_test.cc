#include "base/memory_limits.h"

#include <gtest/gtest.h>

#include "base/fake_system.h"

namespace kvasir {
namespace {

class MemoryOfAFakeSystem : public FakeSystem {
 protected:
  void SetUp() override {
    Write("/proc/meminfo",
          "MemTotal:       16000000 kB\nMemFree: 100 kB\nMemAvailable:    8000000 kB\n");
  }
  MemoryLimits Read() const { return ReadMemoryLimits(root()); }
};

constexpr uint64_t kKiB = 1024, kMiB = 1024 * kKiB;

TEST_F(MemoryOfAFakeSystem, WithoutGroupsTheMachineCounts) {
  const MemoryLimits limits = Read();
  EXPECT_EQ(limits.total_bytes, 16000000 * kKiB);
  EXPECT_EQ(limits.available_bytes, 8000000 * kKiB);
  EXPECT_NE(limits.limited_by.find("machine"), std::string::npos);
}

TEST_F(MemoryOfAFakeSystem, TheTightestVersion2GroupOfAllLevelsCountsAndCacheIsNotUsed) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/memory.max", std::to_string(1000 * kMiB) + "\n");
  Write("/sys/fs/cgroup/a/memory.current", std::to_string(600 * kMiB) + "\n");
  Write("/sys/fs/cgroup/a/memory.stat",
        "anon 1\ninactive_file " + std::to_string(100 * kMiB) + "\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/b/memory.current", "5\n");
  const MemoryLimits limits = Read();
  EXPECT_EQ(limits.available_bytes, 500 * kMiB);
  EXPECT_NE(limits.limited_by.find("/a"), std::string::npos) << limits.limited_by;
}

TEST_F(MemoryOfAFakeSystem, Version1GroupsCount) {
  Write("/proc/self/cgroup", "5:cpu:/x\n4:memory:/box\n");
  Write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", std::to_string(300 * kMiB) + "\n");
  Write("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", std::to_string(100 * kMiB) + "\n");
  EXPECT_EQ(Read().available_bytes, 200 * kMiB);
}

TEST_F(MemoryOfAFakeSystem, AGroupThatIsOverItsLimitLeavesNothing) {
  Write("/proc/self/cgroup", "0::/a\n");
  Write("/sys/fs/cgroup/a/memory.max", "1000\n");
  Write("/sys/fs/cgroup/a/memory.current", "5000\n");
  EXPECT_EQ(Read().available_bytes, 0u);
}

TEST(ResidentBytes, GrowsWithWhatIsTouched) {
  const uint64_t before = ResidentBytes();
  std::vector<char> touched(64 << 20, 1);
  EXPECT_GE(ResidentBytes() + (1 << 20), before + touched.size());
}

}  // namespace
}  // namespace kvasir
