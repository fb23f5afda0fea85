#include "sched/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace kvasir {
namespace {

/// While prompts are computed under a target, every so many steps one only decodes, so that what
/// decoding costs by now is measured and not carried forward from when the prompts came.
constexpr int32_t kDecodeOnlyEvery = 16;

/// Where less of a prompt than this fits into a step, so that the keys before it would be read for
/// few tokens, a larger chunk is computed some layers a step; so many that this many layers fit.
constexpr int32_t kLeastChunk = 16;
constexpr double kLayersAStep = 2;

/// Full steps of which a tenant may have the tokens before others, for having asked for less.
constexpr double kCreditSteps = 8;

/// Of all its tables; what others share with it is counted too.
int64_t BlocksOf(const SequenceKv& kv) {
  int64_t blocks = 0;
  for (const BlockTable& table : kv.tables) blocks += table.size();
  return blocks;
}

/// Pairs of a token and a key for tokens [first, first + count).
double Keys(int32_t first, int32_t count) { return count * (first + (count + 1) / 2.0); }

}  // namespace

Scheduler::Scheduler(SchedulerOptions options, KvManager* kv) : options_(options), kv_(kv) {
  CHECK_GT(options_.max_step_tokens, 0);
  CHECK_GT(options_.max_sequences, 0);
  CHECK_GE(options_.max_logit_rows, options_.max_sequences);
}

Scheduler::~Scheduler() {
  plan_.slices.clear();
  while (!running_.empty()) Finish(running_.back()->id, false);
}

void Scheduler::SetTenant(uint64_t tenant, const TenantOptions& options) {
  CHECK_GT(options.weight, 0.0);
  tenants_[tenant].options = options;
}

/// Where a tenant of which nobody waited begins at least: a few steps before the one that was
/// served least of those of which somebody waits, or where the last of these stood. So the credit
/// for having wanted less than its share is bounded, and nobody owes for having had the machine
/// alone. Without any credit (Sheng et al., Fairness in Serving Large Language Models, 2024,
/// algorithm 2) a flood makes the p99 of the others' time to first token 464 ms, with it 230,
/// without the flood 184 (the flood of simulation_test.cc, 2026-11-28).
double Scheduler::Beginning(const Tenant& tenant) const {
  double least = -1;
  for (const auto& [id, queue] : waiting_by_tenant_) {
    if (queue.empty()) continue;
    const double served = tenants_.at(id).served;
    if (least < 0 || served < least) least = served;
  }
  if (least < 0) return last_served_;
  return least - kCreditSteps * options_.max_step_tokens / tenant.options.weight;
}

/// One of a tenant's sequences waits no more.
void Scheduler::Dequeued(uint64_t tenant) {
  --waiting_;
  if (waiting(tenant) == 0) last_served_ = tenants_[tenant].served;
}

void Scheduler::Enqueue(std::unique_ptr<Sequence> sequence) {
  ++waiting_;
  sequence->waits_since = counters_.steps;
  const WaitKey key{sequence->priority, sequence->arrival, sequence->id};
  waiting_by_tenant_[sequence->tenant].emplace(key, std::move(sequence));
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence, int64_t now_ns) {
  CHECK_GT(sequence->prompt_tokens, 0);
  CHECK_EQ(sequence->prompt_tokens, sequence->total());
  CHECK(sequence->places >= 1 && sequence->places <= options_.max_sequences);
  CHECK_GE(sequence->samples, 1);
  sequence->arrival = ++arrivals_;
  sequence->since_ns = now_ns;
  Tenant& tenant = tenants_[sequence->tenant];
  if (waiting(sequence->tenant) == 0) tenant.served = std::max(tenant.served, Beginning(tenant));
  CHECK(by_id_.emplace(sequence->id, sequence.get()).second);
  Enqueue(std::move(sequence));
}

void Scheduler::Fork(SequenceId parent_id, std::unique_ptr<Sequence> child) {
  CHECK(plan_.slices.empty());
  Sequence* parent = by_id_.at(parent_id);
  CHECK_GE(child->total(), parent->kv.computed);
  if (parent->places > 1) SetPlaces(parent_id, parent->places - 1);
  child->arrival = parent->arrival;
  child->waited_steps = parent->waited_steps;
  child->admitted_step = parent->admitted_step;
  child->since_ns = parent->since_ns;
  child->times = parent->times;
  child->tenant = parent->tenant;
  child->salt = parent->salt;
  child->priority = parent->priority;
  child->cached_tokens = parent->cached_tokens;
  child->miss = parent->miss;
  child->match = parent->match;
  child->preemptions = parent->preemptions;
  CHECK(by_id_.emplace(child->id, child.get()).second);
  const bool running = parent->kv.id != 0;
  if (!running || running_.size() >= static_cast<size_t>(options_.max_sequences)) {
    // There is nothing to share, or nowhere to run, until it is admitted with what the index finds.
    child->preemptions += running ? 1 : 0;
    Enqueue(std::move(child));
    return;
  }
  child->kv = kv_->Fork(parent->kv, child->id);
  places_ += child->places;
  running_.push_back(std::move(child));
}

void Scheduler::SetPlaces(SequenceId id, int32_t places) {
  CHECK(plan_.slices.empty());
  CHECK(places >= 1 && places <= options_.max_sequences);
  Sequence* s = by_id_.at(id);
  // They may now be more than there are: what a preempted sequence kept is taken by others by now.
  // Nobody is admitted until they are fewer again.
  if (s->kv.id != 0) places_ += places - s->places;
  s->places = places;
}

void Scheduler::Append(SequenceId id, int32_t token) {
  CHECK(plan_.slices.empty());
  Sequence* s = by_id_.at(id);
  CHECK(s->chosen_outside);
  s->tokens.push_back(token);
}

void Scheduler::AccountWaiting(Sequence* s) {
  const double seconds = static_cast<double>(now_ns_ - s->since_ns) * 1e-9;
  s->since_ns = now_ns_;
  double& cause = s->preemptions > 0  ? s->times.preempted
                  : s->waits_for != 0 ? s->times.prefix
                                      : s->times.queue;
  cause += seconds;
}

/// Its tenant's quota had no room for it in the last step.
bool Scheduler::Refused(const Sequence& s) const {
  return s.refused_step != 0 && s.refused_step + 1 >= counters_.steps;
}

/// By its own tenant's quota, for which another tenant's sequence need not wait.
bool Scheduler::HeldUp(const Sequence& writer, const Sequence& waiting) const {
  return writer.tenant != waiting.tenant && Refused(writer);
}

bool Scheduler::StillWaits(Sequence* s) {
  if (s->waits_for == 0) return false;
  const auto it = by_id_.find(s->waits_for);
  if (it != by_id_.end() && it->second->kv.id != 0 && it->second->kv.computed < s->waits_until &&
      !HeldUp(*it->second, *s))
    return true;
  AccountWaiting(s);
  s->waits_for = 0;
  return false;
}

bool Scheduler::WaitsForPrefix(Sequence* s, const PrefixMatch& match) {
  if (match.in_flight_tokens == 0 || s->prompt_logprobs >= 0) return false;
  // The nearest block in flight tells who computes it.
  for (const auto& r : running_) {
    const size_t at = match.nodes.size();
    if (r->kv.path.size() > at && !r->kv.path[at]->ready && r->kv.path[at]->writer == r->id &&
        std::equal(r->kv.path[at]->tokens.begin(), r->kv.path[at]->tokens.end(),
                   s->tokens.begin() + static_cast<ptrdiff_t>(at) * kv_->layout().block_tokens) &&
        (at == 0 ? r->salt == s->salt : r->kv.path[at - 1] == match.nodes[at - 1])) {
      if (HeldUp(*r, *s)) return false;
      AccountWaiting(s);
      s->waits_for = r->id;
      // Or those in between would go before this one, too.
      r->priority = std::max(r->priority, s->priority);
      // As far as it computes them: behind its own there may be another's.
      size_t end = at;
      while (end < r->kv.path.size() && !r->kv.path[end]->ready && r->kv.path[end]->writer == r->id)
        ++end;
      s->waits_until = std::min(match.tokens + match.in_flight_tokens,
                                static_cast<int32_t>(end) * kv_->layout().block_tokens);
      return true;
    }
  }
  return false;
}

/// Blocks that its output will still take, if it is as long as outputs were lately. What is too
/// little costs preemptions, what is too much leaves room unused.
int64_t Scheduler::ExpectedGrowth(const Sequence& s) const {
  const double left = std::min<double>(s.max_tokens - s.output_tokens(),
                                       std::max(0.0, mean_output_ - s.output_tokens()));
  const auto blocks = 1 + static_cast<int64_t>(left) / kv_->layout().block_tokens;
  int64_t growing = 0;  // groups; those with a window give back what they take
  for (const KvGroup& group : kv_->layout().groups) growing += group.window == 0 ? blocks : 1;
  return growing * s.places;
}

/// Blocks that what is left of a running prompt will take: promised when it was admitted.
int64_t Scheduler::RestOfPrompt(const Sequence& s) const {
  if (s.pending() <= 1) return 0;
  return std::max<int64_t>(0, kv_->BlocksFor(s.total(), MostSlice(s.total())) - BlocksOf(s.kv));
}

/// Blocks that a tenant's running sequences hold, what they share counted once.
int64_t Scheduler::CountBlocks(uint64_t tenant) {
  seen_.resize(static_cast<size_t>(kv_->pool().total()));
  ++count_;
  int64_t held = 0;
  for (const auto& r : running_) {
    if (r->tenant != tenant) continue;
    for (const BlockTable& table : r->kv.tables) {
      const TableView view = table.view();
      for (int32_t i = 0; i < view.count; ++i)
        held += std::exchange(seen_[static_cast<size_t>(view.blocks[i])], count_) != count_ ? 1 : 0;
    }
  }
  return held;
}

/// True if the tenant's quota allows so many blocks more. Each block is looked at only where the
/// sum of all tables would be too much, and once for all that ask before something changes.
bool Scheduler::WithinQuota(uint64_t id, int64_t more) {
  Tenant& tenant = tenants_[id];
  if (tenant.options.kv_blocks == 0) return true;
  if (tenant.counted != kv_->changes()) {
    tenant.counted = kv_->changes();
    tenant.exact = false;
    tenant.held = 0;
    for (const auto& r : running_) {
      if (r->tenant == id) tenant.held += BlocksOf(r->kv);
    }
  }
  if (tenant.held + more > tenant.options.kv_blocks && !tenant.exact) {
    tenant.held = CountBlocks(id);
    tenant.exact = true;
  }
  return tenant.held + more <= tenant.options.kv_blocks;
}

/// True if the tenant's quota allows a sequence that wants so many blocks, of which it would share
/// those of `match`. One alone may have what it needs.
bool Scheduler::MayHold(const Sequence& s, const PrefixMatch& match, int64_t wanted) {
  if (WithinQuota(s.tenant, wanted)) return true;
  // All that it could share, before each block is looked at.
  int64_t shared = 0;
  kv_->VisitShared(match, [&](const PrefixNode&, size_t) { ++shared; });
  const Tenant& tenant = tenants_[s.tenant];
  if (tenant.held > 0 && tenant.held + wanted - shared > tenant.options.kv_blocks) return false;
  const int64_t held = CountBlocks(s.tenant);
  shared = 0;
  kv_->VisitShared(match, [&](const PrefixNode& node, size_t group) {
    shared += seen_[static_cast<size_t>(node.blocks[group].id())] == count_ ? 1 : 0;
  });
  return held == 0 || held + wanted - shared <= tenant.options.kv_blocks;
}

/// Preempts one of the tenant's sequences for one that its quota keeps out, if none of them can go
/// on: they wait for a choice that this one's own tokens may be needed for, or for such sequences'
/// blocks. Else all would wait for each other as long as other tenants keep the steps busy.
bool Scheduler::GiveWay(const Sequence& s) {
  Sequence* youngest = nullptr;
  for (const auto& r : running_) {
    if (r->tenant != s.tenant) continue;
    if (r->pending() > 0 && (!Refused(*r) || r->OlderThan(s))) return false;
    if (youngest == nullptr || youngest->OlderThan(*r)) youngest = r.get();
  }
  if (youngest == nullptr) return false;
  Preempt(youngest);
  return true;
}

Scheduler::Admission Scheduler::TryAdmit(Sequence* s) {
  int64_t headroom = 0;
  for (const auto& r : running_) headroom += ExpectedGrowth(*r) + RestOfPrompt(*r);
  const int64_t growth = ExpectedGrowth(*s);
  // However much of it is cached: looking for that takes long where it is much.
  if (!running_.empty() && kv_->available() < growth + headroom) return Admission::kNoRoom;
  // Logits that are wanted of the prompt must be computed, whatever is cached.
  PrefixMatch match = kv_->Match(s->salt, s->tokens,
                                 s->prompt_logprobs >= 0 && s->logprobs_done < s->prompt_tokens - 1
                                     ? s->logprobs_done
                                     : INT32_MAX);
  if (WaitsForPrefix(s, match)) return Admission::kWaitsForPrefix;
  s->kv = kv_->NewSequence();
  s->kv.id = s->id;
  s->kv.salt = s->salt;
  s->kv.tenant = s->tenant;
  // Room for the prompt and a block for the output, beside what the running ones will soon take.
  const int64_t total = kv_->BlocksFor(s->total() + 1, MostSlice(s->total()));
  const auto groups = static_cast<int64_t>(kv_->layout().groups.size());
  // Of groups with a window no more than it is shared, but counting just that admits so few that
  // the same work takes up to twice the steps: what is too little here costs preemptions, and less.
  const int64_t need = total - static_cast<int64_t>(match.nodes.size()) * groups + growth;
  // What the match would take out of the idle blocks is not available any more.
  int64_t taken = 0;
  for (const PrefixNode* node : match.nodes) taken += node->users == 0 ? groups : 0;
  const auto refuse = [s](Admission why) {
    s->kv = SequenceKv{};
    return why;
  };
  if (!running_.empty() && kv_->available() - taken < need + headroom)
    return refuse(Admission::kNoRoom);
  if (!MayHold(*s, match, total + groups * s->places)) return refuse(Admission::kOverQuota);
  if (!kv_->Adopt(s->kv, match, s->tokens, counters_.steps)) {
    // No room for a copy of the last block's beginning beside the original, which is held until the
    // copy is made: whole blocks only, or a prompt that fills the pool would wait for ever.
    const auto whole = static_cast<int32_t>(match.nodes.size()) * kv_->layout().block_tokens;
    match = kv_->Match(s->salt, s->tokens, whole);
    if (!kv_->Adopt(s->kv, match, s->tokens, counters_.steps)) return refuse(Admission::kNoRoom);
  }
  AccountWaiting(s);
  s->waited_steps += counters_.steps - s->waits_since;
  s->served_step = counters_.steps;
  if (s->preemptions == 0) {
    s->cached_tokens = std::min(match.tokens, s->prompt_tokens);
    ++counters_.admitted;
    counters_.prompt_tokens += s->prompt_tokens;
    counters_.cached_tokens += s->cached_tokens;
    ++counters_.misses[static_cast<int>(match.reason)];
    s->miss = match.reason;
    s->admitted_step = counters_.steps;
    match.nodes.clear();
    match.partial = nullptr;
    s->match = std::move(match);
  }
  return Admission::kAdmitted;
}

void Scheduler::RaiseOld() {
  int32_t top = INT32_MIN;
  for (const auto& [tenant, queue] : waiting_by_tenant_) {
    if (!queue.empty()) top = std::max(top, queue.begin()->first.priority);
  }
  for (auto& [tenant, queue] : waiting_by_tenant_) {
    for (auto it = queue.begin(); it != queue.end();) {
      // Of a priority, those that ran before come first; of the others the first waits longest.
      Sequence* s = it->second.get();
      if (s->preemptions > 0) {
        ++it;
      } else {
        it = queue.upper_bound({s->priority, UINT64_MAX, UINT64_MAX});
      }
      if (s->priority == top || s->waited_steps + counters_.steps - s->waits_since <
                                    static_cast<uint64_t>(options_.max_wait_steps))
        continue;
      auto node = queue.extract({s->priority, s->arrival, s->id});
      node.key().priority = s->priority = top;
      queue.insert(std::move(node));
    }
  }
}

/// Admits the first of a tenant's queue, from `at` on, that can be. What is refused for a reason of
/// its tenant's own is passed over.
Scheduler::Admission Scheduler::AdmitNext(Queue& queue, Queue::iterator* at) {
  while (*at != queue.end()) {
    Sequence* s = (*at)->second.get();
    if (places_ + s->places > options_.max_sequences) return Admission::kNoRoom;
    if (s->waits_for_choice() || StillWaits(s)) {
      ++*at;
      continue;
    }
    const Admission admission = TryAdmit(s);
    if (admission == Admission::kWaitsForPrefix) {
      ++*at;
      continue;
    }
    if (admission == Admission::kOverQuota && GiveWay(*s)) continue;
    if (admission != Admission::kAdmitted) return admission;
    Tenant& tenant = tenants_[s->tenant];
    tenant.last_admitted = ++admissions_;
    places_ += s->places;
    running_.push_back(std::move((*at)->second));
    *at = queue.erase(*at);
    Dequeued(s->tenant);
    return Admission::kAdmitted;
  }
  return Admission::kWaitsForPrefix;
}

/// One of each tenant in turn, so that a flood does not take all places at once, until nobody waits
/// who can be admitted. A higher priority goes before that, then who was served least.
void Scheduler::Admit() {
  RaiseOld();
  std::erase_if(waiting_by_tenant_, [](const auto& entry) { return entry.second.empty(); });
  struct Turn {
    int32_t admitted = 0;
    Tenant* tenant;
    Queue* queue;
    Queue::iterator at;
  };
  std::vector<Turn> turns;
  for (auto& [id, queue] : waiting_by_tenant_)
    turns.push_back({0, &tenants_[id], &queue, queue.begin()});
  const auto before = [](const Turn& a, const Turn& b) {
    const int32_t pa = a.at->first.priority, pb = b.at->first.priority;
    if (pa != pb) return pa > pb;
    if (a.admitted != b.admitted) return a.admitted < b.admitted;
    if (a.tenant->served != b.tenant->served) return a.tenant->served < b.tenant->served;
    return a.tenant->last_admitted < b.tenant->last_admitted;
  };
  while (!turns.empty()) {
    const auto next = std::min_element(turns.begin(), turns.end(), before);
    const Admission admission = AdmitNext(*next->queue, &next->at);
    // Nobody overtakes one that waits for room, or it would wait for ever.
    if (admission == Admission::kNoRoom) return;
    ++next->admitted;
    if (admission != Admission::kAdmitted || next->at == next->queue->end()) turns.erase(next);
  }
}

void Scheduler::Preempt(Sequence* victim) {
  const auto it = std::find_if(running_.begin(), running_.end(),
                               [victim](const auto& r) { return r.get() == victim; });
  std::unique_ptr<Sequence> s = std::move(*it);
  running_.erase(it);
  places_ -= s->places;
  kv_->Release(s->kv, s->tokens, true);
  s->kv = SequenceKv{};
  s->layered = s->layers_done = 0;
  ++s->preemptions;
  ++counters_.preemptions;
  Enqueue(std::move(s));  // with its old arrival: before all that came later
}

/// The youngest of the lowest priority that is not part of this step and gives blocks back; never
/// an older one, so the oldest always gets on. Where all that each holds is shared, the youngest of
/// them: then another may be left alone with it, or write into it without a copy.
Sequence* Scheduler::Victim(const Sequence& s, bool same_tenant) const {
  Sequence* victim = nullptr;
  bool frees = false;
  for (const auto& r : running_) {
    if (r.get() == &s || r->slice >= 0 || r->kv.computed == 0 ||
        (same_tenant && r->tenant != s.tenant))
      continue;
    if (r->priority > s.priority || (r->priority == s.priority && r->OlderThan(s))) continue;
    const bool alone = kv_->HoldsAlone(r->kv);
    if (victim != nullptr && frees && !alone) continue;
    if (victim != nullptr && frees == alone &&
        (r->priority > victim->priority ||
         (r->priority == victim->priority && r->OlderThan(*victim))))
      continue;
    victim = r.get();
    frees = alone;
  }
  return victim;
}

bool Scheduler::MakeQuota(Sequence* s, int32_t tokens) {
  if (tenants_[s->tenant].options.kv_blocks == 0) return true;
  for (;;) {
    const int64_t wanted = kv_->BlocksToGrow(s->kv, tokens);
    if (wanted == 0 || WithinQuota(s->tenant, wanted)) return true;
    if (tenants_[s->tenant].held == BlocksOf(s->kv)) return true;
    Sequence* victim = Victim(*s, true);
    if (victim == nullptr) {
      s->refused_step = counters_.steps;
      return false;
    }
    Preempt(victim);
  }
}

bool Scheduler::MakeRoom(Sequence* s, int32_t tokens) {
  if (!MakeQuota(s, tokens)) return false;
  for (;;) {
    const int64_t wanted = kv_->BlocksToGrow(s->kv, tokens);
    if (kv_->Grow(s->kv, tokens, counters_.steps)) {
      tenants_[s->tenant].held += wanted;
      return true;
    }
    Sequence* victim = Victim(*s, false);
    if (victim == nullptr) return false;
    Preempt(victim);
  }
}

/// `layers`: how many of those that are left; 0: all. What was begun in layers goes on in them.
bool Scheduler::PlanSlice(Sequence* s, int32_t count, int32_t layers) {
  if (s->layered > 0) count = s->layered;
  const bool wants_prompt = s->prompt_logprobs >= 0 && s->logprobs_done < s->prompt_tokens - 1;
  if (wants_prompt) {
    // Its rows' logits are as many as the step has room for.
    const int32_t before = std::max(0, s->logprobs_done - s->kv.computed);
    const auto others = static_cast<int32_t>(running_.size() - planned_.size()) - 1;
    count = std::min(count, before + options_.max_logit_rows - logit_rows_ - others);
  }
  if (count <= 0 || (s->pending() == count && logit_rows_ >= options_.max_logit_rows)) return false;
  if (!MakeRoom(s, s->kv.computed + count)) return false;
  SeqSlice slice{.sequence = s->id,
                 .first_pos = s->kv.computed,
                 .count = count,
                 .tokens = s->tokens,
                 .prompt_tokens = s->prompt_tokens};
  if (s->layered > 0) slice.first_layer = s->layers_done;
  if (layers < kv_->layout().layers() - slice.first_layer) slice.layers = layers;
  if (count == s->pending() && slice.complete()) {
    slice.wanted_begin = count - 1;
    slice.wanted_end = count;
    slice.sampling = &s->sampling;
    slice.samples = s->samples;
  }
  if (wants_prompt) {
    slice.wanted_begin = std::clamp(s->logprobs_done - s->kv.computed, 0, count);
    slice.wanted_end = count;
    slice.prompt_logprobs = s->prompt_logprobs;
  }
  logit_rows_ += slice.wanted_end - slice.wanted_begin;
  s->served_step = counters_.steps;
  s->slice = static_cast<int32_t>(planned_.size());
  plan_.slices.push_back(slice);
  planned_.push_back(s);
  plan_.copies.insert(plan_.copies.end(), s->kv.copies.begin(), s->kv.copies.end());
  return true;
}

/// How long this step may take, by the latency target, with what is planned of it; < 0: no limit.
double Scheduler::StepLimit(int32_t decoding) {
  if (decoding == 0 || options_.itl_target_s <= 0 || !cost_.known()) return -1;
  if (++mixed_steps_ >= kDecodeOnlyEvery) {
    mixed_steps_ = 0;
    return 0;
  }
  return std::max(options_.itl_target_s,
                  (1 + options_.least_prefill) * cost_.Predict(PlannedWork()));
}

/// What `count` tokens of a prompt add to a step.
double Scheduler::PromptSeconds(const Sequence& s, int32_t count) const {
  CostModel::Work work;
  work.prompt = count;
  work.prompt_keys = Keys(s.kv.computed, count);
  work.prompt_context = s.kv.computed;
  return cost_.Prompts(work);
}

/// Some layers of a chunk of at most `rows` rows, as many as fit into `limit` seconds.
bool Scheduler::PlanLayers(Sequence* s, int32_t rows, double limit) {
  const CostModel::Work work = PlannedWork();
  const double decoding = cost_.Predict(work), left = limit - decoding;
  const int32_t all = kv_->layout().layers();
  int32_t count = s->layered;
  if (count == 0) {
    const double seconds = decoding + left * all / kLayersAStep;
    count = std::clamp(cost_.TokensWithin(seconds, work, s->kv.computed), 1,
                       std::min({rows, s->pending(), kMostLayeredRows}));
  }
  const double each = PromptSeconds(*s, count) / all;
  const double fit = each > 0 ? std::round(std::min<double>(left / each, all)) : all;
  return PlanSlice(s, count, std::max(1, static_cast<int32_t>(fit)));
}

void Scheduler::PlanPrompts(int32_t decoding) {
  const double limit = StepLimit(decoding);
  step_limit_ = std::max(limit, 0.0);
  std::vector<Sequence*>& prompts = candidates_;
  prompts.clear();
  for (const auto& s : running_) {
    if (s->pending() > 1) prompts.push_back(s.get());
  }
  int32_t top = INT32_MIN;
  for (const Sequence* s : prompts) top = std::max(top, s->priority);
  for (Sequence* s : prompts) {
    if (counters_.steps - s->served_step >= static_cast<uint64_t>(options_.max_wait_steps))
      s->priority = top;
  }
  // What is between its layers goes on first: nobody else can be until it has ended.
  std::stable_sort(prompts.begin(), prompts.end(), [&](const Sequence* a, const Sequence* b) {
    if ((a->layered > 0) != (b->layered > 0)) return a->layered > 0;
    if (a->priority != b->priority) return a->priority > b->priority;
    return a->tenant != b->tenant && tenants_[a->tenant].served < tenants_[b->tenant].served;
  });
  int32_t rows = options_.max_step_tokens - decoding;
  for (Sequence* s : prompts) {
    if (rows <= 0 || limit == 0) break;
    if (s->kv.id == 0) continue;  // preempted for one before it
    int32_t count = options_.chunked_prefill ? std::min(s->pending(), rows) : s->pending();
    // More decode than when the chunk was begun: it begins again with fewer rows, or no prompt
    // would get on before some of them have ended.
    if (s->layered > rows) s->layered = s->layers_done = 0;
    if (limit > 0 && options_.chunked_prefill) {
      const bool first = static_cast<int32_t>(planned_.size()) == decoding;
      const int32_t fits = cost_.TokensWithin(limit, PlannedWork(), s->kv.computed);
      if (s->layered > 0 || (fits < std::min(count, kLeastChunk) && s->prompt_logprobs < 0)) {
        if (first) PlanLayers(s, rows, limit);
        break;
      }
      count = std::clamp(fits, first ? 1 : 0, count);
    }
    if (count > 0 && PlanSlice(s, count)) rows -= plan_.slices.back().count;
    if (!plan_.slices.empty() && plan_.slices.back().layered()) break;
  }
}

void Scheduler::GetUnstuck() {
  const auto can_go_on = [](const auto& r) { return r->pending() > 0; };
  // Sequences that wait for a choice may hold the room that their siblings wait for.
  while (std::none_of(running_.begin(), running_.end(), can_go_on)) {
    if (running_.empty() || waiting_ == 0) return;
    Preempt(running_.back().get());
    Admit();
  }
  if (PlanOldestAlone()) return;
  // What lacks is held by the cache for it alone: a block that another published meanwhile, of
  // which it has begun a copy. From the beginning, without the cache, it has the room that
  // admission saw.
  Preempt(running_.front().get());
  kv_->DropCache();
  Admit();
  CHECK(PlanOldestAlone());
}

/// The oldest that can go on gets the room of all others, which are preempted. False where that is
/// not enough; then it runs alone.
bool Scheduler::PlanOldestAlone() {
  Sequence* oldest = nullptr;
  for (const auto& r : running_) {
    if (r->pending() > 0 && (oldest == nullptr || r->OlderThan(*oldest))) oldest = r.get();
  }
  CHECK(oldest != nullptr);
  while (running_.size() > 1) {
    Preempt(running_.back().get() == oldest ? running_.front().get() : running_.back().get());
  }
  return PlanSlice(oldest, options_.chunked_prefill
                               ? std::min(oldest->pending(), options_.max_step_tokens)
                               : oldest->pending());
}

/// One token of everybody who decodes; how many. Where they are more than the rows, whose last step
/// is the longest ago go first, and a prompt that waits has its share of the rows.
int32_t Scheduler::PlanDecoding() {
  const auto decodes = [](const auto& s) { return s->pending() == 1; };
  const auto all = std::count_if(running_.begin(), running_.end(), decodes);
  int32_t rows = options_.max_step_tokens;
  const bool prompts =
      std::any_of(running_.begin(), running_.end(), [](const auto& s) { return s->pending() > 1; });
  if (prompts) rows = std::max(1, static_cast<int32_t>(rows / (1 + options_.least_prefill)));
  uint64_t last = UINT64_MAX;  // only those whose last step was before this; then those of it
  if (all > rows) {
    std::vector<uint64_t> served;
    for (const auto& s : running_) {
      if (decodes(s)) served.push_back(s->served_step);
    }
    std::nth_element(served.begin(), served.begin() + rows, served.end());
    last = served[rows];
  }
  int32_t decoding = 0;
  // Preempting changes running_.
  candidates_.clear();
  for (const auto& s : running_) {
    if (decodes(s)) candidates_.push_back(s.get());
  }
  const auto plan = [&](auto served) {
    for (Sequence* s : candidates_) {
      if (decoding >= rows) return;
      const bool preempted = s->kv.id == 0;
      if (!preempted && s->slice < 0 && served(s->served_step) && PlanSlice(s, 1)) ++decoding;
    }
  };
  plan([last](uint64_t step) { return step < last; });
  if (last != UINT64_MAX) plan([last](uint64_t step) { return step == last; });
  return decoding;
}

const StepPlan& Scheduler::Plan(int64_t now_ns) {
  now_ns_ = now_ns;
  ++counters_.steps;
  logit_rows_ = 0;
  plan_.step = counters_.steps;
  plan_.slices.clear();
  plan_.tables.clear();
  plan_.copies.clear();
  planned_.clear();
  if (waiting_ > 0) Admit();
  PlanPrompts(PlanDecoding());
  if (plan_.slices.empty()) GetUnstuck();
  for (size_t g = 0; g < kv_->layout().groups.size(); ++g) {
    for (const Sequence* s : planned_) plan_.tables.push_back(s->kv.tables[g].view());
  }
  return plan_;
}

CostModel::Work Scheduler::PlannedWork() const {
  CostModel::Work work;
  for (size_t i = 0; i < planned_.size(); ++i) {
    const SeqSlice& slice = plan_.slices[i];
    const double keys = Keys(slice.first_pos, slice.count);
    if (planned_[i]->pending() == 1) {
      work.decoding += slice.count;
      work.decoding_keys += keys;
      continue;
    }
    const double share = slice.Share(kv_->layout().layers());
    work.prompt += share * slice.count;
    work.prompt_keys += share * keys;
    work.prompt_context += share * slice.first_pos;
  }
  return work;
}

void Scheduler::Measured(double seconds) {
  if (!plan_.slices.empty()) cost_.Learn(PlannedWork(), seconds);
}

void Scheduler::AccountStep() {
  // A step's time is every running sequence's time. The share of others' prompt chunks is what the
  // cost model says that they added, or their share of the rows until it knows both.
  const CostModel::Work all = PlannedWork();
  const double added = cost_.known_apart()
                           ? cost_.Prompts(all) / std::max(cost_.Predict(all), 1e-12)
                           : all.prompt / std::max(all.prompt + all.decoding, 1.0);
  for (const auto& s : running_) {
    const double seconds = static_cast<double>(now_ns_ - s->since_ns) * 1e-9;
    s->since_ns = now_ns_;
    if (s->slice < 0) {
      // Without prompts in the step it waits for its turn, or for room.
      double& own = s->pending() > 1 ? s->times.prefill : s->times.decode;
      (s->waits_for_choice() || all.prompt == 0 ? own : s->times.others) += seconds;
      continue;
    }
    const SeqSlice& slice = plan_.slices[s->slice];
    const double own_prompt =
        s->pending() > 1 ? slice.Share(kv_->layout().layers()) * slice.count : 0;
    const double others = all.prompt == 0 ? 0 : added * (1 - own_prompt / all.prompt) * seconds;
    s->times.others += others;
    const bool prompt = slice.first_pos < s->prompt_tokens;
    const bool again = s->preemptions > 0 && slice.count > 1;
    double& own = again ? s->times.preempted : prompt ? s->times.prefill : s->times.decode;
    own += seconds - others;
  }
}

std::span<Scheduler::Progress> Scheduler::Commit(StepResult& result, int64_t now_ns) {
  CHECK_EQ(result.step, plan_.step);
  now_ns_ = now_ns;
  AccountStep();
  progress_.clear();
  size_t next = 0;
  for (size_t i = 0; i < plan_.slices.size(); ++i) {
    const SeqSlice& slice = plan_.slices[i];
    Sequence* s = planned_[i];
    s->slice = -1;
    Progress p{
        .id = s->id, .sequence = s, .tokens = {}, .prompt_logprobs = {}, .error = result.error};
    if (slice.has_result() && !result.error) {
      CHECK_LT(next, result.slices.size());
      SliceResult& r = result.slices[next++];
      CHECK_EQ(r.sequence, slice.sequence);
      p.tokens = r.tokens;
      p.prompt_logprobs = r.prompt_logprobs;
      p.error = r.error;
    }
    const auto bad = std::find(result.not_finite.begin(), result.not_finite.end(), s->id);
    if (!p.error && bad != result.not_finite.end()) {
      p.error = MakeError(ErrorCode::kInvalid,
                          "the model gave a key or a value that is not finite for one of tokens {} "
                          "to {}; its weights, or numbers in this prompt, are out of range",
                          slice.first_pos, slice.first_pos + slice.count - 1);
    }
    counters_.layered += slice.layered() ? 1 : 0;
    if (!p.error) kv_->CopiesDone(s->kv);
    // What failed leaves nothing behind: its K and V are not shared, nor counted as computed.
    if (!p.error && !slice.complete()) {
      s->layered = slice.count;
      s->layers_done = slice.first_layer + slice.layers;
    } else if (!p.error) {
      s->layered = s->layers_done = 0;
      const int32_t computed = slice.first_pos + slice.count;
      kv_->Publish(s->kv, s->tokens, computed);
      kv_->Advance(s->kv, computed);
      if (slice.prompt_logprobs >= 0)
        s->logprobs_done = std::max(s->logprobs_done, std::min(computed, s->prompt_tokens - 1));
      if (!p.tokens.empty() && !s->chosen_outside) s->tokens.push_back(p.tokens.front().token);
      if (!p.tokens.empty()) s->samples = 1;
      if (!p.tokens.empty() && s->chosen_outside) s->answered = s->total();
      Tenant& tenant = tenants_[s->tenant];
      tenant.served += slice.count / tenant.options.weight;
    }
    progress_.push_back(std::move(p));
  }
  plan_.slices.clear();
  plan_.tables.clear();
  plan_.copies.clear();
  planned_.clear();
  return progress_;
}

void Scheduler::Finish(SequenceId id, bool keep, int32_t most) {
  const auto known = by_id_.find(id);
  if (known == by_id_.end()) return;
  CHECK(plan_.slices.empty());  // between steps only
  Sequence* s = known->second;
  constexpr double kForget = 1.0 / 32;
  // What never ran says nothing of how long outputs are.
  if (s->output_tokens() > 0) mean_output_ += (s->output_tokens() - mean_output_) * kForget;
  by_id_.erase(known);
  const auto it =
      std::find_if(running_.begin(), running_.end(), [s](const auto& r) { return r.get() == s; });
  if (it == running_.end()) {
    Queue& queue = waiting_by_tenant_[s->tenant];
    const uint64_t tenant = s->tenant;
    queue.erase({s->priority, s->arrival, s->id});
    Dequeued(tenant);
    return;
  }
  kv_->Release(s->kv, s->tokens, keep, most);
  places_ -= s->places;
  running_.erase(it);
}

const SequenceTimes& Scheduler::TimesUntil(SequenceId id, int64_t now_ns) {
  Sequence* s = by_id_.at(id);
  now_ns_ = now_ns;
  if (s->kv.id == 0) {
    AccountWaiting(s);
  } else {
    s->times.output += static_cast<double>(now_ns - s->since_ns) * 1e-9;
    s->since_ns = now_ns;
  }
  return s->times;
}

const Sequence* Scheduler::Find(SequenceId id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second;
}

}  // namespace kvasir
