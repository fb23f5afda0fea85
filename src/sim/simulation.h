#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "kv/manager.h"
#include "sched/scheduler.h"
#include "sim/machine_profile.h"
#include "sim/trace.h"

namespace kvasir {

struct SimulationOptions {
  ModelShape shape;
  int32_t block_tokens = 32;
  int64_t pool_blocks = 0;  ///< 0: as many as the trace could ever need
  SchedulerOptions scheduler{.max_step_tokens = 2048, .max_sequences = 256};
  KvManagerOptions kv;
  MachineProfile machine;
  /// > 0: a baseline without paging. Each sequence has a slot of so many tokens; the pool is cut
  /// into them, and nothing is shared.
  int32_t slot_tokens = 0;
  bool sequential = false;  ///< one request after the other, instead of at the trace's times
};

/// What one request met.
struct SimulatedRequest {
  uint64_t tenant = 0;
  double arrival_s = 0, first_token_s = 0, finished_s = 0;
  double longest_itl_s = 0;  ///< of its tokens after the first
  int32_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0, preemptions = 0;
  MissReason miss = MissReason::kNone;
  SequenceTimes times;
  bool refused = false;

  double ttft_s() const { return first_token_s - arrival_s; }
  double mean_itl_s() const {
    return output_tokens < 2 ? 0 : (finished_s - first_token_s) / (output_tokens - 1);
  }
};

/// The state at a moment, for plots.
struct SimulationSample {
  double time_s = 0;
  size_t waiting = 0, running = 0;
  int64_t used_blocks = 0, idle_blocks = 0;
  /// Blocks that the sequences of each tenant hold, what they share counted once.
  std::map<uint64_t, int64_t> tenant_blocks;
  double hit_rate = 0;  ///< of all prompts so far
  size_t itls = 0;      ///< how many of SimulationResult::itl_s had been by then

  /// Used ones that no sequence holds: the idle ones and, of texts in use, what is behind windows.
  int64_t cached_blocks() const {
    int64_t held = 0;
    for (const auto& [tenant, blocks] : tenant_blocks) held += blocks;
    return used_blocks - held;
  }
};

struct SimulationResult {
  std::vector<SimulatedRequest> requests;
  /// At most kMostSamples, at about equal distances; the last one is the end.
  std::vector<SimulationSample> samples;
  std::vector<float> itl_s;  ///< of all tokens after a request's first, in order of time
  uint64_t prompt_tokens = 0, cached_tokens = 0, steps = 0, preemptions = 0, refused = 0;
  uint64_t misses[5] = {};
  int64_t evicted_blocks = 0, pool_blocks = 0;
  double kv_waste_pct = 0;           ///< slots of used blocks that hold no token, mean over steps
  double seconds = 0;                ///< virtual
  double scheduler_us_per_step = 0;  ///< real

  double hit_rate() const {
    return prompt_tokens == 0
               ? 0
               : static_cast<double>(cached_tokens) / static_cast<double>(prompt_tokens);
  }
};

inline constexpr size_t kMostSamples = 1000;

/// Runs the real scheduler and KV manager on a trace under a virtual clock. The same options and
/// trace give the same result, but for the real time of scheduling.
Result<SimulationResult> Simulate(const std::vector<TraceRequest>& trace,
                                  const SimulationOptions& options,
                                  const std::function<void(size_t done)>& progress);

/// Latencies of what came within (begin_s, end_s], in seconds; 0 where nothing did.
struct LatencyBucket {
  double begin_s = 0, end_s = 0;
  size_t first_tokens = 0, later_tokens = 0;
  double ttft_p50 = 0, ttft_p99 = 0, itl_p50 = 0, itl_p99 = 0;
};

/// The whole time in at most `most` buckets, each from one sample to another.
std::vector<LatencyBucket> LatencyOverTime(const SimulationResult& result, size_t most);

/// Blocks of the trace's prompts that differ: what would hold all of them.
int64_t DistinctBlocks(const std::vector<TraceRequest>& trace, int32_t block_tokens);

/// The most prompt tokens that any eviction could serve from a pool of `pool_tokens`, one request
/// after the other: Belady's rule (give up what is used again last) on pieces of kTracePiece
/// tokens.
uint64_t BeladyHits(const std::vector<TraceRequest>& trace, int64_t pool_tokens);

/// The value that `percent` of the sorted values are at most.
double Percentile(std::vector<float> values, double percent);

}  // namespace kvasir
