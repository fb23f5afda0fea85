#include "metrics/recent_values.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace kvasir {

void RecentValues::Forget(int64_t now_ns) {
  while (!values_.empty() && (values_.size() > kMost || now_ns - values_.front().first > kAgeNs)) {
    values_.pop_front();
  }
}

void RecentValues::Add(double value, int64_t now_ns) {
  values_.emplace_back(now_ns, value);
  Forget(now_ns);
}

Percentiles RecentValues::At(int64_t now_ns) {
  Forget(now_ns);
  if (values_.empty()) return {};
  std::vector<double> sorted;
  sorted.reserve(values_.size());
  for (const auto& [when, value] : values_) sorted.push_back(value);
  std::sort(sorted.begin(), sorted.end());
  // The least value that so large a part of all is not above (nearest rank).
  const auto at = [&](double part) {
    const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(sorted.size())));
    return sorted[std::max<size_t>(rank, 1) - 1];
  };
  return {at(0.5), at(0.9), at(0.99)};
}

}  // namespace kvasir
