#include "metrics/server_metrics.h"

#include <string_view>
#include <utility>

namespace kvasir {
namespace {

// Bounds in seconds: from a token of a small model to a book read by a large one.
const std::vector<double> kTtftBounds = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08,
                                         0.1,   0.25,   0.5,   0.75, 1,    2.5,  5,    7.5,
                                         10,    20,     40,    80,   160,  640};
const std::vector<double> kItlBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                        0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   5,   10};
const std::vector<double> kSecondsBounds = {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,
                                            10,   15,   20,  30,  40,  50,  60, 120, 240, 480, 960};

double AsDouble(uint64_t value) { return static_cast<double>(value); }

/// What vLLM calls one of our reasons to end; empty: nothing, it is no success.
std::string_view VllmReason(std::string_view own) {
  if (own == "stop" || own == "length") return own;
  if (own == "context") return "length";
  if (own == "cancelled" || own == "deadline") return "abort";
  return "";
}

}  // namespace

ServerMetrics::ServerMetrics()
    : ttft_(kTtftBounds), itl_(kItlBounds), e2e_(kSecondsBounds), queue_(kSecondsBounds) {}

void ServerMetrics::Prompt(const ComputedPrompt& p) {
  prompt_tokens_ += static_cast<uint64_t>(p.prompt_tokens);
  cached_tokens_ += static_cast<uint64_t>(p.cached_tokens);
  prefill_s_ += p.prefill_s;
  // At the mean of now: at a later one the sum of all could fall.
  const uint64_t computed = prompt_tokens_ - cached_tokens_;
  if (computed > 0)
    saved_s_ += static_cast<double>(p.cached_tokens) * prefill_s_ / AsDouble(computed);
  TenantCounts& t = tenants_[p.tenant];
  t.prompt_tokens += static_cast<uint64_t>(p.prompt_tokens);
  t.cached_tokens += static_cast<uint64_t>(p.cached_tokens);
}

void ServerMetrics::OutputToken(const std::string& tenant) {
  ++output_tokens_;
  ++tenants_[tenant].output_tokens;
}

void ServerMetrics::TimeToFirstToken(double seconds, int64_t now_ns) {
  ttft_.Add(seconds);
  recent_ttft_.Add(seconds, now_ns);
}

void ServerMetrics::Finished(const FinishedRequest& r) {
  ++finished_[r.reason];
  e2e_.Add(r.total_s);
  ++tenants_[r.tenant].requests;
}

void ServerMetrics::InterTokenLatency(double seconds, int64_t now_ns) {
  itl_.Add(seconds);
  recent_itl_.Add(seconds, now_ns);
}

void ServerMetrics::WriteKnown(const MetricGauges& g, PrometheusText* out) const {
  out->Gauge("vllm:num_requests_running", "Sequences being computed.",
             static_cast<double>(g.running));
  out->Gauge("vllm:num_requests_waiting", "Sequences that wait to be computed.",
             static_cast<double>(g.waiting));
  out->Gauge("vllm:kv_cache_usage_perc",
             "Part of the KV pool's blocks in use by sequences, 0 to 1.", g.kv_usage);
  out->Counter("vllm:prefix_cache_queries_total", "Prompt tokens looked for in the cache.",
               AsDouble(g.prompt_tokens));
  out->Counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the cache.",
               AsDouble(g.cached_tokens));
  out->Counter("vllm:num_preemptions_total", "Sequences that gave up their blocks for others.",
               AsDouble(g.preemptions));
  out->Counter("vllm:prompt_tokens_total",
               "Prompt tokens, counted with the first token after them.", AsDouble(prompt_tokens_));
  out->Counter("vllm:generation_tokens_total", "Output tokens.", AsDouble(output_tokens_));
  out->Family("vllm:request_success_total", "counter",
              "Requests that ended without an error: stop, length, or abort.");
  for (const char* reason : {"stop", "length", "abort"}) {
    uint64_t count = 0;
    for (const auto& [own, requests] : finished_) count += VllmReason(own) == reason ? requests : 0;
    out->Sample(AsDouble(count), {{"finished_reason", reason}});
  }
  out->Family("vllm:time_to_first_token_seconds", "histogram", "Submission to first token.");
  out->Sample(ttft_);
  out->Family("vllm:inter_token_latency_seconds", "histogram", "Between two tokens of a choice.");
  out->Sample(itl_);
  out->Family("vllm:e2e_request_latency_seconds", "histogram", "From the body to the last token.");
  out->Sample(e2e_);
  out->Family("vllm:request_queue_time_seconds", "histogram", "Waiting before being computed.");
  out->Sample(queue_);
}

void ServerMetrics::WriteTenants(PrometheusText* out) const {
  const auto family = [&](const char* name, const char* help, uint64_t TenantCounts::*field) {
    out->Family(name, "counter", help);
    for (const auto& [tenant, counts] : tenants_)
      out->Sample(AsDouble(counts.*field), {{"tenant", tenant}});
  };
  family("kvasir:tenant_requests_total", "Requests that ended.", &TenantCounts::requests);
  family("kvasir:tenant_prompt_tokens_total", "Their prompt tokens.", &TenantCounts::prompt_tokens);
  family("kvasir:tenant_cached_tokens_total", "Prompt tokens found in the cache.",
         &TenantCounts::cached_tokens);
  family("kvasir:tenant_output_tokens_total", "Their output tokens.", &TenantCounts::output_tokens);
}

/// Counters beside limits: their rates as a share of a limit are how far from it the machine works.
void ServerMetrics::WriteSteps(const MetricGauges& g, PrometheusText* out) const {
  const auto family = [&](const char* name, const char* help, double PhaseSums::*field) {
    out->Family(name, "counter", help);
    for (const PhaseSums& p : g.steps_by_phase) out->Sample(p.*field, {{"phase", p.phase}});
  };
  family("kvasir:step_seconds_total", "Time of steps by what they held.", &PhaseSums::seconds);
  family("kvasir:step_flops_total", "Their operations: matrix products and attention.",
         &PhaseSums::flops);
  family("kvasir:step_read_bytes_total", "What they read: weights, keys and values.",
         &PhaseSums::bytes_read);
  if (limit_flops_ <= 0 || limit_bytes_ <= 0) return;
  out->Gauge("kvasir:machine_flops_per_second", "Most that the machine computes.", limit_flops_);
  out->Gauge("kvasir:machine_read_bytes_per_second", "Most that it reads.", limit_bytes_);
  out->Family("kvasir:machine_limit_percent", "gauge",
              "Work of all steps so far as a share of what the machine could have done meanwhile.");
  for (const PhaseSums& p : g.steps_by_phase) {
    if (p.seconds <= 0) continue;
    out->Sample(100 * p.flops / p.seconds / limit_flops_, {{"phase", p.phase}, {"of", "compute"}});
    out->Sample(100 * p.bytes_read / p.seconds / limit_bytes_,
                {{"phase", p.phase}, {"of", "memory"}});
  }
}

void ServerMetrics::WriteRefused(const MetricGauges& g, PrometheusText* out) const {
  out->Family("kvasir:refused_requests_total", "counter",
              "Answers of status 400 and more, by their error's code; http: before any handler.");
  for (const auto& [why, count] : refused_)
    out->Sample(AsDouble(count), {{"reason", why.second}, {"status", std::to_string(why.first)}});
  for (const auto& [status, count] : g.http_refused)
    out->Sample(static_cast<double>(count),
                {{"reason", "http"}, {"status", std::to_string(status)}});
}

void ServerMetrics::WriteOwn(const MetricGauges& g, PrometheusText* out) const {
  const auto labelled = [&](const char* name, const char* type, const char* help, const char* label,
                            const auto& values) {
    out->Family(name, type, help);
    for (const auto& [key, value] : values) out->Sample(static_cast<double>(value), {{label, key}});
  };
  WriteRefused(g, out);
  labelled("kvasir:requests_ended_total", "counter", "Requests that ended, by reason.", "reason",
           finished_);
  labelled("kvasir:memory_bytes", "gauge", "Resident bytes by owner.", "owner", g.memory);
  labelled("kvasir:prefix_misses_total", "counter", "Why no more of a prompt was cached.", "reason",
           g.misses);
  out->Counter("kvasir:steps_total", "Steps computed.", AsDouble(g.steps));
  out->Gauge("kvasir:kv_blocks", "Blocks of the KV pool.", static_cast<double>(g.kv_blocks));
  out->Gauge("kvasir:kv_cached_blocks", "Blocks that only the prefix cache holds.",
             static_cast<double>(g.kv_cached_blocks));
  out->Gauge("kvasir:kv_unfilled_slots", "Token slots of held blocks without a token.",
             static_cast<double>(g.kv_unfilled_slots));
  labelled("kvasir:evicted_blocks_total", "counter",
           "Cached blocks given up: for room, behind a window before that, or all at once.",
           "reason", g.evictions);
  out->Counter(
      "kvasir:cache_saved_seconds_total",
      "Prefill that the cache saved, at the mean time of a prompt token computed until then.",
      saved_s_);
  out->Counter("kvasir:cache_saved_bytes_total", "K and V that the cache saved from being written.",
               AsDouble(cached_tokens_) * g.kv_bytes_per_token);
  out->Gauge("kvasir:http_connections", "Open connections.",
             static_cast<double>(g.http_connections));
  const std::pair<std::string, int64_t> requests[] = {{"taken", g.http_requests},
                                                      {"malformed", g.http_bad_requests}};
  labelled("kvasir:http_requests_total", "counter", "HTTP requests.", "kind", requests);
  const std::pair<std::string, int64_t> cut[] = {{"slow_reader", g.http_slow_readers},
                                                 {"timeout", g.http_timeouts}};
  labelled("kvasir:http_cut_total", "counter", "Connections that were cut off.", "reason", cut);
  const std::pair<std::string, int64_t> bytes[] = {{"in", g.http_bytes_in},
                                                   {"out", g.http_bytes_out}};
  labelled("kvasir:http_bytes_total", "counter", "Bytes received and sent.", "direction", bytes);
}

std::string ServerMetrics::Text(const MetricGauges& gauges) const {
  PrometheusText out({{"model_name", model_}});
  WriteKnown(gauges, &out);
  WriteOwn(gauges, &out);
  WriteSteps(gauges, &out);
  WriteTenants(&out);
  return out.Take();
}

}  // namespace kvasir
