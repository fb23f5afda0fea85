#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "api/loaded_model.h"
#include "sim/machine_profile.h"

namespace kvasir {

/// One line of llama-batched-bench: `batch` sequences of `pp` prompt tokens, `tg` tokens of output
/// each.
struct BatchBenchRow {
  int32_t pp = 0, tg = 0, batch = 0;
  int64_t kv_tokens = 0;      ///< slots filled at the end
  double pp_s = 0, tg_s = 0;  ///< steps with prompt tokens; steps without
  double pp_tok_s = 0, tg_tok_s = 0;
  double pp_limit_pct = 0;  ///< of the compute probe
  double tg_limit_pct = 0;  ///< of the bandwidth probe: weights and K and V read
  double again_s = 0;       ///< the same prompts again, all to their first token
  OpCounters pp_work, tg_work;
};

struct BatchBenchOptions {
  int32_t pp = 512, tg = 128;
  std::vector<int32_t> batches = {1};
  bool shared_prompt = false;  ///< all sequences have the same prompt, computed once
  bool again = false;          ///< then the same prompts again, which the cache holds
};

/// Runs the engine on random prompts, each batch with an empty cache. The limits are those of the
/// probes, which are measured once. `on_row` gets each row as soon as it is there.
Result<std::vector<BatchBenchRow>> RunBatchBench(
    LoadedModel* model, const BatchBenchOptions& options,
    const std::function<void(const BatchBenchRow&)>& on_row);

/// What steps cost here: one token with an empty cache and after a long context, a whole step
/// likewise. The best of a few runs each.
Result<MachineProfile> MeasureProfile(LoadedModel* model);

}  // namespace kvasir
