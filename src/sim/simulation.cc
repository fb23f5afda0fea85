#include "sim/simulation.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/checked.h"
#include "base/clock.h"

namespace kvasir {
namespace {

/// Does nothing but choose tokens that no other sequence has, and say how long a step would take.
class SimExecutor final : public Executor {
 public:
  SimExecutor(const MachineProfile& machine, int32_t layers) : machine_(machine), layers_(layers) {}

  void Submit(const StepPlan& plan) override { plan_ = &plan; }

  StepResult& Collect() override {
    result_.step = plan_->step;
    result_.slices.clear();
    double tokens = 0, keys = 0, prompt_keys = 0;
    for (const SeqSlice& s : plan_->slices) {
      const double share = s.Share(layers_);
      tokens += share * s.count;
      if (s.count == 1) {
        keys += share * (s.first_pos + 1);
      } else {
        prompt_keys += share * s.count * (s.first_pos + s.count / 2.0);
      }
      if (s.sampling == nullptr) continue;
      SampledToken token;
      token.token = --next_token_;
      result_.slices.push_back(
          {.sequence = s.sequence, .tokens = {token}, .prompt_logprobs = {}, .error = {}});
    }
    seconds_ = machine_.step_s + tokens / machine_.prefill_tokens_per_s + keys * machine_.key_s +
               prompt_keys * machine_.prompt_key_s;
    return result_;
  }

  double seconds() const { return seconds_; }

 private:
  MachineProfile machine_;
  int32_t layers_;
  const StepPlan* plan_ = nullptr;
  int32_t next_token_ = 0;  // below zero: in no prompt
  double seconds_ = 0;
  StepResult result_;
};

class Simulator {
 public:
  Simulator(const std::vector<TraceRequest>& trace, const SimulationOptions& options,
            KvLayout layout, int64_t blocks)
      : trace_(trace),
        options_(options),
        kv_(std::move(layout), static_cast<int32_t>(blocks), options.kv),
        scheduler_(options.scheduler, &kv_),
        executor_(options.machine, kv_.layout().layers()) {
    result_.pool_blocks = blocks;
    result_.requests.resize(trace.size());
    if (options.scheduler.itl_target_s > 0) {
      scheduler_.cost_model().Set(options.machine.step_s, 1 / options.machine.prefill_tokens_per_s,
                                  0);
    }
  }

  SimulationResult Run(const std::function<void(size_t done)>& progress) {
    size_t next = 0;
    while (done_ < trace_.size()) {
      if (options_.sequential) {
        if (Busy() == 0 && next < trace_.size()) {
          now_ = std::max(now_, trace_[next].arrival_s);
          Arrive(next++);
        }
      } else {
        while (next < trace_.size() && trace_[next].arrival_s <= now_) Arrive(next++);
      }
      if (!Step()) {
        if (next >= trace_.size()) break;
        now_ = std::max(now_, trace_[next].arrival_s);
      }
      if (progress) progress(done_);
    }
    Summarize();
    return std::move(result_);
  }

 private:
  size_t Busy() const { return scheduler_.running() + scheduler_.waiting(); }

  void Arrive(size_t index) {
    const TraceRequest& r = trace_[index];
    SimulatedRequest& out = result_.requests[index];
    out.tenant = r.tenant;
    out.arrival_s = options_.sequential ? now_ : r.arrival_s;
    out.prompt_tokens = r.input_tokens;
    // Without chunks a prompt is one slice, and after a preemption with all of its output.
    const int32_t tokens = r.input_tokens + r.output_tokens;
    const int64_t need = kv_.BlocksFor(
        tokens, options_.scheduler.chunked_prefill ? options_.scheduler.max_step_tokens : tokens);
    if (need > kv_.pool().total()) {
      out.refused = true;
      ++result_.refused;
      ++done_;
      return;
    }
    auto s = std::make_unique<Sequence>();
    s->id = index + 1;
    s->tokens = PromptOf(r, index);
    s->prompt_tokens = r.input_tokens;
    s->max_tokens = r.output_tokens;
    s->tenant = s->salt = r.tenant;
    scheduler_.Add(std::move(s), Ns(out.arrival_s));
  }

  static int64_t Ns(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

  bool Step() {
    const int64_t begin = SteadyClock().NowNs();
    const StepPlan& plan = scheduler_.Plan(Ns(now_));
    scheduling_s_ += SecondsBetween(begin, SteadyClock().NowNs());
    if (plan.slices.empty()) return false;
    executor_.Submit(plan);
    StepResult& computed = executor_.Collect();
    now_ += executor_.seconds();
    CountWaste(plan);
    const int64_t commit = SteadyClock().NowNs();
    scheduler_.Measured(executor_.seconds());
    const std::span<const Scheduler::Progress> progress = scheduler_.Commit(computed, Ns(now_));
    scheduling_s_ += SecondsBetween(commit, SteadyClock().NowNs());
    for (const Scheduler::Progress& p : progress) Deliver(*p.sequence, !p.tokens.empty());
    Sample();
    return true;
  }

  void Deliver(const Sequence& s, bool token) {
    if (!token) return;
    const size_t index = s.id - 1;
    SimulatedRequest& out = result_.requests[index];
    if (s.output_tokens() == 1) {
      out.first_token_s = now_;
      out.cached_tokens = s.cached_tokens;
      out.miss = s.miss;
    } else {
      const double gap = now_ - last_token_[index];
      out.longest_itl_s = std::max(out.longest_itl_s, gap);
      result_.itl_s.push_back(static_cast<float>(gap));
    }
    last_token_[index] = now_;
    if (s.output_tokens() < s.max_tokens) return;
    out.finished_s = now_;
    out.output_tokens = s.output_tokens();
    out.preemptions = s.preemptions;
    out.times = scheduler_.TimesUntil(s.id, Ns(now_));
    last_token_.erase(index);
    ++done_;
    scheduler_.Finish(s.id, true);
  }

  /// Slots of used blocks without a token: unfilled tails of what runs (slots that this step fills
  /// are filled) and of cached ends.
  void CountWaste(const StepPlan& plan) {
    if (options_.slot_tokens > 0) {
      double filled = 0;
      for (const SeqSlice& s : plan.slices) filled += s.first_pos + s.count;
      waste_ += 1 - filled / (static_cast<double>(plan.slices.size()) * options_.slot_tokens);
      ++waste_steps_;
      return;
    }
    const int32_t size = kv_.layout().block_tokens;
    const auto groups = static_cast<int64_t>(kv_.layout().groups.size());
    int64_t waste = kv_.index().unfilled_slots();
    for (const SeqSlice& s : plan.slices) {
      const int32_t end = s.first_pos + s.count;
      waste +=
          groups *
          (static_cast<int64_t>(DivUp(static_cast<size_t>(end), static_cast<size_t>(size))) * size -
           end);
    }
    const int64_t used = int64_t{kv_.pool().total() - kv_.pool().free()} * size;
    if (used == 0) return;
    waste_ += static_cast<double>(waste) / static_cast<double>(used);
    ++waste_steps_;
  }

  /// Takes a sample if it is time. Nobody knows how long it all will be: when there are too many,
  /// every second one goes, and the next ones come as seldom as those that stay.
  void Sample() {
    if (now_ < next_sample_) return;
    TakeSample();
    if (result_.samples.size() == kMostSamples) {
      for (size_t i = 1; 2 * i < kMostSamples; ++i)
        result_.samples[i] = std::move(result_.samples[2 * i]);
      result_.samples.resize(kMostSamples / 2);
      // Steps may have been further apart than it asked for.
      sample_every_ = now_ / static_cast<double>(kMostSamples / 2);
    }
    next_sample_ = now_ + sample_every_;
  }

  void TakeSample() {
    const SchedulerCounters& c = scheduler_.counters();
    result_.samples.push_back({.time_s = now_,
                               .waiting = scheduler_.waiting(),
                               .running = scheduler_.running(),
                               .used_blocks = kv_.pool().total() - kv_.pool().free(),
                               .idle_blocks = kv_.index().idle_blocks(),
                               .tenant_blocks = BlocksByTenant(),
                               .hit_rate = c.prompt_tokens == 0
                                               ? 0
                                               : static_cast<double>(c.cached_tokens) /
                                                     static_cast<double>(c.prompt_tokens),
                               .itls = result_.itl_s.size()});
  }

  std::map<uint64_t, int64_t> BlocksByTenant() {
    std::map<uint64_t, int64_t> out;
    std::vector<bool> seen(static_cast<size_t>(kv_.pool().total()));
    scheduler_.Visit([&](const Sequence& s) {
      for (const BlockTable& table : s.kv.tables) {
        const TableView view = table.view();
        for (int32_t i = 0; i < view.count; ++i) {
          const auto block = static_cast<size_t>(view.blocks[i]);
          if (!seen[block]) ++out[s.tenant];
          seen[block] = true;
        }
      }
    });
    return out;
  }

  void Summarize() {
    if (result_.samples.empty() || result_.samples.back().time_s < now_) TakeSample();
    const SchedulerCounters& c = scheduler_.counters();
    result_.prompt_tokens = c.prompt_tokens;
    result_.cached_tokens = c.cached_tokens;
    result_.preemptions = c.preemptions;
    std::copy(std::begin(c.misses), std::end(c.misses), result_.misses);
    result_.evicted_blocks = kv_.index().evicted_blocks();
    result_.steps = c.steps;
    result_.seconds = now_;
    result_.kv_waste_pct = waste_steps_ == 0 ? 0 : 100 * waste_ / static_cast<double>(waste_steps_);
    result_.scheduler_us_per_step =
        c.steps == 0 ? 0 : scheduling_s_ * 1e6 / static_cast<double>(c.steps);
  }

  const std::vector<TraceRequest>& trace_;
  const SimulationOptions& options_;
  KvManager kv_;
  Scheduler scheduler_;
  SimExecutor executor_;
  SimulationResult result_;
  std::unordered_map<size_t, double> last_token_;
  size_t done_ = 0;
  double now_ = 0, next_sample_ = 0, sample_every_ = 0.125, scheduling_s_ = 0, waste_ = 0;
  int64_t waste_steps_ = 0;
};

}  // namespace

Result<SimulationResult> Simulate(const std::vector<TraceRequest>& trace,
                                  const SimulationOptions& options,
                                  const std::function<void(size_t done)>& progress) {
  KV_ASSIGN(KvLayout layout, KvLayout::Create({.window = options.shape.windows,
                                               .kv_heads = options.shape.kv_heads,
                                               .head_dim = options.shape.head_dim,
                                               .block_tokens = options.block_tokens}));
  int64_t blocks = options.pool_blocks;
  if (blocks == 0) {
    for (const TraceRequest& r : trace)
      blocks += (int64_t{r.input_tokens} + r.output_tokens) / options.block_tokens + 3;
    blocks *= static_cast<int64_t>(layout.groups.size());
  }
  if (blocks < 1 || blocks > INT32_MAX) {
    return MakeError(ErrorCode::kInvalid, "a pool of {} blocks; 1 to {} are possible", blocks,
                     INT32_MAX);
  }
  if (options.slot_tokens == 0) {
    return Simulator(trace, options, std::move(layout), blocks).Run(progress);
  }
  SimulationOptions slots = options;
  const int64_t tokens = blocks / static_cast<int64_t>(layout.groups.size()) * options.block_tokens;
  slots.scheduler.max_sequences = static_cast<int32_t>(
      std::clamp<int64_t>(tokens / options.slot_tokens, 1, options.scheduler.max_sequences));
  slots.kv.share_prefixes = false;
  return Simulator(trace, slots, std::move(layout), blocks).Run(progress);
}

std::vector<LatencyBucket> LatencyOverTime(const SimulationResult& result, size_t most) {
  const std::vector<SimulationSample>& samples = result.samples;
  most = std::min(most, samples.size());
  std::vector<LatencyBucket> out(most);
  std::vector<std::vector<float>> ttfts(most);
  // Bucket b ends with the sample at place end(b).
  const auto end = [&](size_t b) { return (b + 1) * samples.size() / most - 1; };
  for (size_t b = 0; b < most; ++b) {
    out[b].begin_s = b == 0 ? 0 : out[b - 1].end_s;
    out[b].end_s = samples[end(b)].time_s;
  }
  for (const SimulatedRequest& q : result.requests) {
    if (q.refused) continue;
    const auto bucket =
        std::lower_bound(out.begin(), out.end(), q.first_token_s,
                         [](const LatencyBucket& b, double at) { return b.end_s < at; });
    if (bucket != out.end())
      ttfts[static_cast<size_t>(bucket - out.begin())].push_back(static_cast<float>(q.ttft_s()));
  }
  size_t first = 0;
  for (size_t b = 0; b < most; ++b) {
    const size_t last = samples[end(b)].itls;
    const std::vector<float> itls(result.itl_s.begin() + static_cast<ptrdiff_t>(first),
                                  result.itl_s.begin() + static_cast<ptrdiff_t>(last));
    first = last;
    out[b].first_tokens = ttfts[b].size();
    out[b].later_tokens = itls.size();
    out[b].ttft_p50 = Percentile(ttfts[b], 50);
    out[b].ttft_p99 = Percentile(ttfts[b], 99);
    out[b].itl_p50 = Percentile(itls, 50);
    out[b].itl_p99 = Percentile(itls, 99);
  }
  return out;
}

int64_t DistinctBlocks(const std::vector<TraceRequest>& trace, int32_t block_tokens) {
  std::unordered_set<int64_t> seen;
  int64_t tokens = 0;
  for (const TraceRequest& r : trace) {
    if (r.pieces.empty()) {
      tokens += r.input_tokens;
      continue;
    }
    for (size_t i = 0; i < r.pieces.size(); ++i) {
      const auto begin = static_cast<int64_t>(i) * kTracePiece;
      if (begin < r.input_tokens && seen.insert(r.pieces[i]).second)
        tokens += std::min<int64_t>(kTracePiece, r.input_tokens - begin);
    }
  }
  return tokens / block_tokens;
}

uint64_t BeladyHits(const std::vector<TraceRequest>& trace, int64_t pool_tokens) {
  // When each use's piece is used next.
  struct Use {
    int64_t piece;
    int32_t tokens;
    size_t next;
  };
  std::vector<std::vector<Use>> uses(trace.size());
  std::unordered_map<int64_t, size_t> later;
  constexpr size_t kNever = SIZE_MAX;
  for (size_t r = trace.size(); r-- > 0;) {
    for (size_t i = 0; i < trace[r].pieces.size(); ++i) {
      const auto begin = static_cast<int64_t>(i) * kTracePiece;
      if (begin >= trace[r].input_tokens) break;
      const auto it = later.find(trace[r].pieces[i]);
      uses[r].push_back(
          {trace[r].pieces[i],
           static_cast<int32_t>(std::min<int64_t>(kTracePiece, trace[r].input_tokens - begin)),
           it == later.end() ? kNever : it->second});
    }
    for (const Use& u : uses[r]) later[u.piece] = r;
  }
  struct Held {
    size_t next;
    int32_t tokens;
  };
  std::unordered_map<int64_t, Held> held;
  std::set<std::pair<size_t, int64_t>> by_next;
  int64_t used = 0;
  uint64_t hits = 0;
  for (size_t r = 0; r < trace.size(); ++r) {
    bool prefix = true;
    for (const Use& u : uses[r]) {
      const auto it = held.find(u.piece);
      if (it != held.end()) {
        if (prefix) hits += std::min(u.tokens, it->second.tokens);
        by_next.erase({it->second.next, u.piece});
        // A conversation that goes on within a piece: what is held of it is longer from here on.
        const int32_t grown = std::max(u.tokens - it->second.tokens, 0);
        prefix = prefix && grown == 0;
        used += grown;
        it->second = {u.next, it->second.tokens + grown};
      } else {
        prefix = false;
        if (u.next == kNever) continue;  // not worth keeping
        used += u.tokens;
        held[u.piece] = {u.next, u.tokens};
      }
      by_next.insert({u.next, u.piece});
      while (used > pool_tokens) {
        const auto last = std::prev(by_next.end());
        used -= held.at(last->second).tokens;
        held.erase(last->second);
        by_next.erase(last);
      }
    }
  }
  return hits;
}

double Percentile(std::vector<float> values, double percent) {
  if (values.empty()) return 0;
  const auto at = std::min(values.size() - 1,
                           static_cast<size_t>(percent / 100 * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

}  // namespace kvasir
