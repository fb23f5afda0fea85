#include "server/text_workers.h"

#include <gtest/gtest.h>

#include <future>
#include <utility>
#include <vector>

namespace kvasir {
namespace {

/// Workers that are both held by a job until they are let go.
class Workers : public ::testing::Test {
 protected:
  void SetUp() override {
    // Only one of them takes long jobs: when it has one, the other takes the next.
    Hold(TextWorkers::kShort + 1, &long_);
    Hold(1, &short_);
  }
  void TearDown() override {
    LetGo(&short_);
    LetGo(&long_);
  }
  struct Gate {
    std::promise<void> begun, open;
    bool opened = false;
  };
  void Hold(size_t bytes, Gate* gate) {
    ASSERT_TRUE(workers_.Run(bytes, [gate] {
      gate->begun.set_value();
      gate->open.get_future().wait();
    }));
    gate->begun.get_future().wait();
  }
  static void LetGo(Gate* gate) {
    if (!std::exchange(gate->opened, true)) gate->open.set_value();
  }
  /// A job that notes who it was for.
  std::function<void()> Note(int tenant) {
    return [this, tenant] { order_.push_back(tenant); };
  }
  /// What has run, in order, when the one thread that is let go comes to the last job of somebody
  /// who has many.
  std::vector<int> Order() {
    std::promise<std::vector<int>> order;
    for (int i = 0; i < 100; ++i)
      EXPECT_TRUE(workers_.Run(
          1, [] {}, 99));
    EXPECT_TRUE(workers_.Run(
        1, [&] { order.set_value(order_); }, 99));
    LetGo(&short_);
    return order.get_future().get();
  }
  Gate long_, short_;
  std::vector<int> order_;
  TextWorkers workers_;  // ends before what its jobs look at
};

TEST_F(Workers, TenantsTakeTurnsHoweverManyJobsOneHas) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(workers_.Run(1, Note(1), 1));
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(workers_.Run(1, Note(2), 2));
  ASSERT_TRUE(workers_.Run(1, Note(3), 3));
  EXPECT_EQ(Order(), (std::vector<int>{1, 2, 3, 1, 2, 1, 1, 1}));
}

TEST_F(Workers, ATenantThatFillsItsShareLeavesRoomForOthers) {
  size_t jobs = 0;
  while (workers_.Run(
      1, [] {}, 1))
    ++jobs;
  EXPECT_EQ(jobs, TextWorkers::kMostJobs / 2);
  EXPECT_TRUE(workers_.Run(
      1, [] {}, 2));
  // Of bytes too.
  EXPECT_TRUE(workers_.Run(
      TextWorkers::kMostBytes / 3, [] {}, 3));
  EXPECT_FALSE(workers_.Run(
      TextWorkers::kMostBytes / 3, [] {}, 3));
  EXPECT_TRUE(workers_.Run(
      TextWorkers::kMostBytes / 3, [] {}, 4));
}

TEST_F(Workers, ResultsAreTakenHoweverMuchWaits) {
  while (workers_.Run(1, Note(1), 1)) {
  }
  workers_.RunResult(1, Note(2), 2);
  EXPECT_FALSE(workers_.Run(1, Note(1), 1));
  EXPECT_TRUE(workers_.Run(1, Note(3), 3)) << "a result counts for nothing";
  const std::vector<int> order = Order();
  ASSERT_GE(order.size(), 3u);
  EXPECT_EQ((std::vector<int>(order.begin(), order.begin() + 3)), (std::vector<int>{1, 2, 3}));
}

}  // namespace
}  // namespace kvasir
