#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <new>
#include <thread>
#include <vector>

#include "base/cpu.h"

namespace kvasir {
namespace {

/// Of the calling thread.
std::vector<int> OwnMask() {
  return AllowedCpus([](size_t bytes, cpu_set_t* set) { return sched_getaffinity(0, bytes, set); });
}

TEST(ThreadPool, RunsEveryWorkerOnceAndWaitsForAll) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    std::vector<int> hits(threads, 0);
    for (int round = 1; round <= 2000; ++round) {
      pool.Run([&](int worker) { ++hits[worker]; });
      for (const int h : hits) ASSERT_EQ(h, round);
    }
  }
}

TEST(ThreadPool, WorkersSeeWhatTheCallerWroteBefore) {
  ThreadPool pool(4, false);
  int value = 0;
  std::atomic<int> wrong{0};
  for (int round = 1; round <= 1000; ++round) {
    value = round;
    pool.Run([&](int) { wrong += value != round; });
  }
  EXPECT_EQ(wrong.load(), 0);
}

TEST(ThreadPool, WhatAWorkerThrowsIsThrownWhenAllAreDone) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads, false);
    for (int thrower = 0; thrower < threads; ++thrower) {
      std::atomic<int> done{0};
      const auto run = [&] {
        pool.Run([&](int worker) {
          if (worker == thrower) throw std::bad_alloc();
          ++done;
        });
      };
      EXPECT_THROW(run(), std::bad_alloc);
      EXPECT_EQ(done.load(), threads - 1);
      pool.Run([&](int) { ++done; });
      EXPECT_EQ(done.load(), 2 * threads - 1);
    }
  }
}

TEST(ThreadPool, TheCallerStaysOnACoreOfItsOwnAndThenMayBeWhereItMightBefore) {
  const std::vector<int> before = OwnMask(), cores = AllowedCores();
  const auto all = static_cast<int>(cores.size());
  for (const bool pin : {true, false}) {
    for (const int threads : {all, all + 1}) {
      ThreadPool pool(threads, pin);
      const bool stays = pin && threads == all && all > 1;
      std::vector<std::vector<int>> where(static_cast<size_t>(threads));
      {
        const CallerStays step(pool);
        pool.Run([&](int worker) { where[static_cast<size_t>(worker)] = OwnMask(); });
      }
      for (int worker = 0; worker < threads; ++worker) {
        const auto w = static_cast<size_t>(worker);
        EXPECT_EQ(where[w], stays ? std::vector<int>{cores[w]} : before) << threads;
      }
      EXPECT_EQ(OwnMask(), before);
    }
  }
}

TEST(ThreadPool, ACallersOwnMaskCounts) {
  const std::vector<int> cores = AllowedCores();
  if (cores.size() < 2) GTEST_SKIP() << "needs two cores";
  const auto set = [](int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    return sched_setaffinity(0, sizeof(only), &only) == 0;
  };
  ThreadPool pool(static_cast<int>(cores.size()));
  std::thread([&] {  // threads that begin later have this one's mask
    ASSERT_TRUE(set(cores[1]));
    {
      const CallerStays step(pool);
      EXPECT_EQ(OwnMask(), std::vector<int>{cores[1]}) << "where it may not be";
    }
    EXPECT_EQ(OwnMask(), std::vector<int>{cores[1]});
  })
      .join();
  std::thread([&] {
    {
      const CallerStays step(pool);
      ASSERT_TRUE(set(cores[1]));  // as taskset would amid a step
    }
    EXPECT_EQ(OwnMask(), std::vector<int>{cores[1]});
  }).join();
}

TEST(ThreadPool, EndsWithoutEverHavingRun) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(3);
}

TEST(Split, CoversAllItemsOnceInOrder) {
  for (const size_t items : {0, 1, 2, 7, 100}) {
    for (const int workers : {1, 2, 3, 8}) {
      size_t next = 0;
      for (int w = 0; w < workers; ++w) {
        const Range r = Split(items, w, workers);
        EXPECT_EQ(r.begin, next);
        next = r.end;
      }
      EXPECT_EQ(next, items);
    }
  }
}

}  // namespace
}  // namespace kvasir
