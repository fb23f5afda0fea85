#include "exec/model_executor.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace kvasir {

ModelExecutor::ModelExecutor(Model* model, KvStorage kv, std::vector<int32_t> end_of_generation)
    : model_(model),
      kv_(kv),
      end_of_generation_(std::move(end_of_generation)),
      samplers_(static_cast<size_t>(model->backend().threads())) {}

size_t ModelExecutor::ScratchBytes(const ModelConfig& config, const Backend& backend) {
  const auto vocab = static_cast<size_t>(config.vocab);
  return static_cast<size_t>(backend.threads()) *
         (SamplerScratch::Bytes(vocab) + vocab * sizeof(float));
}

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
    CHECK(!s.layered() || &s == &plan_->slices.back());
    slices_.push_back({static_cast<int32_t>(tokens_.size()), s.count, s.first_pos});
    wanted_.push_back({s.wanted_begin, s.wanted_end});
    for (int32_t i = 0; i < s.count; ++i) {
      tokens_.push_back(s.tokens[s.first_pos + i]);
      positions_.push_back(s.first_pos + i);
    }
  }
  const Batch batch{.tokens = tokens_,
                    .positions = positions_,
                    .slices = slices_,
                    .tables = plan_->tables,
                    .table_slices = 0};
  const SeqSlice& last = plan_->slices.back();
  if (last.layered()) held_.Pass(last);
  return model_->Forward(batch, wanted_, kv_, {last.first_layer, last.layers});
}

void ModelExecutor::SampleSlice(const SeqSlice& slice, std::span<float> rows, Sampler* with,
                                SliceResult* out) const {
  out->sequence = slice.sequence;
  out->tokens.clear();
  out->prompt_logprobs.clear();
  out->error.reset();
  const auto vocab = static_cast<size_t>(model_->config().vocab);
  if (slice.prompt_logprobs >= 0) {
    for (int32_t i = slice.wanted_begin; i < slice.wanted_end; ++i) {
      const int32_t next = slice.first_pos + i + 1;
      if (next >= slice.prompt_tokens) break;
      const auto row = rows.subspan(static_cast<size_t>(i - slice.wanted_begin) * vocab, vocab);
      Result<SampledToken> scored =
          Score(row, slice.tokens[next], slice.prompt_logprobs, with->scratch);
      if (!scored.ok()) {
        out->error = scored.error();
        return;
      }
      out->prompt_logprobs.push_back(std::move(*scored));
    }
  }
  if (slice.sampling == nullptr) return;
  const SampleContext context{slice.tokens, slice.prompt_tokens, end_of_generation_};
  const std::span<float> last = rows.last(vocab);
  const auto sample = [&](const SamplingParams& params) {
    Result<SampledToken> token = Sample(last, params, context, with->scratch);
    if (token.ok()) {
      out->tokens.push_back(std::move(*token));
    } else {
      out->error = token.error();
    }
    return token.ok();
  };
  // Sampling changes the logits.
  if (slice.samples > 1) with->logits.assign(last.begin(), last.end());
  if (!sample(*slice.sampling) || slice.samples == 1) return;
  SamplingParams params = *slice.sampling;
  for (int32_t i = 1; i < slice.samples; ++i) {
    ++params.stream;
    std::copy(with->logits.begin(), with->logits.end(), last.begin());
    if (!sample(params)) return;
  }
}

void ModelExecutor::SampleSlices(std::span<float> logits) {
  const auto vocab = static_cast<size_t>(model_->config().vocab);
  sampled_.clear();
  size_t row = 0;
  for (const SeqSlice& s : plan_->slices) {
    const auto wanted = static_cast<size_t>(s.wanted_end - s.wanted_begin);
    const std::span<float> rows = logits.subspan(row * vocab, wanted * vocab);
    row += wanted;
    if (!s.has_result()) continue;
    CHECK(s.sampling == nullptr || wanted > 0);
    sampled_.push_back({&s, rows});
  }
  result_.slices.resize(sampled_.size());
  std::atomic<size_t> next{0};
  const auto work = [&](int worker) {
    for (size_t i = next++; i < sampled_.size(); i = next++)
      SampleSlice(*sampled_[i].slice, sampled_[i].rows, &samplers_[worker], &result_.slices[i]);
  };
  if (sampled_.size() > 1) {
    model_->backend().OnThreads(work);
  } else {
    work(0);
  }
}

StepResult& ModelExecutor::Collect() {
  CHECK(plan_ != nullptr);
  const StepScope step(&model_->backend());
  for (const BlockCopy& copy : plan_->copies) {
    std::memcpy(kv_.block(copy.to), kv_.block(copy.from), kv_.layout->block_bytes);
  }
  const OpCounters before = model_->backend().counters();
  const std::span<float> logits = RunForward();
  const OpCounters work = model_->backend().counters() - before;
  result_.step = plan_->step;
  result_.work = {.flops = work.matmul_flops + work.attention_flops,
                  .bytes_read = work.weight_bytes + work.kv_bytes_read};
  result_.logits = logits;
  SampleSlices(logits);
  result_.not_finite.clear();
  result_.error.reset();
  for (size_t i = 0; i < slices_.size(); ++i) {
    const auto rows = model_->not_finite().subspan(slices_[i].first_row, slices_[i].rows);
    if (std::any_of(rows.begin(), rows.end(), [](uint8_t bad) { return bad != 0; }))
      result_.not_finite.push_back(plan_->slices[i].sequence);
  }
  plan_ = nullptr;
  return result_;
}

}  // namespace kvasir
