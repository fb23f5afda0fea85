#include "app/bench_batch.h"

#include <algorithm>
#include <limits>

#include "api/compute_probe.h"
#include "backend/cpu/probe.h"
#include "base/rng.h"
#include "exec/direct_sequence.h"

namespace kvasir {
namespace {

std::vector<int32_t> RandomTokens(const LoadedModel& model, int32_t count, uint64_t seed) {
  const RandomStream stream{seed, 0};
  const double vocab = model.tokenizer().vocab_size();
  std::vector<int32_t> out;
  for (int32_t i = 0; i < count; ++i)
    out.push_back(static_cast<int32_t>(stream.Uniform(static_cast<uint64_t>(i)) * vocab));
  return out;
}

/// Counts and times of steps with and without prompt tokens, seen from outside the executor.
class StepMeter final : public Executor {
 public:
  explicit StepMeter(LoadedModel* model) : model_(model) {}

  struct Phase {
    int64_t tokens = 0;
    double seconds = 0;
    OpCounters work;
  };
  Phase prompt, decode;

  void Submit(const StepPlan& plan) override {
    has_prompt_ = false;
    for (const SeqSlice& s : plan.slices) {
      if (s.first_pos < s.prompt_tokens) has_prompt_ = true;
    }
    Phase& phase = has_prompt_ ? prompt : decode;
    for (const SeqSlice& s : plan.slices) {
      if (!has_prompt_ || s.first_pos < s.prompt_tokens) phase.tokens += s.count;
    }
    before_ = model_->backend().counters();
    begin_ns_ = SteadyClock().NowNs();
    model_->executor().Submit(plan);
  }

  StepResult& Collect() override {
    StepResult& result = model_->executor().Collect();
    Phase& phase = has_prompt_ ? prompt : decode;
    phase.seconds += SecondsBetween(begin_ns_, SteadyClock().NowNs());
    phase.work += model_->backend().counters() - before_;
    return result;
  }

 private:
  LoadedModel* model_;
  bool has_prompt_ = false;
  OpCounters before_;
  int64_t begin_ns_ = 0;
};

double Rate(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

/// Computes `tokens` of output of each of the prompts of a row.
Status Serve(Engine* engine, const LoadedModel& model, const BatchBenchOptions& o, int32_t batch,
             int32_t tokens) {
  for (int32_t i = 0; i < batch; ++i) {
    Request r{.prompt = RandomTokens(model, o.pp, o.shared_prompt ? 1 : 1 + i),
              .max_tokens = tokens};
    r.stop.end_of_generation = false;
    r.sampling.ignore_eos = true;
    KV_RETURN_IF_ERROR(engine->Submit(std::move(r)));
  }
  std::vector<Event> events;
  while (engine->Step(&events)) {
    for (const Event& e : events) {
      if (e.kind == Event::Kind::kFinished && e.reason == FinishReason::kError)
        return MakeError(ErrorCode::kInvalid, "{}", e.error);
    }
    events.clear();
  }
  return {};
}

Result<BatchBenchRow> RunRow(LoadedModel* model, const BatchBenchOptions& o, int32_t batch) {
  StepMeter meter(model);
  Engine engine({.context = model->plan().context,
                 .max_step_tokens = model->max_step_tokens(),
                 .max_sequences = batch},
                model->plan().layout, model->plan().kv_blocks, &meter, &model->tokenizer(),
                &SteadyClock());
  // One token more than is decoded: the first comes with the prompt.
  KV_RETURN_IF_ERROR(Serve(&engine, *model, o, batch, o.tg + 1));
  BatchBenchRow row{.pp = o.pp, .tg = o.tg, .batch = batch};
  row.kv_tokens = int64_t{o.shared_prompt ? 1 : batch} * o.pp + int64_t{batch} * o.tg;
  row.pp_s = meter.prompt.seconds;
  row.tg_s = meter.decode.seconds;
  // A shared prompt counts as often as it is asked for, as in llama-batched-bench.
  const int64_t prompt = o.shared_prompt ? int64_t{o.pp} * batch : meter.prompt.tokens;
  row.pp_tok_s = Rate(static_cast<double>(prompt), row.pp_s);
  row.tg_tok_s = Rate(static_cast<double>(meter.decode.tokens), row.tg_s);
  const OpCounters& p = row.pp_work = meter.prompt.work;
  const OpCounters& d = row.tg_work = meter.decode.work;
  row.pp_limit_pct = Rate(static_cast<double>(p.matmul_flops + p.attention_flops), row.pp_s);
  row.tg_limit_pct = Rate(static_cast<double>(d.weight_bytes + d.kv_bytes_read), row.tg_s);
  if (o.again) {
    const int64_t begin = SteadyClock().NowNs();
    KV_RETURN_IF_ERROR(Serve(&engine, *model, o, batch, 1));
    row.again_s = SecondsBetween(begin, SteadyClock().NowNs());
  }
  return row;
}

}  // namespace

Result<std::vector<BatchBenchRow>> RunBatchBench(
    LoadedModel* model, const BatchBenchOptions& options,
    const std::function<void(const BatchBenchRow&)>& on_row) {
  KV_ASSIGN(const double bandwidth, ReadBandwidthProbe(model->threads(), &SteadyClock()));
  const double compute = ComputeProbe(model, &SteadyClock());
  std::vector<BatchBenchRow> out;
  for (const int32_t batch : options.batches) {
    KV_ASSIGN(BatchBenchRow row, RunRow(model, options, batch));
    row.pp_limit_pct = Rate(100 * row.pp_limit_pct, compute * 1e9);
    row.tg_limit_pct = Rate(100 * row.tg_limit_pct, bandwidth * 1e9);
    out.push_back(row);
    on_row(row);
  }
  return out;
}

Result<MachineProfile> MeasureProfile(LoadedModel* model) {
  constexpr int kRepeats = 3;
  const int32_t chunk = std::min(model->max_step_tokens(), model->plan().context / 4);
  const int32_t context = std::min(model->plan().context - chunk - 1, 8 * chunk);
  if (chunk < 2 || context < chunk)
    return MakeError(ErrorCode::kInvalid, "a profile needs a context of 64 tokens; raise --ctx");
  KvManager kv(model->plan().layout, model->plan().kv_blocks);
  // Seconds of a slice of `count` tokens after `before` tokens.
  const auto measure = [&](int32_t before, int32_t count) -> Result<double> {
    DirectSequence s(&model->executor(), &kv, RandomTokens(*model, before + count, 7));
    while (s.computed() < before)
      KV_RETURN_IF_ERROR(s.Compute(std::min(chunk, before - s.computed()), 0));
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kRepeats; ++i) {
      if (i > 0) s.Truncate(before);
      const int64_t begin = SteadyClock().NowNs();
      KV_RETURN_IF_ERROR(s.Compute(count, 1));
      best = std::min(best, SecondsBetween(begin, SteadyClock().NowNs()));
    }
    return best;
  };
  KV_ASSIGN(const double one, measure(0, 1));
  KV_ASSIGN(const double many, measure(0, chunk));
  KV_ASSIGN(const double one_far, measure(context, 1));
  KV_ASSIGN(const double many_far, measure(context, chunk));
  MachineProfile p;
  p.step_s = one;
  p.prefill_tokens_per_s = (chunk - 1) / std::max(many - one, 1e-9);
  p.key_s = std::max(0.0, one_far - one) / context;
  p.prompt_key_s = std::max(0.0, many_far - many) / (static_cast<double>(chunk) * context);
  return p;
}

}  // namespace kvasir
