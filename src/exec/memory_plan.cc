#include "exec/memory_plan.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"
#include "exec/model_executor.h"
#include "kv/manager.h"
#include "model/model.h"
#include "model/weights.h"
#include "sched/step.h"

namespace kvasir {
namespace {

/// Vocabulary tables: the text of a token, its entry in the hash map and its record; BPE adds a
/// merge for almost every token. Measured: see docs/memory.md.
uint64_t TextBytes(const ModelConfig& config) {
  return uint64_t{static_cast<uint32_t>(config.vocab)} * 160;
}

/// The program itself: pages of the binary and of shared libraries that are touched, thread stacks,
/// and the allocator. Measured: see docs/memory.md.
constexpr uint64_t kProgramBytes = uint64_t{14} << 20;

uint64_t Mib(uint64_t bytes) { return bytes >> 20; }

}  // namespace

Result<MemoryPlan> PlanMemory(const GgufFile& file, const ModelConfig& config,
                              const Backend& backend, const MemoryLimits& limits,
                              const MemoryRequest& request) {
  MemoryPlan p;
  p.limits = limits;
  const int64_t least = std::min<int64_t>(kLeastContext, config.context);
  if (request.context != 0 && request.context < least)
    return FlagError("--ctx is {}; it must be {} or more", request.context, least);
  if (request.context > (1 << 30))
    return FlagError("--ctx is {}; it must be {} or less", request.context, 1 << 30);
  KV_ASSIGN(p.layout, KvLayout::Create({.window = config.window,
                                        .kv_heads = config.kv_heads,
                                        .head_dim = config.head_dim,
                                        .block_tokens = request.block_tokens,
                                        .dtype = request.kv_dtype}));
  KV_ASSIGN(const WeightSizes weights, PlanWeights(file, config, backend));
  p.weights_bytes = weights.packed_bytes;
  p.mapped_bytes = weights.mapped_bytes;
  p.text_bytes = TextBytes(config);
  p.program_bytes = kProgramBytes;
  p.kv_bytes_per_token = p.layout.bytes_per_token();

  const KvManager shape(p.layout, 0);
  const auto blocks_for = [&](int64_t tokens) {
    return shape.BlocksFor(static_cast<int32_t>(tokens), request.max_step_tokens);
  };
  const auto scratch_for = [&](int64_t context) {
    return Model::ScratchBytes(config,
                               {.max_rows = request.max_step_tokens,
                                .max_logit_rows = request.max_logit_rows,
                                .max_tokens = context,
                                .max_layered_rows = kMostLayeredRows},
                               backend) +
           ModelExecutor::ScratchBytes(config, backend);
  };
  int64_t context = request.context > 0 ? request.context : config.context;
  p.scratch_bytes = scratch_for(context);
  const uint64_t available = limits.available_bytes;
  const uint64_t others = p.fixed_bytes() + request.requests_bytes;
  const uint64_t for_kv = available > others ? available - others : 0;
  const int64_t blocks_that_fit =
      static_cast<int64_t>(std::min<uint64_t>(for_kv / p.layout.block_bytes, INT32_MAX));
  p.kv_capacity_tokens = static_cast<int64_t>(static_cast<double>(for_kv) / p.kv_bytes_per_token);

  const auto shorter = [&](int64_t tokens) { return std::max(least, tokens * 7 / 8); };
  // Without --ctx the context shrinks to what fits; one that was asked for is refused instead.
  if (request.context == 0 && request.kv_bytes == 0) {
    while (context > least && blocks_for(context) > blocks_that_fit) context = shorter(context);
  }
  int64_t blocks = request.kv_bytes > 0
                       ? static_cast<int64_t>(request.kv_bytes / p.layout.block_bytes)
                       : blocks_for(context);
  if (request.context == 0 && request.kv_bytes > 0) {
    while (context > least && blocks_for(context) > blocks) context = shorter(context);
  }
  if (request.kv_bytes == 0)
    blocks = std::max(blocks, std::min(blocks * request.contexts, blocks_that_fit / 2));
  const uint64_t kv_bytes = static_cast<uint64_t>(blocks) * p.layout.block_bytes;
  if (blocks > blocks_that_fit) {
    return MakeError(
        ErrorCode::kNoMemory,
        "{} does not fit: weights {} MiB + scratch {} MiB + program {} MiB + {}KV {} MiB for a "
        "context of {} tokens is above the {} MiB available ({}); lower --ctx, use --kv-dtype "
        "int8, or a smaller model",
        file.path(), Mib(p.weights_bytes), Mib(p.scratch_bytes),
        Mib(p.text_bytes + p.program_bytes),
        request.requests_bytes > 0 ? fmt::format("requests {} MiB + ", Mib(request.requests_bytes))
                                   : "",
        Mib(kv_bytes), context, Mib(available), limits.limited_by);
  }
  if (blocks_for(context) > blocks) {
    return FlagError(
        "--kv-memory of {} MiB holds {} KV blocks, but one sequence of {} tokens needs "
        "{}; raise --kv-memory or lower --ctx",
        Mib(request.kv_bytes), blocks, context, blocks_for(context));
  }
  p.context = static_cast<int32_t>(context);
  p.kv_blocks = static_cast<int32_t>(blocks);
  p.kv_bytes = kv_bytes;
  p.scratch_bytes = scratch_for(context);
  return p;
}

}  // namespace kvasir
