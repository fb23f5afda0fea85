#include "sim/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include "sim/synthetic.h"

namespace kvasir {
namespace {

constexpr char kTrace[] = KVASIR_SOURCE_DIR "/../shared/traces/conversation.jsonl";

TraceRequest Make(double at, int32_t input, int32_t output, uint64_t tenant = 0) {
  return {.arrival_s = at,
          .input_tokens = input,
          .output_tokens = output,
          .pieces = {},
          .tenant = tenant};
}

SimulationResult Simulated(const std::vector<TraceRequest>& trace,
                           const SimulationOptions& options) {
  auto result = Simulate(trace, options, {});
  EXPECT_TRUE(result.ok()) << result.error().message;
  return std::move(*result);
}

std::vector<TraceRequest> ConversationTrace() {
  auto trace = ReadTrace(kTrace, 0);
  return trace.ok() ? std::move(*trace) : std::vector<TraceRequest>();
}

#define SKIP_WITHOUT_TRACE(trace) \
  if ((trace).empty()) GTEST_SKIP() << "needs the conversation trace at " << kTrace

TEST(Simulation, TraceHitsAreExactToTheTokenAtEveryBlockSize) {
  const auto trace = ConversationTrace();
  SKIP_WITHOUT_TRACE(trace);
  for (const int32_t block : {16, 64, 512}) {
    SimulationOptions options;
    options.block_tokens = block;
    options.sequential = true;
    const SimulationResult r = Simulated(trace, options);
    EXPECT_EQ(r.prompt_tokens, 76878216u);
    EXPECT_EQ(r.cached_tokens, 27060298u) << block;
  }
}

TEST(Simulation, TraceAtItsOwnTimesLosesAtMostOnePercentOfTheHitsAndWastesLittle) {
  const auto trace = ConversationTrace();
  SKIP_WITHOUT_TRACE(trace);
  const SimulationResult r = Simulated(trace, {});
  EXPECT_EQ(r.refused, 0u);
  EXPECT_GE(r.cached_tokens, 27060298u * 99 / 100);
  EXPECT_LE(r.kv_waste_pct, 2);
}

TEST(Simulation, TraceInSmallPoolsHitsMoreThanWithLru) {
  const auto trace = ConversationTrace();
  SKIP_WITHOUT_TRACE(trace);
  for (const int percent : {5, 10, 20, 40}) {
    SimulationOptions options;
    options.sequential = true;
    options.block_tokens = 128;
    options.pool_blocks = DistinctBlocks(trace, options.block_tokens) * percent / 100;
    const SimulationResult ours = Simulated(trace, options);
    options.kv.eviction = EvictionPolicy::kLru;
    const SimulationResult lru = Simulated(trace, options);
    EXPECT_GT(ours.cached_tokens, lru.cached_tokens) << percent;
    EXPECT_LE(ours.cached_tokens, BeladyHits(trace, options.pool_blocks * options.block_tokens))
        << percent;
  }
}

TEST(Simulation, NoWorkloadHitsMoreThanBeladysBound) {
  for (const char* kind : {"shared", "chats", "documents", "flood"}) {
    const auto trace = MakeSynthetic({.kind = kind, .requests = 300});
    ASSERT_TRUE(trace.ok());
    for (const int percent : {10, 60, 120}) {
      SimulationOptions options;
      options.sequential = true;
      options.pool_blocks = DistinctBlocks(*trace, options.block_tokens) * percent / 100;
      EXPECT_LE(Simulated(*trace, options).cached_tokens,
                BeladyHits(*trace, options.pool_blocks * options.block_tokens))
          << kind << " " << percent;
    }
  }
}

TEST(Simulation, TheSameTraceGivesTheSameResult) {
  std::vector<TraceRequest> trace;
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    trace.push_back(Make(i * 0.01, static_cast<int32_t>(1 + random() % 3000),
                         static_cast<int32_t>(1 + random() % 1000), random() % 3));
    for (int32_t p = 0; p * kTracePiece < trace.back().input_tokens; ++p)
      trace.back().pieces.push_back(p == 0 ? random() % 4 : 100 * i + p);
  }
  SimulationOptions options;
  options.pool_blocks = 300;
  const SimulationResult a = Simulated(trace, options), b = Simulated(trace, options);
  EXPECT_GT(a.preemptions, 0u);
  EXPECT_GT(a.evicted_blocks, 0);
  EXPECT_EQ(a.cached_tokens, b.cached_tokens);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.itl_s, b.itl_s);
  for (const SimulatedRequest& q : a.requests) EXPECT_GT(q.finished_s, 0);
}

TEST(Simulation, WithoutChunksAPromptOfAWindowedModelThatNeedsMoreThanThePoolIsRefused) {
  SimulationOptions options;
  options.shape.windows = {64, 64, 0};
  options.scheduler.chunked_prefill = false;
  options.scheduler.max_step_tokens = 64;
  // Computed at once, 2,000 tokens need all their blocks in each of the groups.
  options.pool_blocks = 2000 / options.block_tokens * 2;
  const SimulationResult r = Simulated({Make(0, 2000, 10), Make(0, 100, 10)}, options);
  EXPECT_EQ(r.refused, 1u);
  EXPECT_TRUE(r.requests[0].refused);
  EXPECT_EQ(r.requests[1].output_tokens, 10);
}

/// The 99th percentile of time to first token of tenants 1 to 3.
double QuietTenantsTtft(bool flood) {
  // About 25 requests a second are what this machine computes: a share is 6.
  std::vector<TraceRequest> trace;
  std::mt19937 random(11);
  const auto arrivals = [&](uint64_t tenant, double rate) {
    std::exponential_distribution<double> gap(rate);
    for (double at = gap(random); at < 60; at += gap(random))
      trace.push_back(Make(at, 2000, 20, tenant));
  };
  for (const uint64_t tenant : {1, 2, 3}) arrivals(tenant, 0.8 * 6);
  if (flood) arrivals(4, 10 * 6);
  std::stable_sort(trace.begin(), trace.end(),
                   [](const auto& a, const auto& b) { return a.arrival_s < b.arrival_s; });
  const SimulationResult r = Simulated(trace, {});
  std::vector<float> ttft;
  for (size_t i = 0; i < trace.size(); ++i) {
    if (trace[i].tenant != 4)
      ttft.push_back(static_cast<float>(r.requests[i].first_token_s - r.requests[i].arrival_s));
  }
  return Percentile(ttft, 99);
}

TEST(Simulation, AFloodByOneTenantAtMostDoublesTheOthersTimeToFirstToken) {
  const double quiet = QuietTenantsTtft(false), flooded = QuietTenantsTtft(true);
  EXPECT_LE(flooded, 2 * quiet);
  RecordProperty("quiet_p99_ms", std::to_string(quiet * 1e3));
  RecordProperty("flooded_p99_ms", std::to_string(flooded * 1e3));
}

TEST(Simulation, ALongPromptDoesNotStallThoseThatDecode) {
  SimulationOptions options;
  options.machine = {.step_s = 0.02, .prefill_tokens_per_s = 2000, .key_s = 0.2e-6};
  std::vector<TraceRequest> trace;
  for (int i = 0; i < 8; ++i) trace.push_back(Make(0, 100, 6000));
  const double quiet_itl = Percentile(Simulated({trace.begin(), trace.end()}, options).itl_s, 50);
  constexpr double kArrives = 20;
  trace.push_back(Make(kArrives, 32'000, 2));
  options.scheduler.itl_target_s = 1.5 * quiet_itl;
  const SimulationResult r = Simulated(trace, options);
  const double ttft = r.requests[8].first_token_s - kArrives;
  const double share = 0.5 / 1.5;  // of each step, that the target leaves for the prompt
  const double work = 32'000 / options.machine.prefill_tokens_per_s;
  EXPECT_LE(ttft, 1.3 * work / share);
  EXPECT_LE(Percentile(r.itl_s, 99), 2 * quiet_itl);
  // Without the target somebody waits for a whole step of prefill.
  options.scheduler.itl_target_s = 0;
  EXPECT_GT(Percentile(Simulated(trace, options).itl_s, 99.99), 4 * quiet_itl);
}

/// Prompts with and without pieces, of three tenants, in a pool that is short.
std::vector<TraceRequest> MixedTrace(size_t requests) {
  std::vector<TraceRequest> trace;
  std::mt19937 random(5);
  for (size_t i = 0; i < requests; ++i) {
    trace.push_back(Make(static_cast<double>(i) * 0.01, static_cast<int32_t>(1 + random() % 3000),
                         static_cast<int32_t>(1 + random() % 60), random() % 3));
    if (i % 4 == 0) continue;
    for (int32_t p = 0; p * kTracePiece < trace.back().input_tokens; ++p)
      trace.back().pieces.push_back(p == 0 ? random() % 4 : 100 * i + static_cast<size_t>(p));
  }
  return trace;
}

TEST(Simulation, PromptsWithoutPiecesAreLikeNoOther) {
  // What once wrapped to the piece 1: the first line's pieces 0 to 3 were those of the second.
  std::vector<TraceRequest> trace = {Make(0, 2048, 1), Make(0, 2048, 1), Make(0, 2048, 1)};
  trace[1].pieces = {0, 1, 2, 3};
  trace[2].pieces = {65536 * 2, 65536 * 2 + 1, 65536 * 2 + 2, 65536 * 2 + 3};
  SimulationOptions options;
  options.sequential = true;
  EXPECT_EQ(Simulated(trace, options).cached_tokens, 0u);
  // A prompt of more than 65,536 pieces does not go on as the next request's.
  const TraceRequest endless = Make(0, (65536 + 2) * kTracePiece, 1);
  const std::vector<int32_t> a = PromptOf(endless, 0), b = PromptOf(Make(0, 2 * kTracePiece, 1), 1);
  EXPECT_FALSE(std::equal(b.begin(), b.end(), a.end() - 2 * kTracePiece));
  // Nor does any piece that an integer names look like one.
  const std::vector<int32_t> other = PromptOf(Make(0, kTracePiece, 1), 7);
  for (const int64_t piece : {int64_t{0}, int64_t{7}, int64_t{-1}, INT64_MIN, INT64_MAX,
                              INT64_MIN + 7 * 65536, int64_t{1} << 55, int64_t{1} << 54}) {
    TraceRequest r = Make(0, kTracePiece, 1);
    r.pieces = {piece};
    const std::vector<int32_t> tokens = PromptOf(r, 7);
    EXPECT_NE(tokens, other) << piece;
    EXPECT_NE(tokens.front(), other.front()) << piece;
    r.pieces = {piece ^ (int64_t{1} << 55)};  // times 512, it would be gone
    EXPECT_NE(PromptOf(r, 7), tokens) << piece;
    EXPECT_EQ(PromptOf(r, 8), PromptOf(r, 9)) << piece;
  }
}

TEST(Simulation, SamplesCountEachUsedBlockForItsTenantOrTheCache) {
  SimulationOptions options;
  options.pool_blocks = 900;
  for (const std::vector<int32_t>& windows : {std::vector<int32_t>{0}, {64, 64, 0}}) {
    options.shape.windows = windows;
    const SimulationResult r = Simulated(MixedTrace(400), options);
    EXPECT_GT(r.evicted_blocks, 0);
    EXPECT_GT(r.samples.size(), 20u);
    EXPECT_EQ(r.samples.back().time_s, r.seconds);
    EXPECT_EQ(r.samples.back().itls, r.itl_s.size());
    std::map<uint64_t, int64_t> most;
    int64_t behind_windows = 0;
    for (const SimulationSample& s : r.samples) {
      for (const auto& [tenant, blocks] : s.tenant_blocks)
        most[tenant] = std::max(most[tenant], blocks);
      EXPECT_GE(s.cached_blocks(), s.idle_blocks) << s.time_s;
      behind_windows += s.cached_blocks() - s.idle_blocks;
    }
    EXPECT_EQ(behind_windows > 0, windows.size() > 1);
    EXPECT_EQ(most.size(), 3u);
  }
}

TEST(Simulation, ARunOfAnyLengthHasNoMoreSamplesThanAPlotCanShow) {
  std::vector<TraceRequest> trace;
  for (int i = 0; i < 3000; ++i) trace.push_back(Make(i, 10, 2));
  const SimulationResult r = Simulated(trace, {});
  EXPECT_LE(r.samples.size(), kMostSamples);
  EXPECT_GE(r.samples.size(), kMostSamples / 2);
  const auto half = std::count_if(r.samples.begin(), r.samples.end(),
                                  [&](const auto& s) { return s.time_s < r.seconds / 2; });
  EXPECT_NEAR(static_cast<double>(half), static_cast<double>(r.samples.size()) / 2, 10);
  for (size_t i = 1; i < r.samples.size(); ++i) {
    EXPECT_LT(r.samples[i - 1].time_s, r.samples[i].time_s);
    EXPECT_LE(r.samples[i - 1].itls, r.samples[i].itls);
  }
}

TEST(Simulation, LatencyOverTimeHasEveryTokenInTheBucketOfItsTime) {
  const SimulationResult r = Simulated(MixedTrace(200), {});
  EXPECT_EQ(LatencyOverTime(r, 1).size(), 1u);
  for (const size_t most : {size_t{1}, size_t{7}, size_t{50}, size_t{100'000}}) {
    const std::vector<LatencyBucket> buckets = LatencyOverTime(r, most);
    ASSERT_EQ(buckets.size(), std::min(most, r.samples.size()));
    EXPECT_EQ(buckets.front().begin_s, 0);
    EXPECT_EQ(buckets.back().end_s, r.seconds);
    size_t later = 0;
    for (const LatencyBucket& b : buckets) {
      // By looking at all of them.
      std::vector<float> ttft;
      for (const SimulatedRequest& q : r.requests) {
        if (q.first_token_s > b.begin_s && q.first_token_s <= b.end_s)
          ttft.push_back(static_cast<float>(q.ttft_s()));
      }
      EXPECT_EQ(b.first_tokens, ttft.size());
      EXPECT_EQ(b.ttft_p50, Percentile(ttft, 50));
      EXPECT_EQ(b.ttft_p99, Percentile(ttft, 99));
      later += b.later_tokens;
    }
    EXPECT_EQ(later, r.itl_s.size());
  }
  const LatencyBucket all = LatencyOverTime(r, 1).front();
  EXPECT_EQ(all.itl_p50, Percentile(r.itl_s, 50));
  EXPECT_EQ(all.itl_p99, Percentile(r.itl_s, 99));
  double longest = 0;
  for (const SimulatedRequest& q : r.requests) {
    longest = std::max(longest, q.longest_itl_s);
    EXPECT_LE(q.mean_itl_s(), q.longest_itl_s + 1e-9);
  }
  EXPECT_FLOAT_EQ(static_cast<float>(longest), *std::max_element(r.itl_s.begin(), r.itl_s.end()));
  EXPECT_TRUE(LatencyOverTime({}, 10).empty());
}

TEST(Trace, ReadsCsvAndNamesBadLines) {
  const std::string path = ::testing::TempDir() + "kvasir-trace";
  const auto read = [&](const std::string& text) {
    std::ofstream(path) << text;
    return ReadTrace(path, 0);
  };
  const auto csv = read(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n2023-11-16 "
      "18:15:48.0,10,1\n");
  ASSERT_TRUE(csv.ok()) << csv.error().message;
  ASSERT_EQ(csv->size(), 2u);
  EXPECT_NEAR((*csv)[1].arrival_s, 1.5, 1e-6);
  EXPECT_EQ((*csv)[0].input_tokens, 374);
  for (const char* bad :
       {"{\"timestamp\": 0}\n", "{\n", "1,2\n", "x,1,1\n", "0,-5,1\n", "",
        "{\"timestamp\":0,\"input_length\":9999,\"output_length\":1,\"hash_ids\":[1]}\n",
        "{\"timestamp\":0,\"input_length\":1e300,\"output_length\":1}\n"}) {
    EXPECT_FALSE(read(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace kvasir
