#include "exec/model_executor.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace kvasir {

ModelExecutor::ModelExecutor(Model* model, KvStorage kv, std::vector<int32_t> end_of_generation)
    : model_(model), kv_(kv), end_of_generation_(std::move(end_of_generation)) {}

void ModelExecutor::Submit(const StepPlan& plan) {
  CHECK(plan_ == nullptr);
  plan_ = &plan;
}

std::span<float> ModelExecutor::RunForward() {
  tokens_.clear();
  positions_.clear();
  slices_.clear();
  wanted_.clear();
  for (const SeqSlice& s : plan_->slices) {
    CHECK_GT(s.count, 0);
    CHECK_LE(static_cast<size_t>(s.first_pos) + s.count, s.tokens.size());
    CHECK(s.wanted_begin >= 0 && s.wanted_begin <= s.wanted_end && s.wanted_end <= s.count);
    CHECK(s.sampling == nullptr || s.wanted_end == s.count);
    slices_.push_back({static_cast<int32_t>(tokens_.size()), s.count, s.first_pos});
    wanted_.push_back({s.wanted_begin, s.wanted_end});
    for (int32_t i = 0; i < s.count; ++i) {
      tokens_.push_back(s.tokens[s.first_pos + i]);
      positions_.push_back(s.first_pos + i);
    }
  }
  const Batch batch{tokens_, positions_, slices_, plan_->tables};
  return model_->Forward(batch, wanted_, kv_);
}

SliceResult ModelExecutor::SampleSlice(const SeqSlice& slice, std::span<float> last_row) {
  const SampleContext context{slice.tokens, slice.prompt_tokens, end_of_generation_};
  SliceResult out{.sequence = slice.sequence, .tokens = {}, .error = std::nullopt};
  Result<SampledToken> token = Sample(last_row, *slice.sampling, context, scratch_);
  if (token.ok()) {
    out.tokens.push_back(std::move(*token));
  } else {
    out.error = token.error();
  }
  return out;
}

StepResult ModelExecutor::Collect() {
  CHECK(plan_ != nullptr);
  for (const BlockCopy& copy : plan_->copies) {
    std::memcpy(kv_.block(copy.to), kv_.block(copy.from), kv_.layout->block_bytes);
  }
  const std::span<float> logits = RunForward();
  StepResult result{.step = plan_->step, .slices = {}, .logits = logits};
  const auto vocab = static_cast<size_t>(model_->config().vocab);
  size_t row = 0;
  for (const SeqSlice& s : plan_->slices) {
    row += s.wanted_end - s.wanted_begin;
    if (s.sampling == nullptr) continue;
    CHECK_GT(s.wanted_end, s.wanted_begin);
    result.slices.push_back(SampleSlice(s, logits.subspan((row - 1) * vocab, vocab)));
  }
  plan_ = nullptr;
  return result;
}

}  // namespace kvasir
