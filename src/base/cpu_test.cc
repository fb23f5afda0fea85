#include "base/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

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
  EXPECT_LE(PhysicalCpus().size(), static_cast<size_t>(info.logical));
}

}  // namespace
}  // namespace kvasir
