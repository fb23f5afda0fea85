#include "exec/direct_sequence.h"

#include <utility>

#include "base/check.h"

namespace kvasir {

DirectSequence::DirectSequence(Executor* executor, KvManager* kv, std::vector<int32_t> tokens)
    : executor_(executor),
      manager_(kv),
      tokens_(std::move(tokens)),
      kv_sequence_(kv->NewSequence()) {}

Result<SeqSlice> DirectSequence::Plan(int32_t count, int32_t wanted) {
  CHECK_GT(count, 0);
  CHECK_LE(wanted, count);
  const int32_t end = kv_sequence_.computed + count;
  CHECK_LE(static_cast<size_t>(end), tokens_.size());
  if (!manager_->Grow(kv_sequence_, end)) {
    return MakeError(ErrorCode::kNoMemory,
                     "the KV pool of {} blocks of {} tokens is full at token {}; raise --ctx or "
                     "--kv-memory",
                     manager_->pool().total(), manager_->layout().block_tokens, end);
  }
  SeqSlice slice;
  slice.first_pos = kv_sequence_.computed;
  slice.count = count;
  slice.wanted_begin = count - wanted;
  slice.wanted_end = count;
  slice.tokens = tokens_;
  slice.prompt_tokens = static_cast<int32_t>(tokens_.size());
  return slice;
}

void DirectSequence::Commit(const SeqSlice& slice) {
  manager_->Advance(kv_sequence_, slice.first_pos + slice.count);
}

Result<std::span<const float>> DirectSequence::Compute(int32_t count, int32_t wanted) {
  KV_ASSIGN(const SeqSlice slice, Plan(count, wanted));
  DirectSequence* self = this;
  return ComputeTogether(executor_, manager_->layout(), {&self, 1}, {&slice, 1});
}

std::span<const float> ComputeTogether(Executor* executor, const KvLayout& layout,
                                       std::span<DirectSequence*> sequences,
                                       std::span<const SeqSlice> slices) {
  CHECK_EQ(sequences.size(), slices.size());
  StepPlan plan;
  plan.slices.assign(slices.begin(), slices.end());
  for (size_t g = 0; g < layout.groups.size(); ++g) {
    for (const DirectSequence* s : sequences) plan.tables.push_back(s->kv().tables[g].view());
  }
  executor->Submit(plan);
  const StepResult& result = executor->Collect();
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i]->Commit(slices[i]);
  return result.logits;
}

}  // namespace kvasir
