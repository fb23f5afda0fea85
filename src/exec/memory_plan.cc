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

std::string Size(uint64_t bytes) {
  if (bytes >= uint64_t{10} << 20) return fmt::format("{} MiB", bytes >> 20);
  return bytes >= uint64_t{10} << 10 ? fmt::format("{} KiB", bytes >> 10)
                                     : fmt::format("{} bytes", bytes);
}

/// What helps where all is more than there is. `for_kv`: room for the pool; `needed`: the smallest
/// pool that is of use.
std::string Advice(const MemoryRequest& request, int64_t least, uint64_t for_kv, uint64_t needed) {
  if (request.kv_bytes > 0 && needed <= for_kv)
    return fmt::format("lower --kv-memory to {}K or less", for_kv >> 10);
  std::string out;
  if (request.context > least)
    out += request.kv_bytes > 0 ? "lower --kv-memory and --ctx, " : "lower --ctx, ";
  if (request.kv_dtype != KvDType::kInt8) out += "use --kv-dtype int8, ";
  return out + (out.empty() ? "use a smaller model" : "or use a smaller model");
}

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
  const auto pool_for = [&](int64_t tokens) {
    return static_cast<uint64_t>(blocks_for(tokens)) * p.layout.block_bytes;
  };
  if (blocks > blocks_that_fit) {
    return MakeError(
        ErrorCode::kNoMemory,
        "{} does not fit: weights {} + scratch {} + program {} + {}KV {} for a context of {} "
        "tokens is above the {} available ({}); {}",
        file.path(), Size(p.weights_bytes), Size(p.scratch_bytes),
        Size(p.text_bytes + p.program_bytes),
        request.requests_bytes > 0 ? fmt::format("requests {} + ", Size(request.requests_bytes))
                                   : "",
        Size(kv_bytes), context, Size(available), limits.limited_by,
        Advice(request, least, for_kv, pool_for(request.context > 0 ? context : least)));
  }
  if (blocks_for(context) > blocks) {
    return FlagError(
        "--kv-memory of {} holds {} KV blocks, but one sequence of {} tokens needs {}; raise it to "
        "{}K or more{}",
        Size(request.kv_bytes), blocks, context, blocks_for(context),
        (pool_for(context) + 1023) >> 10, request.context > least ? ", or lower --ctx" : "");
  }
  p.context = static_cast<int32_t>(context);
  p.kv_blocks = static_cast<int32_t>(blocks);
  p.kv_bytes = kv_bytes;
  p.scratch_bytes = scratch_for(context);
  return p;
}

}  // namespace kvasir
