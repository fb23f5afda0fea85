#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "kv/manager.h"
#include "sched/step.h"

namespace kvasir {

/// One sequence computed by hand, slice by slice, without a scheduler: for perplexity, `explain`
/// and tests that compare chunkings. The executor and manager must outlive it.
class DirectSequence {
 public:
  DirectSequence(Executor* executor, KvManager* kv, std::vector<int32_t> tokens);

  /// Computes the next `count` tokens; returns the logits of the last `wanted` of them,
  /// [wanted][vocab], valid until the next step of the executor. An Error when the KV pool is full.
  Result<std::span<const float>> Compute(int32_t count, int32_t wanted);

  /// Adds a token at the end.
  void Append(int32_t token) { tokens_.push_back(token); }

  /// Forgets the K and V of all positions from `tokens` on. CHECKs that what is left is whole.
  void Truncate(int32_t tokens) { manager_->Truncate(kv_sequence_, tokens); }

  const std::vector<int32_t>& tokens() const { return tokens_; }
  int32_t computed() const { return kv_sequence_.computed; }
  const SequenceKv& kv() const { return kv_sequence_; }
  /// The slice that Compute would run, for batches of several sequences made by hand.
  /// Grows the block tables.
  Result<SeqSlice> Plan(int32_t count, int32_t wanted);
  void Commit(const SeqSlice& slice);

 private:
  Executor* executor_;
  KvManager* manager_;
  std::vector<int32_t> tokens_;
  SequenceKv kv_sequence_;
};

/// Runs one step over slices of several sequences (from Plan) and commits them. Logits are those of
/// all wanted rows, in order.
std::span<const float> ComputeTogether(Executor* executor, const KvLayout& layout,
                                       std::span<DirectSequence*> sequences,
                                       std::span<const SeqSlice> slices);

}  // namespace kvasir
