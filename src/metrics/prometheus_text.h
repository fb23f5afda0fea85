#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir {

using MetricLabels = std::vector<std::pair<std::string_view, std::string>>;

/// Counts of values in buckets, as Prometheus has them.
class Histogram {
 public:
  /// Upper bounds, ascending; values above the last are counted too.
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void Add(double value);
  uint64_t count() const { return count_; }

 private:
  friend class PrometheusText;
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  double sum_ = 0;
};

/// Writes metrics in Prometheus' text format 0.0.4. A family first, then its samples.
class PrometheusText {
 public:
  /// `common`: labels that every sample has.
  explicit PrometheusText(MetricLabels common) : common_(std::move(common)) {}

  /// `type`: "counter", "gauge" or "histogram".
  void Family(std::string_view name, std::string_view type, std::string_view help);
  /// A sample of the last family.
  void Sample(double value, const MetricLabels& labels = {});
  void Sample(const Histogram& histogram);
  /// A family with one sample.
  void Counter(std::string_view name, std::string_view help, double value);
  void Gauge(std::string_view name, std::string_view help, double value);

  std::string Take() { return std::move(text_); }

 private:
  void Line(std::string_view suffix, const MetricLabels& labels, double value);

  MetricLabels common_;
  std::string name_, text_;
};

}  // namespace kvasir
