#include "metrics/prometheus_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kvasir {
namespace {

/// Backslash, quote and line feed are escaped in label values.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

}  // namespace

void Histogram::Add(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  ++counts_[static_cast<size_t>(bucket)];
  ++count_;
  sum_ += value;
}

void PrometheusText::Family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void PrometheusText::Line(std::string_view suffix, const MetricLabels& labels, double value) {
  text_ += name_;
  text_ += suffix;
  std::string inside;
  for (const MetricLabels* list : {static_cast<const MetricLabels*>(&common_), &labels}) {
    for (const auto& [name, text] : *list)
      inside += fmt::format("{}{}=\"{}\"", inside.empty() ? "" : ",", name, Escaped(text));
  }
  if (!inside.empty()) text_ += "{" + inside + "}";
  text_ += " " + Number(value) + "\n";
}

void PrometheusText::Sample(double value, const MetricLabels& labels) { Line("", labels, value); }

void PrometheusText::Sample(const Histogram& h) {
  uint64_t below = 0;
  for (size_t i = 0; i < h.counts_.size(); ++i) {
    below += h.counts_[i];
    const std::string bound = i < h.bounds_.size() ? Number(h.bounds_[i]) : "+Inf";
    Line("_bucket", {{"le", bound}}, static_cast<double>(below));
  }
  Line("_sum", {}, h.sum_);
  Line("_count", {}, static_cast<double>(h.count_));
}

void PrometheusText::Counter(std::string_view name, std::string_view help, double value) {
  Family(name, "counter", help);
  Sample(value);
}

void PrometheusText::Gauge(std::string_view name, std::string_view help, double value) {
  Family(name, "gauge", help);
  Sample(value);
}

}  // namespace kvasir
