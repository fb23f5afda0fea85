#include "sched/cost_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace kvasir {
namespace {

/// A machine that costs `fixed` a step, and so much for each token and each key.
struct Machine {
  double fixed = 0.01, token = 1e-4, key = 1e-7, read = 5e-8;
  double Seconds(const CostModel::Work& w) const {
    return fixed + token * (w.decoding + w.prompt) + key * (w.decoding_keys + w.prompt_keys) +
           read * w.prompt_context;
  }
};

TEST(CostModel, LearnsWhatStepsCostAndFollowsAChange) {
  CostModel model;
  std::mt19937 random(1);
  const auto teach = [&](const Machine& machine, int samples) {
    std::uniform_real_distribution<double> noise(0.97, 1.03);
    for (int i = 0; i < samples; ++i) {
      CostModel::Work work{.decoding = static_cast<double>(1 + random() % 100),
                           .decoding_keys = static_cast<double>(random() % 200'000)};
      if (i % 2 == 0) {
        work.prompt = static_cast<double>(2 + random() % 500);
        work.prompt_keys = static_cast<double>(random() % 400'000);
      }
      model.Learn(work, machine.Seconds(work) * noise(random));
    }
  };
  const CostModel::Work work{50, 50'000, 250, 50'000};
  teach({}, 1200);
  EXPECT_NEAR(model.Predict(work), 0.05, 0.003);
  EXPECT_NEAR(model.Prompts(work), 0.03, 0.003);
  teach({.fixed = 0.02, .token = 2e-4}, 4000);
  EXPECT_NEAR(model.Predict(work), 0.09, 0.006);
  EXPECT_NEAR(model.TokensWithin(0.1, {}, 0), (0.1 - 0.02) / 2e-4, 40);
  EXPECT_EQ(model.TokensWithin(0.001, {}, 0), 0);
}

TEST(CostModel, ALongPromptUnderATargetDoesNotMakeItForgetWhatDecodingCosts) {
  CostModel model;
  const Machine machine{.key = 1e-8};
  std::mt19937 random(2);
  std::uniform_real_distribution<double> noise(0.97, 1.03);
  CostModel::Work decoding{.decoding = 8};
  for (int i = 0; i < 50; ++i) {
    decoding.decoding_keys = 8.0 * i;
    model.Learn(decoding, machine.Seconds(decoding) * noise(random));
  }
  const double target = 1.5 * machine.Seconds(decoding);
  double done = 0, late = 0;
  int steps = 0;
  for (; done < 30'000; ++steps) {
    CostModel::Work work = decoding;
    work.prompt = std::clamp(model.TokensWithin(target, decoding, done), 1, 512);
    work.prompt_keys = work.prompt * (done + work.prompt / 2);
    work.prompt_context = done;
    done += work.prompt;
    const double seconds = machine.Seconds(work) * noise(random);
    if (steps > 10 && seconds > 1.1 * target) ++late;
    model.Learn(work, seconds);
  }
  EXPECT_NEAR(model.Predict(decoding), machine.Seconds(decoding), 0.05 * target);
  EXPECT_LT(late, 0.01 * steps);
  // The time that the target leaves is used: what is to be done, over what each step may do.
  const double work =
      machine.token * 30'000 + machine.key * 30'000 * 15'000 + machine.read * steps * 15'000;
  EXPECT_LT(steps, 1.2 * work / (target - machine.Seconds(decoding)));
}

TEST(CostModel, IsNotLedAstrayByWhatIsNoTime) {
  CostModel model;
  model.Set(0.01, 1e-4, 0);
  const double before = model.Predict({.prompt = 100});
  model.Learn({.prompt = 100}, -1);
  model.Learn({.prompt = 100}, NAN);
  EXPECT_EQ(model.Predict({.prompt = 100}), before);
}

}  // namespace
}  // namespace kvasir
