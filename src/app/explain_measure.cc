#include "app/explain_measure.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "api/compute_probe.h"
#include "backend/cpu/probe.h"
#include "base/check.h"
#include "exec/direct_sequence.h"

namespace kvasir {
namespace {

double Milliseconds(int64_t from_ns, int64_t to_ns) { return SecondsBetween(from_ns, to_ns) * 1e3; }

/// FLOPs of the last layer that a row costs whose logits are wanted, and others do not.
uint64_t LastLayerFlops(const ModelConfig& c, int32_t position) {
  const uint64_t q_dim = static_cast<uint64_t>(c.heads) * c.head_dim;
  const uint64_t dim = c.dim;
  const uint64_t projections = 2 * (dim * q_dim * 2 + 3 * dim * c.ffn_dim);
  const int32_t window = c.window.back();
  const int32_t keys = window == 0 ? position + 1 : std::min(position + 1, window);
  return projections + 4 * q_dim * keys;
}

}  // namespace

double ExplainCost::flop_per_byte() const {
  const uint64_t bytes = bytes_read();
  return bytes == 0 ? 0 : static_cast<double>(flops()) / static_cast<double>(bytes);
}

Explainer::Explainer(LoadedModel* model, std::vector<int32_t> tokens, const Clock* clock,
                     std::function<void(int32_t tokens)> progress)
    : model_(model),
      tokens_(std::move(tokens)),
      clock_(clock),
      progress_(std::move(progress)),
      kv_(model->plan().layout, model->plan().kv_blocks) {
  CHECK(!tokens_.empty());
}

Result<std::vector<float>> Explainer::ComputeTo(DirectSequence* sequence, int32_t to) {
  const int32_t most = model_->max_step_tokens();
  while (sequence->computed() < to) {
    const int32_t count = std::min(most, to - sequence->computed());
    const bool last = sequence->computed() + count == to;
    KV_ASSIGN(const std::span<const float> logits, sequence->Compute(count, last ? 1 : 0));
    if (last) return std::vector<float>(logits.begin(), logits.end());
  }
  return std::vector<float>();
}

Status Explainer::Extend(int32_t count) {
  if (count > model_->plan().context) {
    return MakeError(ErrorCode::kInvalid, "step {} is beyond the context of {} tokens; raise --ctx",
                     count, model_->plan().context);
  }
  DirectSequence sequence(&model_->executor(), &kv_, tokens_);
  while (static_cast<int32_t>(tokens_.size()) < count) {
    KV_ASSIGN(const std::vector<float> logits,
              ComputeTo(&sequence, static_cast<int32_t>(tokens_.size())));
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    tokens_.push_back(static_cast<int32_t>(best));
    sequence.Append(tokens_.back());
    Tell(1);
  }
  return {};
}

Result<ExplainStep> Explainer::Step(int32_t step, const Damage& damage) {
  CHECK(step >= 1 && static_cast<size_t>(step) <= tokens_.size());
  const std::vector<int32_t> tokens(tokens_.begin(), tokens_.begin() + step);
  ExplainStep out;
  out.step = step;
  Backend& backend = model_->backend();

  std::vector<float> cached;
  {
    DirectSequence sequence(&model_->executor(), &kv_, tokens);
    KV_RETURN_IF_ERROR(ComputeTo(&sequence, step - 1));
    Tell(step - 1);
    if (damage) damage(sequence.kv(), model_->kv_storage());
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      if (repeat > 0) sequence.Truncate(step - 1);
      const OpCounters before = backend.counters();
      const int64_t start = clock_->NowNs();
      KV_ASSIGN(const std::span<const float> logits, sequence.Compute(1, 1));
      const double ms = Milliseconds(start, clock_->NowNs());
      cached.assign(logits.begin(), logits.end());
      out.with_cache.counters = backend.counters() - before;
      out.with_cache.ms = repeat == 0 ? ms : std::min(ms, out.with_cache.ms);
      Tell(1);
    }
  }
  std::vector<float> fresh;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    DirectSequence sequence(&model_->executor(), &kv_, tokens);
    const OpCounters before = backend.counters();
    const int64_t start = clock_->NowNs();
    KV_ASSIGN(fresh, ComputeTo(&sequence, step));
    const double ms = Milliseconds(start, clock_->NowNs());
    out.without_cache.counters = backend.counters() - before;
    out.without_cache.ms = repeat == 0 ? ms : std::min(ms, out.without_cache.ms);
    Tell(step);
  }
  CHECK_EQ(cached.size(), fresh.size());
  out.logits_equal = std::memcmp(cached.data(), fresh.data(), fresh.size() * sizeof(float)) == 0;
  return out;
}

Result<ExplainPhases> Explainer::Phases(int32_t count) {
  CHECK(count >= 1 && static_cast<size_t>(count) <= tokens_.size());
  const std::vector<int32_t> tokens(tokens_.begin(), tokens_.begin() + count);
  Backend& backend = model_->backend();
  ExplainPhases out;
  out.tokens = count;
  for (int repeat = 0; repeat < kPhaseRepeats; ++repeat) {
    for (ExplainCost* cost : {&out.prefill, &out.decode}) {
      DirectSequence sequence(&model_->executor(), &kv_, tokens);
      const OpCounters before = backend.counters();
      const int64_t start = clock_->NowNs();
      if (cost == &out.prefill) {
        KV_RETURN_IF_ERROR(ComputeTo(&sequence, count));
      } else {
        while (sequence.computed() < count) KV_RETURN_IF_ERROR(sequence.Compute(1, 1));
      }
      const double ms = Milliseconds(start, clock_->NowNs());
      cost->counters = backend.counters() - before;
      cost->ms = repeat == 0 ? ms : std::min(ms, cost->ms);
      Tell(count);
    }
  }
  for (int32_t position = 0; position + 1 < count; ++position) {
    out.last_layer_flops_skipped += LastLayerFlops(model_->config(), position);
  }
  KV_ASSIGN(out.bandwidth_gb_s, ReadBandwidthProbe(model_->threads(), clock_));
  out.compute_gflop_s = ComputeProbe(model_, clock_);
  return out;
}

}  // namespace kvasir
