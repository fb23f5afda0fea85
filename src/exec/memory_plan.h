#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "base/memory_limits.h"
#include "base/result.h"
#include "kv/layout.h"
#include "model/config.h"
#include "model/gguf.h"

namespace kvasir {

/// Shorter ones are of no use: a prompt and an answer. A model made for less is served as it is.
inline constexpr int32_t kLeastContext = 16;

/// What the user asked for.
struct MemoryRequest {
  int32_t context = 0;  ///< tokens of one sequence; 0: the model's own, or as many as fit
  uint64_t kv_bytes =
      0;  ///< size of the KV pool; 0: what one sequence of `context` needs, or all that fits
  /// Without kv_bytes: the pool has room for so many sequences of `context`, within half of what is
  /// left of the memory; for one of them in any case.
  int32_t contexts = 1;
  /// Must be left beside all that is planned: a server's bodies, texts, queues and reports.
  uint64_t requests_bytes = 0;
  KvDType kv_dtype = KvDType::kBF16;
  int32_t block_tokens = 32;
  int32_t max_step_tokens = 512;
  int32_t max_logit_rows =
      1;  ///< rows of one step whose logits are wanted, at most; also sequences at once
};

/// Every byte that the model will take, known before anything large is allocated.
struct MemoryPlan {
  uint64_t weights_bytes = 0;  ///< packed matrices, norms and biases
  uint64_t mapped_bytes =
      0;  ///< tensors read in place from the file (page cache, can be reclaimed)
  uint64_t scratch_bytes = 0;  ///< activations, attention partials, logits
  uint64_t text_bytes = 0;     ///< vocabulary and tokenizer tables, estimated
  uint64_t program_bytes = 0;  ///< binary, libraries and allocator, estimated
  double kv_bytes_per_token = 0;
  uint64_t kv_bytes = 0;  ///< the pool: kv_blocks * block_bytes
  int32_t kv_blocks = 0;
  int32_t context = 0;             ///< longest sequence that will be served
  int64_t kv_capacity_tokens = 0;  ///< tokens that fit into the available memory, if all went to KV
  MemoryLimits limits;
  KvLayout layout;

  uint64_t fixed_bytes() const {
    return weights_bytes + scratch_bytes + text_bytes + program_bytes;
  }
  uint64_t total_bytes() const { return fixed_bytes() + kv_bytes; }
};

/// Plans; an Error with the numbers when it cannot fit or when asked for something impossible.
Result<MemoryPlan> PlanMemory(const GgufFile& file, const ModelConfig& config,
                              const Backend& backend, const MemoryLimits& limits,
                              const MemoryRequest& request);

}  // namespace kvasir
