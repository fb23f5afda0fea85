#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "metrics/prometheus_text.h"
#include "metrics/recent_values.h"

namespace kvasir {

/// A prompt whose first token came.
struct ComputedPrompt {
  std::string tenant;  ///< empty: nobody in particular
  int64_t prompt_tokens = 0, cached_tokens = 0;
  double prefill_s = 0;  ///< of the tokens that were not cached
};

/// A completion that ended.
struct FinishedRequest {
  std::string tenant;  ///< empty: nobody in particular
  std::string reason;  ///< as NameOf(FinishReason) has it
  double total_s = 0;
};

/// Steps by what they held: "decode", "prefill" or "mixed".
struct PhaseSums {
  std::string phase;
  double seconds = 0, flops = 0, bytes_read = 0;
};

/// What is read from elsewhere when somebody asks.
struct MetricGauges {
  int64_t running = 0, waiting = 0;
  double kv_usage = 0;  ///< of the pool's blocks, 0 to 1
  int64_t kv_blocks = 0, kv_cached_blocks = 0, kv_unfilled_slots = 0;
  double kv_bytes_per_token = 0;
  uint64_t steps = 0, preemptions = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0;         ///< admitted so far, and found cached
  std::vector<std::pair<std::string, uint64_t>> misses;  ///< by reason, ever
  /// Blocks by reason, ever: "room" that somebody needed, behind a "window", or "dropped".
  std::vector<std::pair<std::string, int64_t>> evictions;
  std::vector<std::pair<std::string, uint64_t>> memory;  ///< bytes by owner
  std::vector<PhaseSums> steps_by_phase;                 ///< ever
  int64_t http_connections = 0, http_requests = 0, http_bad_requests = 0, http_slow_readers = 0,
          http_timeouts = 0, http_bytes_in = 0, http_bytes_out = 0;
  std::map<int, int64_t> http_refused;  ///< answers of 400 and more that no handler made, by status
};

/// What the server counts, under the names that dashboards for vLLM know, and under `kvasir:` what
/// those do not have. One thread.
class ServerMetrics {
 public:
  ServerMetrics();

  void SetModel(std::string name) { model_ = std::move(name); }
  /// What the machine can do at most; 0: not known.
  void SetLimits(double flops_per_s, double bytes_per_s) {
    limit_flops_ = flops_per_s;
    limit_bytes_ = bytes_per_s;
  }
  // Counted as it happens: rates are those of now also where answers take minutes.
  void Prompt(const ComputedPrompt& prompt);
  void OutputToken(const std::string& tenant);
  void Queued(double seconds) { queue_.Add(seconds); }
  void TimeToFirstToken(double seconds, int64_t now_ns);
  void Finished(const FinishedRequest& request);
  void InterTokenLatency(double seconds, int64_t now_ns);
  /// An answer of status 400 or more; `code` is of the few that ApiError has (CodeOf).
  void Refused(int status, const std::string& code) { ++refused_[{status, code}]; }

  Percentiles RecentTtft(int64_t now_ns) { return recent_ttft_.At(now_ns); }
  Percentiles RecentItl(int64_t now_ns) { return recent_itl_.At(now_ns); }
  /// The text of /metrics.
  std::string Text(const MetricGauges& gauges) const;

 private:
  struct TenantCounts {
    uint64_t requests = 0, prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  };
  void WriteKnown(const MetricGauges& gauges, PrometheusText* out) const;
  void WriteRefused(const MetricGauges& gauges, PrometheusText* out) const;
  void WriteOwn(const MetricGauges& gauges, PrometheusText* out) const;
  void WriteTenants(PrometheusText* out) const;
  void WriteSteps(const MetricGauges& gauges, PrometheusText* out) const;

  std::string model_;
  double limit_flops_ = 0, limit_bytes_ = 0;
  Histogram ttft_, itl_, e2e_, queue_;
  uint64_t prompt_tokens_ = 0, cached_tokens_ = 0, output_tokens_ = 0;
  double prefill_s_ = 0;                      // of the tokens that were not cached
  double saved_s_ = 0;                        // by those that were
  std::map<std::string, uint64_t> finished_;  // by reason
  std::map<std::pair<int, std::string>, uint64_t> refused_;
  std::map<std::string, TenantCounts> tenants_;
  RecentValues recent_ttft_, recent_itl_;
};

}  // namespace kvasir
