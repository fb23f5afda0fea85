#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir {
namespace {

/// A prompt goes on by at least so many tokens a step, however tight the target: it must end.
constexpr int32_t kLeastPrefill = 8;

/// Pairs of a token and a key for tokens [first, first + count).
double Keys(int32_t first, int32_t count) { return count * (first + (count + 1) / 2.0); }

}  // namespace

Scheduler::Scheduler(SchedulerOptions options, KvManager* kv) : options_(options), kv_(kv) {
  CHECK_GT(options_.max_step_tokens, 0);
  CHECK_GT(options_.max_sequences, 0);
}

Scheduler::~Scheduler() {
  plan_.slices.clear();
  while (!running_.empty()) Finish(running_.back()->id, false);
}

void Scheduler::Enqueue(std::unique_ptr<Sequence> sequence) {
  ++waiting_;
  const WaitKey key{sequence->priority, sequence->arrival};
  waiting_by_tenant_[sequence->tenant].emplace(key, std::move(sequence));
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  CHECK_GT(sequence->prompt_tokens, 0);
  CHECK_EQ(sequence->prompt_tokens, sequence->total());
  CHECK_GT(sequence->weight, 0.0);
  sequence->arrival = ++arrivals_;
  Tenant& tenant = tenants_[sequence->tenant];
  if (tenant.sequences++ == 0) {
    // Whoever was away has no credit for it.
    double least = -1;
    for (const auto& [id, other] : tenants_) {
      if (other.sequences > 0 && id != sequence->tenant && (least < 0 || other.served < least))
        least = other.served;
    }
    tenant.served = std::max(tenant.served, least);
  }
  CHECK(by_id_.emplace(sequence->id, sequence.get()).second);
  Enqueue(std::move(sequence));
}

bool Scheduler::StillWaits(Sequence* s) const {
  if (s->waits_for == 0) return false;
  const auto it = by_id_.find(s->waits_for);
  if (it != by_id_.end() && it->second->kv.id != 0 && it->second->kv.computed < s->waits_until)
    return true;
  s->waits_for = 0;
  return false;
}

bool Scheduler::TryAdmit(Sequence* s) {
  PrefixMatch match = kv_->Match(s->salt, s->tokens);
  if (match.in_flight_tokens > 0) {
    // The nearest block in flight tells who computes it.
    for (const auto& r : running_) {
      const size_t at = match.nodes.size();
      if (r->kv.path.size() > at && !r->kv.path[at]->ready && r->kv.path[at]->writer == r->id &&
          std::equal(r->kv.path[at]->tokens.begin(), r->kv.path[at]->tokens.end(),
                     s->tokens.begin() + static_cast<ptrdiff_t>(at) * kv_->layout().block_tokens) &&
          (at == 0 ? r->salt == s->salt : r->kv.path[at - 1] == match.nodes[at - 1])) {
        s->waits_for = r->id;
        s->waits_until = match.tokens + match.in_flight_tokens;
        return false;
      }
    }
  }
  s->kv = kv_->NewSequence();
  s->kv.id = s->id;
  s->kv.salt = s->salt;
  // Room for the prompt and a block for the output, beside what the running ones will soon take.
  const int64_t total = kv_->BlocksFor(s->total() + 1, options_.max_step_tokens);
  const auto groups = static_cast<int64_t>(kv_->layout().groups.size());
  const int64_t need = total - static_cast<int64_t>(match.nodes.size()) * groups + groups;
  const auto headroom = static_cast<int64_t>(running_.size()) * groups;
  // What the match would take out of the idle blocks is not available any more.
  int64_t taken = 0;
  for (const PrefixNode* node : match.nodes) taken += node->users == 0 ? groups : 0;
  if (!running_.empty() && kv_->available() - taken < need + headroom) return false;
  if (!kv_->Adopt(s->kv, match, s->tokens, counters_.steps, s->tenant)) return false;
  if (s->preemptions == 0) {
    s->cached_tokens = std::min(match.tokens, s->prompt_tokens);
    ++counters_.admitted;
    counters_.prompt_tokens += s->prompt_tokens;
    counters_.cached_tokens += s->cached_tokens;
    ++counters_.misses[static_cast<int>(match.reason)];
    s->miss = match.reason;
    match.nodes.clear();
    match.partial = nullptr;
    s->match = std::move(match);
  }
  return true;
}

void Scheduler::Admit() {
  // The tenants' queues, least served first; each is tried in its order until one does not fit.
  std::vector<std::pair<double, uint64_t>> order;
  for (auto it = waiting_by_tenant_.begin(); it != waiting_by_tenant_.end();) {
    if (it->second.empty()) {
      it = waiting_by_tenant_.erase(it);
      continue;
    }
    order.emplace_back(tenants_[it->first].served, it->first);
    ++it;
  }
  // A higher priority goes before fairness.
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    const int32_t pa = waiting_by_tenant_[a.second].begin()->first.priority;
    const int32_t pb = waiting_by_tenant_[b.second].begin()->first.priority;
    return pa != pb ? pa > pb : a < b;
  });
  bool full = false;
  for (size_t t = 0; t < order.size() && !full; ++t) {
    Queue& queue = waiting_by_tenant_[order[t].second];
    for (auto it = queue.begin(); it != queue.end() && !full;) {
      if (running_.size() >= static_cast<size_t>(options_.max_sequences)) return;
      Sequence* s = it->second.get();
      if (StillWaits(s)) {
        ++it;
        continue;
      }
      if (!TryAdmit(s)) {
        if (s->waits_for != 0) {
          ++it;
          continue;
        }
        full = true;  // nobody overtakes one that waits for room, or it would wait for ever
        break;
      }
      running_.push_back(std::move(it->second));
      it = queue.erase(it);
      --waiting_;
      // With several tenants one each turn, so that a flood does not take all places at once.
      if (order.size() > 1) {
        tenants_[order[t].second].served += 1e-9;
        break;
      }
    }
  }
}

void Scheduler::Preempt(size_t index) {
  std::unique_ptr<Sequence> s = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<ptrdiff_t>(index));
  kv_->Release(s->kv, s->tokens, true);
  s->kv = SequenceKv{};
  ++s->preemptions;
  ++counters_.preemptions;
  Enqueue(std::move(s));  // with its old arrival: before all that came later
}

bool Scheduler::MakeRoom(Sequence* s, int32_t tokens) {
  while (!kv_->Grow(s->kv, tokens, counters_.steps, s->tenant)) {
    // The youngest of the lowest priority that is not part of this step; never an older one, so the
    // oldest always gets on.
    size_t victim = running_.size();
    for (size_t i = running_.size(); i-- > 0;) {
      Sequence* r = running_[i].get();
      if (r == s || r->kv.computed == 0 ||
          std::find(planned_.begin(), planned_.end(), r) != planned_.end())
        continue;
      if (r->priority > s->priority || (r->priority == s->priority && r->arrival < s->arrival))
        continue;
      if (victim == running_.size() || r->priority < running_[victim]->priority ||
          (r->priority == running_[victim]->priority && r->arrival > running_[victim]->arrival)) {
        victim = i;
      }
    }
    if (victim == running_.size()) return false;
    Preempt(victim);
  }
  return true;
}

bool Scheduler::PlanSlice(Sequence* s, int32_t count) {
  if (count == 0 || !MakeRoom(s, s->kv.computed + count)) return false;
  SeqSlice slice{.sequence = s->id,
                 .first_pos = s->kv.computed,
                 .count = count,
                 .tokens = s->tokens,
                 .prompt_tokens = s->prompt_tokens};
  if (count == s->pending()) {
    slice.wanted_begin = count - 1;
    slice.wanted_end = count;
    slice.sampling = &s->sampling;
  }
  plan_.slices.push_back(slice);
  planned_.push_back(s);
  plan_.copies.insert(plan_.copies.end(), s->kv.copies.begin(), s->kv.copies.end());
  return true;
}

int32_t Scheduler::PrefillBudget(int32_t decoding) const {
  const int32_t rows = options_.max_step_tokens - decoding;
  if (decoding == 0 || options_.itl_target_s <= 0 || !cost_.known()) return rows;
  CostModel::Work work;
  for (const SeqSlice& slice : plan_.slices) {
    work.tokens += slice.count;
    work.keys += Keys(slice.first_pos, slice.count);
  }
  double context = 0;
  for (const auto& s : running_) {
    if (s->pending() > 1) {
      context = s->kv.computed;
      break;
    }
  }
  return std::clamp(cost_.TokensWithin(options_.itl_target_s, work, context),
                    std::min(kLeastPrefill, rows), rows);
}

const StepPlan& Scheduler::Plan() {
  ++counters_.steps;
  plan_.step = counters_.steps;
  plan_.slices.clear();
  plan_.tables.clear();
  plan_.copies.clear();
  planned_.clear();
  if (waiting_ > 0) Admit();
  // One token of everybody who decodes. Preempting changes running_, so by index.
  int32_t decoding = 0;
  for (size_t i = 0; i < running_.size() && decoding < options_.max_step_tokens; ++i) {
    Sequence* s = running_[i].get();
    if (s->pending() == 1 && PlanSlice(s, 1)) ++decoding;
  }
  int32_t budget = PrefillBudget(decoding);
  std::vector<Sequence*> prompts;
  for (const auto& s : running_) {
    if (s->pending() > 1) prompts.push_back(s.get());
  }
  if (tenants_.size() > 1) {
    std::stable_sort(prompts.begin(), prompts.end(), [&](const Sequence* a, const Sequence* b) {
      return a->priority != b->priority ? a->priority > b->priority
                                        : tenants_[a->tenant].served < tenants_[b->tenant].served;
    });
  }
  for (Sequence* s : prompts) {
    if (budget <= 0) break;
    // It may have been preempted for one before it.
    if (std::none_of(running_.begin(), running_.end(), [s](const auto& r) { return r.get() == s; }))
      continue;
    const int32_t count = options_.chunked_prefill ? std::min(s->pending(), budget) : s->pending();
    if (PlanSlice(s, count)) budget -= count;
  }
  // Nobody could go on: the oldest gets the room of all others.
  if (plan_.slices.empty() && !running_.empty()) {
    while (running_.size() > 1) {
      size_t youngest = 0;
      for (size_t i = 1; i < running_.size(); ++i) {
        if (running_[i]->arrival > running_[youngest]->arrival) youngest = i;
      }
      Preempt(youngest);
    }
    Sequence* s = running_.front().get();
    CHECK(PlanSlice(s, std::min(s->pending(), options_.chunked_prefill ? options_.max_step_tokens
                                                                       : s->pending())));
  }
  for (size_t g = 0; g < kv_->layout().groups.size(); ++g) {
    for (const Sequence* s : planned_) plan_.tables.push_back(s->kv.tables[g].view());
  }
  return plan_;
}

void Scheduler::Measured(double seconds) {
  CostModel::Work work;
  for (const SeqSlice& slice : plan_.slices) {
    work.tokens += slice.count;
    work.keys += Keys(slice.first_pos, slice.count);
  }
  if (work.tokens > 0) cost_.Learn(work, seconds);
}

std::vector<Scheduler::Progress> Scheduler::Commit(const StepResult& result) {
  CHECK_EQ(result.step, plan_.step);
  std::vector<Progress> progress;
  progress.reserve(plan_.slices.size());
  size_t next = 0;
  for (size_t i = 0; i < plan_.slices.size(); ++i) {
    const SeqSlice& slice = plan_.slices[i];
    Sequence* s = planned_[i];
    kv_->CopiesDone(s->kv);
    Progress p{.sequence = s, .tokens = {}, .error = std::nullopt};
    if (slice.sampling != nullptr) {
      CHECK_LT(next, result.slices.size());
      const SliceResult& r = result.slices[next++];
      CHECK_EQ(r.sequence, slice.sequence);
      p.tokens = r.tokens;
      p.error = r.error;
    }
    const int32_t computed = slice.first_pos + slice.count;
    // Only what was computed and found right is shared.
    if (!p.error) kv_->Publish(s->kv, s->tokens, computed);
    kv_->Advance(s->kv, computed);
    for (const SampledToken& t : p.tokens) s->tokens.push_back(t.token);
    tenants_[s->tenant].served += slice.count / s->weight;
    progress.push_back(std::move(p));
  }
  plan_.slices.clear();
  plan_.tables.clear();
  plan_.copies.clear();
  return progress;
}

void Scheduler::Finish(SequenceId id, bool keep) {
  const auto known = by_id_.find(id);
  if (known == by_id_.end()) return;
  CHECK(plan_.slices.empty());  // between steps only
  Sequence* s = known->second;
  by_id_.erase(known);
  --tenants_[s->tenant].sequences;
  const auto it =
      std::find_if(running_.begin(), running_.end(), [s](const auto& r) { return r.get() == s; });
  if (it == running_.end()) {
    Queue& queue = waiting_by_tenant_[s->tenant];
    queue.erase({s->priority, s->arrival});
    --waiting_;
    return;
  }
  kv_->Release(s->kv, s->tokens, keep);
  running_.erase(it);
}

const Sequence* Scheduler::Find(SequenceId id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second;
}

}  // namespace kvasir
