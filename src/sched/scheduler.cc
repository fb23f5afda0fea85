#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir {

Scheduler::Scheduler(SchedulerOptions options, KvManager* kv) : options_(options), kv_(kv) {
  CHECK_GT(options_.max_step_tokens, 0);
  CHECK_GT(options_.max_sequences, 0);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  CHECK_GT(sequence->prompt_tokens, 0);
  CHECK_EQ(sequence->prompt_tokens, sequence->total());
  waiting_.push_back(std::move(sequence));
}

void Scheduler::Admit() {
  while (!waiting_.empty() && running_.size() < static_cast<size_t>(options_.max_sequences)) {
    Sequence* s = waiting_.front().get();
    const int64_t need = kv_->BlocksFor(s->prompt_tokens + s->max_tokens, options_.max_step_tokens);
    CHECK_LE(need, int64_t{kv_->pool().total()});
    if (reserved_ + need > kv_->pool().total()) return;
    s->reserved_blocks = need;
    reserved_ += need;
    s->kv = kv_->NewSequence();
    TakeCachedPrefix(s);
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::TakeCachedPrefix(Sequence* sequence) {
  // The last token of the prompt is always computed: its logits are wanted.
  const int32_t most = sequence->prompt_tokens - 1;
  auto best = finished_.end();
  int32_t best_tokens = 0;
  for (auto it = finished_.begin(); it != finished_.end(); ++it) {
    const auto limit = std::min<size_t>(it->tokens.size(), most);
    const auto end = it->tokens.begin() + static_cast<int64_t>(limit);
    const auto common = static_cast<int32_t>(
        std::mismatch(it->tokens.begin(), end, sequence->tokens.begin()).first -
        it->tokens.begin());
    if (common > best_tokens && kv_->CanTruncate(it->kv, common)) {
      best = it;
      best_tokens = common;
    }
  }
  if (best == finished_.end()) return;
  sequence->kv = std::move(best->kv);
  finished_.erase(best);
  kv_->Truncate(sequence->kv, best_tokens);
  sequence->cached_tokens = best_tokens;
}

bool Scheduler::GrowOrEvict(Sequence* sequence, int32_t tokens) {
  while (!kv_->Grow(sequence->kv, tokens)) {
    if (finished_.empty()) return false;
    finished_.pop_back();
  }
  return true;
}

void Scheduler::PlanSlice(Sequence* s, int32_t* budget) {
  const int32_t count = std::min(s->pending(), *budget);
  if (count == 0) return;
  CHECK(GrowOrEvict(s, s->kv.computed + count));  // reserved at admission
  *budget -= count;
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
}

const StepPlan& Scheduler::Plan() {
  Admit();
  ++plan_.step;
  plan_.slices.clear();
  plan_.tables.clear();
  int32_t budget = options_.max_step_tokens;
  for (auto& s : running_) {
    if (s->pending() == 1) PlanSlice(s.get(), &budget);
  }
  for (auto& s : running_) {
    if (s->pending() > 1) PlanSlice(s.get(), &budget);
  }
  for (size_t g = 0; g < kv_->layout().groups.size(); ++g) {
    for (const SeqSlice& slice : plan_.slices) {
      plan_.tables.push_back(Find(slice.sequence)->kv.tables[g].view());
    }
  }
  return plan_;
}

std::vector<Scheduler::Progress> Scheduler::Commit(const StepResult& result) {
  CHECK_EQ(result.step, plan_.step);
  std::vector<Progress> progress;
  progress.reserve(plan_.slices.size());
  size_t next = 0;
  for (const SeqSlice& slice : plan_.slices) {
    auto* s = const_cast<Sequence*>(Find(slice.sequence));
    CHECK(s != nullptr);
    kv_->Advance(s->kv, slice.first_pos + slice.count);
    Progress p{.sequence = s, .tokens = {}, .error = std::nullopt};
    if (slice.sampling != nullptr) {
      CHECK_LT(next, result.slices.size());
      const SliceResult& r = result.slices[next++];
      CHECK_EQ(r.sequence, slice.sequence);
      p.tokens = r.tokens;
      p.error = r.error;
      for (const SampledToken& t : p.tokens) s->tokens.push_back(t.token);
    }
    progress.push_back(std::move(p));
  }
  plan_.slices.clear();
  plan_.tables.clear();
  return progress;
}

void Scheduler::Finish(SequenceId id, bool keep) {
  const auto same = [id](const auto& s) { return s->id == id; };
  if (auto w = std::find_if(waiting_.begin(), waiting_.end(), same); w != waiting_.end()) {
    waiting_.erase(w);
    return;
  }
  auto it = std::find_if(running_.begin(), running_.end(), same);
  if (it == running_.end()) return;
  CHECK(plan_.slices.empty());  // between steps only
  Sequence& s = **it;
  reserved_ -= s.reserved_blocks;
  if (keep && s.kv.computed > 0) {
    s.tokens.resize(s.kv.computed);
    finished_.push_front(Finished{std::move(s.tokens), std::move(s.kv)});
  }
  running_.erase(it);
}

void Scheduler::DropCache() { finished_.clear(); }

const Sequence* Scheduler::Find(SequenceId id) const {
  for (const auto& s : running_) {
    if (s->id == id) return s.get();
  }
  for (const auto& s : waiting_) {
    if (s->id == id) return s.get();
  }
  return nullptr;
}

}  // namespace kvasir
