#include "base/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/fake_system.h"

namespace kvasir {
namespace {

TEST(Cpu, ScalarIsAlwaysThereAndFirst) {
  const std::vector<Isa> isas = AvailableIsas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kScalar);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
}

TEST(Cpu, TheEnvironmentChoosesAmongWhatIsThere) {
  ::unsetenv("KVASIR_ISA");
  EXPECT_EQ(*ChooseIsa(), AvailableIsas().back());
  ::setenv("KVASIR_ISA", "scalar", 1);
  EXPECT_EQ(*ChooseIsa(), Isa::kScalar);
  ::setenv("KVASIR_ISA", "abacus", 1);
  const auto unknown = ChooseIsa();
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message.find("abacus"), std::string::npos);
  ::unsetenv("KVASIR_ISA");
}

TEST(Cpu, ThereIsAtLeastOneCoreAndNoMoreThanProcessors) {
  const CpuInfo info = ReadCpuInfo();
  EXPECT_GE(info.physical, 1);
  EXPECT_LE(info.physical, info.logical);
  EXPECT_GE(PhysicalCpus().size(), 1u);
  EXPECT_LE(PhysicalCpus().size(), AllowedCores().size());
  EXPECT_LE(PhysicalCpus().size(), static_cast<size_t>(info.logical));
}

TEST(Cpu, AMachineOfThousandsOfProcessorsIsReadInFull) {
  // Linux refuses a set with less room than it has processors.
  const auto machine_of = [](int processors) {
    return [processors](size_t bytes, cpu_set_t* set) {
      if (bytes * 8 < static_cast<size_t>(processors)) {
        errno = EINVAL;
        return -1;
      }
      for (const int cpu : {0, 3, processors - 1}) CPU_SET_S(cpu, bytes, set);
      return 0;
    };
  };
  for (const int processors : {64, 1024, 1025, 8192})
    EXPECT_EQ(AllowedCpus(machine_of(processors)), (std::vector<int>{0, 3, processors - 1}));
  const auto refuse = [](int error) {
    return [error](size_t, cpu_set_t*) {
      errno = error;
      return -1;
    };
  };
  for (const int error : {EPERM, EINVAL})
    EXPECT_EQ(AllowedCpus(refuse(error)), std::vector<int>{0});
}

using CpusOfAFakeSystem = FakeSystem;

TEST_F(CpusOfAFakeSystem, WithoutAQuotaThereIsNoLimit) {
  EXPECT_EQ(CgroupCpus(root()), std::nullopt);
  Write("/proc/self/cgroup", "3:cpu,cpuacct:/box\n0::/a\n");
  EXPECT_EQ(CgroupCpus(root()), std::nullopt);
  Write("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpus(root()), std::nullopt);
}

TEST_F(CpusOfAFakeSystem, TheTightestVersion2QuotaOfAllLevelsCountsRoundedUp) {
  Write("/proc/self/cgroup", "0::/system.slice/kvasir.service/run\n");
  Write("/sys/fs/cgroup/system.slice/cpu.max", "800000 100000\n");
  EXPECT_EQ(CgroupCpus(root()), 8);
  Write("/sys/fs/cgroup/system.slice/kvasir.service/cpu.max", "150000 100000\n");
  EXPECT_EQ(CgroupCpus(root()), 2);
  Write("/sys/fs/cgroup/system.slice/kvasir.service/run/cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupCpus(root()), 2);
  Write("/sys/fs/cgroup/cpu.max", "1000 100000\n");
  EXPECT_EQ(CgroupCpus(root()), 1) << "the root's, as a container sees its own group";
}

TEST_F(CpusOfAFakeSystem, Version1QuotasCountAndOfBothVersionsTheTighter) {
  Write("/proc/self/cgroup", "7:cpuset:/\n3:cpu,cpuacct:/a/b\n0::/\n");
  Write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000\n");
  Write("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpus(root()), 3);
  Write("/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "500000\n");
  Write("/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpus(root()), 3);
  Write("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(CgroupCpus(root()), 2);
}

}  // namespace
}  // namespace kvasir
