#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "metrics/server_metrics.h"

namespace kvasir {
namespace {

/// Reads the text format strictly: every sample belongs to the family before it, every family has
/// its help and type, and no sample is there twice.
std::map<std::string, double> Parse(const std::string& text) {
  std::map<std::string, double> out;
  std::set<std::string> families;
  std::string family, type, helped;
  const std::regex sample(
      R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+))re");
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, kind, name;
    if (line.rfind("# ", 0) == 0) {
      words >> hash >> kind >> name;
      if (kind == "HELP") {
        EXPECT_TRUE(families.insert(name).second) << name << " is there twice";
        helped = name;
      } else {
        EXPECT_EQ(kind, "TYPE");
        EXPECT_EQ(name, helped);
        family = name;
        words >> type;
      }
      continue;
    }
    std::smatch match;
    if (!std::regex_match(line, match, sample)) {
      ADD_FAILURE() << "no sample: " << line;
      continue;
    }
    std::string base = match[1];
    if (type == "histogram")
      base = std::regex_replace(base, std::regex("_(bucket|sum|count)$"), "");
    EXPECT_EQ(base, family) << line;
    EXPECT_TRUE(out.emplace(match[1].str() + match[2].str(), std::stod(match[3])).second) << line;
  }
  return out;
}

TEST(Metrics, TheTextIsWhatPrometheusReads) {
  ServerMetrics metrics;
  metrics.SetModel("a \"model\" \\ with\nall");
  metrics.Prompt({.tenant = "t\"1", .prompt_tokens = 100, .cached_tokens = 60, .prefill_s = 0.02});
  metrics.Queued(0.001);
  metrics.TimeToFirstToken(0.03, 0);
  for (int i = 0; i < 10; ++i) metrics.OutputToken("t\"1");
  metrics.Finished({.tenant = "t\"1", .reason = "stop", .total_s = 1.2});
  metrics.InterTokenLatency(0.02, 0);
  metrics.InterTokenLatency(100, 0);
  metrics.Refused(429, "queue_full");
  metrics.Refused(429, "queue_full");
  metrics.Refused(400, "invalid_request_error");
  MetricGauges gauges;
  gauges.misses = {{"none", 3}, {"evicted", 1}};
  gauges.memory = {{"weights", 1000}};
  gauges.evictions = {{"room", 5}, {"window", 2}};
  gauges.http_refused = {{413, 3}};
  gauges.kv_bytes_per_token = 8;
  gauges.steps_by_phase = {{.phase = "decode", .seconds = 2, .flops = 1e9, .bytes_read = 3e9},
                           {.phase = "prefill"}};
  // Of limits that nobody has measured nothing is said.
  EXPECT_EQ(metrics.Text(gauges).find("machine"), std::string::npos);
  metrics.SetLimits(5e9, 2e9);
  const auto samples = Parse(metrics.Text(gauges));
  const std::string m = R"(model_name="a \"model\" \\ with\nall")";
  const auto at = [&](const std::string& name, const std::string& labels = "") {
    const auto it = samples.find(name + "{" + m + labels + "}");
    EXPECT_NE(it, samples.end()) << name << labels;
    return it == samples.end() ? NAN : it->second;
  };
  EXPECT_EQ(at("vllm:prompt_tokens_total"), 100);
  EXPECT_EQ(at("vllm:generation_tokens_total"), 10);
  EXPECT_EQ(at("vllm:request_success_total", R"(,finished_reason="stop")"), 1);
  EXPECT_EQ(at("vllm:request_queue_time_seconds_count"), 1);
  EXPECT_EQ(at("vllm:time_to_first_token_seconds_bucket", R"(,le="0.02")"), 0);
  EXPECT_EQ(at("vllm:time_to_first_token_seconds_bucket", R"(,le="0.04")"), 1);
  EXPECT_EQ(at("vllm:inter_token_latency_seconds_bucket", R"(,le="10")"), 1);
  EXPECT_EQ(at("vllm:inter_token_latency_seconds_bucket", R"(,le="+Inf")"), 2);
  EXPECT_EQ(at("vllm:inter_token_latency_seconds_count"), 2);
  EXPECT_DOUBLE_EQ(at("vllm:inter_token_latency_seconds_sum"), 100.02);
  EXPECT_EQ(at("kvasir:prefix_misses_total", R"(,reason="evicted")"), 1);
  EXPECT_EQ(at("kvasir:evicted_blocks_total", R"(,reason="window")"), 2);
  EXPECT_EQ(at("kvasir:refused_requests_total", R"(,reason="queue_full",status="429")"), 2);
  EXPECT_EQ(at("kvasir:refused_requests_total", R"(,reason="http",status="413")"), 3);
  EXPECT_EQ(at("kvasir:tenant_cached_tokens_total", R"(,tenant="t\"1")"), 60);
  EXPECT_EQ(at("kvasir:tenant_output_tokens_total", R"(,tenant="t\"1")"), 10);
  EXPECT_DOUBLE_EQ(at("kvasir:cache_saved_seconds_total"), 60 * 0.02 / 40);
  EXPECT_EQ(at("kvasir:cache_saved_bytes_total"), 480);
  EXPECT_EQ(at("kvasir:step_read_bytes_total", R"(,phase="decode")"), 3e9);
  EXPECT_DOUBLE_EQ(at("kvasir:machine_limit_percent", R"(,phase="decode",of="compute")"), 10);
  EXPECT_DOUBLE_EQ(at("kvasir:machine_limit_percent", R"(,phase="decode",of="memory")"), 75);
  EXPECT_EQ(samples.count("kvasir:machine_limit_percent{" + m + R"(,phase="prefill",of="memory"})"),
            0u);
}

/// The value of one sample of a server without a name.
double ValueOf(const ServerMetrics& metrics, const std::string& name,
               const std::string& labels = "") {
  for (const auto& [sample, value] : Parse(metrics.Text({}))) {
    if (sample == name + R"({model_name="")" + labels + "}") return value;
  }
  return NAN;
}

TEST(Metrics, TokensCountBeforeTheirRequestEnds) {
  ServerMetrics metrics;
  metrics.Prompt({.tenant = "a", .prompt_tokens = 7});
  metrics.OutputToken("a");
  metrics.OutputToken("a");
  metrics.TimeToFirstToken(0.5, 0);
  EXPECT_EQ(ValueOf(metrics, "vllm:prompt_tokens_total"), 7);
  EXPECT_EQ(ValueOf(metrics, "vllm:generation_tokens_total"), 2);
  EXPECT_EQ(ValueOf(metrics, "vllm:time_to_first_token_seconds_count"), 1);
  EXPECT_EQ(ValueOf(metrics, "kvasir:tenant_output_tokens_total", R"(,tenant="a")"), 2);
  EXPECT_EQ(ValueOf(metrics, "kvasir:tenant_requests_total", R"(,tenant="a")"), 0);
  EXPECT_EQ(ValueOf(metrics, "vllm:e2e_request_latency_seconds_count"), 0);
}

TEST(Metrics, ReasonsHaveTheNamesOfVllmAndOurOwnBeside) {
  ServerMetrics metrics;
  const auto success = [&](const char* reason) {
    return ValueOf(metrics, "vllm:request_success_total",
                   fmt::format(R"(,finished_reason="{}")", reason));
  };
  EXPECT_EQ(success("abort"), 0) << "a rate needs the 0 before the first";
  for (const char* reason : {"stop", "length", "context", "deadline", "cancelled", "error"})
    metrics.Finished({.reason = reason});
  EXPECT_EQ(success("stop"), 1);
  EXPECT_EQ(success("length"), 2);
  EXPECT_EQ(success("abort"), 2);
  for (const char* reason : {"context", "deadline", "cancelled", "error"}) {
    EXPECT_TRUE(std::isnan(success(reason))) << reason;
    EXPECT_EQ(
        ValueOf(metrics, "kvasir:requests_ended_total", fmt::format(R"(,reason="{}")", reason)), 1);
  }
}

TEST(Metrics, WhatTheCacheSavedNeverFalls) {
  ServerMetrics metrics;
  const auto saved = [&] { return ValueOf(metrics, "kvasir:cache_saved_seconds_total"); };
  EXPECT_EQ(saved(), 0);
  metrics.Prompt({.prompt_tokens = 10, .cached_tokens = 5, .prefill_s = 5});
  EXPECT_DOUBLE_EQ(saved(), 5);
  // Prompts that are computed much faster make the mean of all fall.
  metrics.Prompt({.prompt_tokens = 10'000, .prefill_s = 1});
  EXPECT_DOUBLE_EQ(saved(), 5);
  metrics.Prompt({.prompt_tokens = 100, .cached_tokens = 100});
  EXPECT_DOUBLE_EQ(saved(), 5 + 100 * 6.0 / 10'005);
}

TEST(Metrics, PercentilesAreOfWhatHappenedLately) {
  RecentValues values;
  EXPECT_EQ(values.At(0).p99, 0);
  for (int i = 1; i <= 100; ++i) values.Add(i, 1000);
  EXPECT_EQ(values.At(1000).p50, 50);
  EXPECT_EQ(values.At(1000).p90, 90);
  EXPECT_EQ(values.At(1000).p99, 99);
  values.Add(7, 1000 + RecentValues::kAgeNs + 1);
  EXPECT_EQ(values.At(1000 + RecentValues::kAgeNs + 1).p50, 7) << "old values count still";
  for (size_t i = 0; i < 3 * RecentValues::kMost; ++i) values.Add(1, RecentValues::kAgeNs * 2);
  EXPECT_EQ(values.At(RecentValues::kAgeNs * 2).p99, 1);
}

}  // namespace
}  // namespace kvasir
