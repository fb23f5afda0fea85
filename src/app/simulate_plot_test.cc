#include "app/simulate_plot.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(SimulationPlot, NamesTheTenantsThatHoldMostAndCountsTheOthers) {
  SimulationResult r{.pool_blocks = 1000, .seconds = 2};
  for (const double at : {1.0, 2.0}) {
    SimulationSample s{.time_s = at, .used_blocks = 550, .idle_blocks = 100};
    for (uint64_t tenant = 0; tenant < 9; ++tenant)
      s.tenant_blocks[tenant] = static_cast<int64_t>(10 * (tenant + 1));
    r.samples.push_back(s);
  }
  const std::string svg = SimulationPlot(r);
  for (const char* name : {"tenant 8", "tenant 4", "4 others", "cached"})
    EXPECT_NE(svg.find(std::string(">") + name + "<"), std::string::npos) << name;
  EXPECT_EQ(svg.find("tenant 3"), std::string::npos);
  EXPECT_EQ(svg.find("the pool"), std::string::npos);  // far above what was used
  r.pool_blocks = 600;
  EXPECT_NE(SimulationPlot(r).find(">the pool, 600 blocks<"), std::string::npos);
}

TEST(SimulationPlot, DrawsAnEmptyResultWithoutNumbersThatAreNone) {
  for (const char* none : {"nan", "inf"})
    EXPECT_EQ(SimulationPlot({}).find(none), std::string::npos) << none;
}

}  // namespace
}  // namespace kvasir
