#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace kvasir {

/// One request as its client saw it. Times in seconds from the start of the run.
struct LoadRecord {
  double start_s = 0, ttft_s = 0, end_s = 0;
  std::vector<double> itl_s;  ///< between chunks with text
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  int turn = 0;
  bool ok = false;
  std::string error;    ///< why not
  std::string message;  ///< and what the server said of it, on one line
};

/// "status 400: the message", or the error alone.
std::string Reason(const std::string& error, const std::string& message);

/// Limits in seconds that a request must keep to count as good; 0: no limit.
struct GoodputLimits {
  double ttft_s = 0, itl_s = 0, tpot_s = 0, e2el_s = 0;
  bool any() const { return ttft_s > 0 || itl_s > 0 || tpot_s > 0 || e2el_s > 0; }
};

/// Mean, median, deviation (of the whole, as numpy's), percentiles (linear between ranks, as
/// numpy's) and the largest.
struct LoadStatistics {
  double mean = 0, median = 0, std = 0, p90 = 0, p95 = 0, p99 = 0, most = 0;
};
LoadStatistics StatisticsOf(std::vector<double> values);

/// A run at one rate.
struct LoadSummary {
  bool chat = true;  ///< which endpoint was asked
  double rate = 0;   ///< requests a second; 0: as fast as they are answered
  int32_t concurrency = 0;
  double burstiness = 1;
  double duration_s = 0;
  int64_t completed = 0, failed = 0, good = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  /// Of the seconds since the first answered request began: most chunks with text in one, and most
  /// requests that were open in one. As `vllm bench serve` counts them.
  int64_t most_tokens_in_a_second = 0, most_open_in_a_second = 0;
  LoadStatistics ttft, tpot, itl, e2el;  ///< seconds
  struct Failure {
    std::string error, message;  ///< the first one's message
    int64_t count = 0;
  };
  std::vector<Failure> errors;
};
LoadSummary Summarize(const std::vector<LoadRecord>& records, double duration_s,
                      const GoodputLimits& limits);

/// The fields of `vllm bench serve --save-result` under its names, and some more.
nlohmann::ordered_json ToJson(const LoadSummary& summary, const std::string& model,
                              const std::string& date, bool goodput);
/// The same as a table for people.
std::string ToText(const LoadSummary& summary, bool goodput);
/// Throughput and latency over the rates, as an SVG.
std::string ToSvg(const std::vector<LoadSummary>& rows, bool goodput);

}  // namespace kvasir
