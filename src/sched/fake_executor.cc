#include "sched/fake_executor.h"

#include <algorithm>

#include "base/check.h"

namespace kvasir {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ b) + 0x9E3779B97F4A7C15ull;  // splitmix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

uint64_t Content(int32_t position, int32_t token) {
  return uint64_t{static_cast<uint32_t>(position)} << 32 | static_cast<uint32_t>(token);
}

/// First position that a token at `position` attends to.
int32_t FirstOf(const KvGroup& group, int32_t position) {
  return group.window == 0 ? 0 : std::max(0, position - group.window + 1);
}

}  // namespace

FakeExecutor::FakeExecutor(const KvLayout& layout, int32_t blocks, int32_t vocab)
    : layout_(layout),
      vocab_(vocab),
      slots_(static_cast<size_t>(blocks) * layout.block_tokens, ~0ull) {}

uint64_t& FakeExecutor::Slot(const TableView& table, int32_t position) {
  const int32_t index = position / layout_.block_tokens - table.first_block;
  CHECK(index >= 0 && index < table.count);
  return slots_[static_cast<size_t>(table.blocks[index]) * layout_.block_tokens +
                position % layout_.block_tokens];
}

StepResult& FakeExecutor::Collect() {
  result_ = StepResult{.step = plan_->step};
  for (const BlockCopy& copy : plan_->copies) {
    std::copy_n(slots_.begin() + int64_t{copy.from} * layout_.block_tokens, layout_.block_tokens,
                slots_.begin() + int64_t{copy.to} * layout_.block_tokens);
  }
  largest_step_ = std::max(largest_step_, plan_->rows());
  const size_t n = plan_->slices.size();
  // What failed, or has passed through some layers only, leaves what is of no use to anybody.
  const auto spoil = [&](size_t i) {
    const SeqSlice& s = plan_->slices[i];
    for (size_t g = 0; g < layout_.groups.size(); ++g) {
      for (int32_t p = s.first_pos; p < s.first_pos + s.count; ++p)
        Slot(plan_->tables[g * n + i], p) = ~0ull;
    }
  };
  for (size_t i = 0; i < n; ++i) {
    const SeqSlice& s = plan_->slices[i];
    if (s.layered()) {
      CHECK_EQ(i + 1, n);
      CHECK_LE(s.count, kMostLayeredRows);
      held_.Pass(s);
      CHECK_LT(s.complete() ? s.first_layer : held_.layers, layout_.layers());
    }
    if (!s.complete()) {
      CHECK(!s.has_result());
      spoil(i);
      continue;
    }
    computed_tokens_ += s.count;
    uint64_t hash = 0;
    for (size_t g = 0; g < layout_.groups.size(); ++g) {
      const TableView& table = plan_->tables[g * n + i];
      for (int32_t p = s.first_pos; p < s.first_pos + s.count; ++p) {
        Slot(table, p) = Content(p, s.tokens[p]);
      }
      const int32_t last = s.first_pos + s.count - 1;
      for (int32_t p = FirstOf(layout_.groups[g], last); p <= last; ++p) {
        hash = Mix(hash, Slot(table, p));
      }
    }
    if (failing_ != 0 && Mix(failing_ + 1, hash) % 64 == 0) {
      result_.not_finite.push_back(s.sequence);
      spoil(i);
    }
    if (!s.has_result()) continue;
    SliceResult r{.sequence = s.sequence, .tokens = {}, .prompt_logprobs = {}, .error = {}};
    for (int32_t p = s.first_pos + s.wanted_begin;
         s.prompt_logprobs >= 0 && p + 1 < std::min(s.first_pos + s.count + 1, s.prompt_tokens);
         ++p) {
      r.prompt_logprobs.push_back({.token = s.tokens[p + 1], .logprob = -1, .top = {}});
    }
    if (s.sampling != nullptr) {
      for (int32_t sample = 0; sample < s.samples; ++sample) {
        const auto token = (hash + static_cast<uint64_t>(sample)) % static_cast<uint64_t>(vocab_);
        r.tokens.push_back({.token = static_cast<int32_t>(token), .logprob = 0, .top = {}});
      }
    }
    if (failing_ != 0 && Mix(failing_, hash) % 64 == 0) {
      r.error = MakeError(ErrorCode::kInvalid, "a planned failure");
      spoil(i);
    }
    result_.slices.push_back(std::move(r));
  }
  if (failing_ != 0 && Mix(failing_, plan_->step) % 64 == 0) {
    for (size_t i = 0; i < n; ++i) spoil(i);
    result_.slices.clear();
    result_.error = MakeError(ErrorCode::kIo, "a planned failure of the step");
  }
  plan_ = nullptr;
  return result_;
}

int32_t FakeExecutor::Expected(std::span<const int32_t> tokens) const {
  uint64_t hash = 0;
  const auto last = static_cast<int32_t>(tokens.size()) - 1;
  for (const KvGroup& group : layout_.groups) {
    for (int32_t p = FirstOf(group, last); p <= last; ++p) hash = Mix(hash, Content(p, tokens[p]));
  }
  return static_cast<int32_t>(hash % static_cast<uint64_t>(vocab_));
}

}  // namespace kvasir
