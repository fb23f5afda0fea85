#include "sched/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include <random>

namespace kvasir {
namespace {

TEST(CostModel, LearnsWhatStepsCostAndFollowsAChange) {
  CostModel model;
  std::mt19937 random(1);
  const auto teach = [&](double fixed, double token, double key, int samples) {
    std::uniform_real_distribution<double> noise(0.97, 1.03);
    for (int i = 0; i < samples; ++i) {
      const CostModel::Work work{static_cast<double>(1 + random() % 600),
                                 static_cast<double>(random() % 400'000)};
      model.Learn(work, (fixed + token * work.tokens + key * work.keys) * noise(random));
    }
  };
  const CostModel::Work work{300, 100'000};
  teach(0.01, 1e-4, 1e-7, 600);
  EXPECT_NEAR(model.Predict(work), 0.05, 0.003);
  teach(0.02, 2e-4, 1e-7, 2000);
  EXPECT_NEAR(model.Predict(work), 0.09, 0.006);
  EXPECT_NEAR(model.TokensWithin(0.1, {}, 0), (0.1 - 0.02) / 2e-4, 40);
  EXPECT_EQ(model.TokensWithin(0.001, {}, 0), 0);
}

TEST(CostModel, IsNotLedAstrayByWhatIsNoTime) {
  CostModel model;
  model.Set(0.01, 1e-4, 0);
  const double before = model.Predict({100, 0});
  model.Learn({100, 0}, -1);
  model.Learn({100, 0}, NAN);
  EXPECT_EQ(model.Predict({100, 0}), before);
}

}  // namespace
}  // namespace kvasir
