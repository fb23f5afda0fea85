#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

namespace kvasir {

/// The 50th, 90th and 99th percentile.
struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;
};

/// Values of the last five minutes, at most some thousands of them: for percentiles that follow
/// what happens now.
class RecentValues {
 public:
  static constexpr size_t kMost = 4096;
  static constexpr int64_t kAgeNs = 300'000'000'000;

  void Add(double value, int64_t now_ns);
  /// Zeros when there are none.
  Percentiles At(int64_t now_ns);

 private:
  void Forget(int64_t now_ns);
  std::deque<std::pair<int64_t, double>> values_;  // when, oldest first
};

}  // namespace kvasir
