#include "sample/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace kvasir {
namespace {

// Whole blocks, parts of one, and less than a block.
constexpr size_t kSizes[] = {1, 15, 63, 64, 65, 200, 1000, 4096};

/// About normal.
std::vector<float> MakeLogits(size_t count, uint32_t seed) {
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i) {
    float sum = 0;
    for (const uint32_t x : Philox4x32(seed, {static_cast<uint32_t>(i)}))
      sum += static_cast<float>(x >> 8) * 0x1p-24f - 0.5f;
    logits[i] = std::round(sum * 300) / 64;  // so that some are equal
  }
  return logits;
}

TEST(Logits, TheLargestIsFoundAndTheFirstOfThoseThatAreEqual) {
  for (const size_t n : kSizes) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const std::vector<float> logits = MakeLogits(n, seed);
      std::vector<float> largest;
      ASSERT_TRUE(FindLargest(logits, &largest));
      ASSERT_EQ(largest.size(), (n + kLogitBlock - 1) / kLogitBlock);
      EXPECT_EQ(FirstOfLargest(logits, largest),
                std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
  }
}

TEST(Logits, WhatIsNoNumberIsFoundWhereverItIs) {
  for (const size_t n : kSizes) {
    for (size_t at = 0; at < n; at += std::max<size_t>(1, n / 70)) {
      for (const float bad : {NAN, -NAN, INFINITY}) {
        std::vector<float> logits = MakeLogits(n, 1), largest;
        logits[at] = bad;
        EXPECT_FALSE(FindLargest(logits, &largest)) << bad << " at " << at << " of " << n;
        logits[at] = kNoLogit;
        EXPECT_TRUE(FindLargest(logits, &largest));
      }
    }
  }
}

TEST(Logits, TheKLargestAreAmongThoseCollected) {
  for (const size_t n : kSizes) {
    const std::vector<float> logits = MakeLogits(n, 3);
    std::vector<float> largest, sorted = logits;
    ASSERT_TRUE(FindLargest(logits, &largest));
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (const size_t k : {size_t{1}, size_t{2}, size_t{10}, n / 2, n}) {
      if (k == 0 || k > n) continue;
      std::vector<int32_t> tokens;
      CollectLargest(logits, largest, k, &tokens);
      EXPECT_TRUE(std::is_sorted(tokens.begin(), tokens.end()));
      const auto reach = [&](float x) { return x >= sorted[k - 1]; };
      EXPECT_EQ(
          std::count_if(tokens.begin(), tokens.end(), [&](int32_t t) { return reach(logits[t]); }),
          std::count_if(logits.begin(), logits.end(), reach))
          << k << " of " << n;
    }
  }
}

TEST(Logits, WeightsAreExponentials) {
  for (const float temperature : {0.01f, 0.7f, 1.0f, 5.0f}) {
    for (const size_t n : kSizes) {
      std::vector<float> logits = MakeLogits(n, 4);
      logits[n / 2] = kNoLogit;
      logits[0] = 20;
      LogitWeights w;
      Weigh(logits, 20, temperature, &w);
      double sum = 0;
      for (size_t i = 0; i < w.weights.size(); ++i) {
        const double x = i < n ? (static_cast<double>(logits[i]) - 20) / temperature : kNoLogit;
        sum += w.weights[i];
        if (x < -87.2) {
          EXPECT_LE(w.weights[i], 2e-38);
          continue;
        }
        EXPECT_EQ(w.weights[i], WeightOf(logits[i], 20, temperature));
        // The quotient is rounded, too.
        EXPECT_NEAR(w.weights[i] / std::exp(x), 1, 1e-6 - x * 0x1p-23) << x;
      }
      EXPECT_EQ(w.weights[0], 1);
      EXPECT_NEAR(w.sum / sum, 1, 1e-6);
    }
  }
  EXPECT_EQ(WeightOf(3, 3, 1e-45f), 1);
  EXPECT_EQ(WeightOf(2, 3, 1e-45f), 0);
}

TEST(Logits, ADrawIsTheTokenThatReachesIt) {
  for (const size_t n : kSizes) {
    std::vector<float> logits = MakeLogits(n, 5);
    logits[n - 1] = kNoLogit;
    if (n > 1) logits[0] = 20;
    LogitWeights w;
    Weigh(logits, 20, 8.0f, &w);
    double reached = 0;
    for (size_t i = 0; i < n; ++i) {
      const double middle = reached + w.weights[i] / 2.0;
      reached += w.weights[i];
      if (w.weights[i] < 1e-4 * w.sum) continue;  // sums are rounded otherwise
      EXPECT_EQ(DrawFrom(w, middle), i) << n;
    }
    if (n > 1) {
      EXPECT_LT(DrawFrom(w, w.sum), n - 1);
      EXPECT_LT(DrawFrom(w, 2 * w.sum), n - 1);
    }
  }
}

TEST(Logits, TheHeaviestAreThoseThatReachALimit) {
  for (const size_t n : kSizes) {
    std::vector<float> logits = MakeLogits(n, 6);
    logits[n / 2] = kNoLogit;
    LogitWeights w;
    Weigh(logits, 10, 3.0f, &w);
    for (const double least : {0.0, 1e-3, 0.02, 0.5}) {
      std::vector<int32_t> tokens, expected;
      for (size_t i = 0; i < n; ++i) {
        if (w.weights[i] > 0 && w.weights[i] >= least) expected.push_back(static_cast<int32_t>(i));
      }
      CollectHeaviest(w, least, &tokens);
      EXPECT_EQ(tokens, expected) << least << " of " << n;
    }
  }
}

}  // namespace
}  // namespace kvasir
