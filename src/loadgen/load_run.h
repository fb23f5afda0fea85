#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "loadgen/load_report.h"
#include "sim/trace.h"

namespace kvasir {

/// What is asked of a server, and how often.
struct LoadgenOptions {
  std::string url = "http://127.0.0.1:8000", key, model;
  bool chat = true;  ///< /v1/chat/completions, else /v1/completions
  int32_t requests = 100;
  int32_t concurrency = 0;  ///< > 0: so many at once, each the next when one is answered
  double rate = 0;          ///< > 0: so many a second arrive, whoever is answered
  double burstiness = 1;    ///< shape of the gamma distribution of arrivals; 1: a Poisson process
  std::vector<TraceRequest> trace;  ///< not empty: arrivals and lengths of these
  double speedup = 1;               ///< of the trace's time
  int32_t shared_tokens = 0;        ///< that all prompts begin with
  int32_t prompt_tokens = 256;      ///< of a prompt's own
  int32_t output_tokens = 64;
  int32_t turns = 1;  ///< of each conversation; a turn has the history and the server's own answers
  double think_s = 0;  ///< between an answer and the next turn
  bool ignore_eos = true;
  double temperature = 0;
  uint64_t seed = 1;
  /// Of several runs against one server: prompts of two rows have nothing in common, so that none
  /// finds in the cache what an earlier row left there. Arrivals are those of the seed in each.
  uint64_t row = 0;
  int32_t warmup = 0;  ///< requests before those that count
  double timeout_s = 600;
};

struct LoadResult {
  std::string model;
  std::vector<LoadRecord> records;
  double duration_s = 0;  ///< from the first request to the end of the last answer
  bool interrupted = false;
};

/// Runs it. `stop` is looked at now and then; true ends the run with what there is. An Error when
/// the server cannot be reached at all.
Result<LoadResult> RunLoad(const LoadgenOptions& options, const std::function<bool()>& stop,
                           const std::function<void(size_t done, size_t all)>& progress);

/// When requests arrive, in seconds: gaps of a gamma distribution with mean 1 / rate (as
/// `vllm bench serve`). The same for a seed everywhere.
std::vector<double> Arrivals(size_t count, double rate, double burstiness, uint64_t seed);

/// `count` common English words, separated by spaces, that a seed decides: about a token each.
std::string WordsOf(uint64_t seed, int64_t count);

}  // namespace kvasir
