#include "backend/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <span>

#include "base/check.h"
#include "base/checked.h"

namespace kvasir {
namespace {

constexpr int32_t kRows = CpuAttention::kTileRows;
constexpr int32_t kSplit = CpuAttention::kSplit;

size_t StateBytes(int32_t padded) {
  return RoundUp((size_t{2} * kRows + static_cast<size_t>(kRows) * padded) * sizeof(float), 64);
}

/// A worker's own memory: the kernels' scratch, padded queries, a split's state, and for each item
/// packed queries and the running state.
size_t WorkerBytes(int32_t padded) {
  return kSplitScratchBytes + (1 + kMostTogether) * (SplitQueryBytes(padded) + StateBytes(padded));
}

/// The kernel of a set for such a cache.
const SplitKernel& KernelFor(const AttentionKernels& kernels, const KvLayout& layout) {
  const auto type = static_cast<size_t>(layout.dtype);
  const bool fits = layout.dtype != KvDType::kInt8 || layout.head_dim_padded <= kMostInt8Channels;
  return fits && kernels.of[type].split != nullptr ? kernels.of[type] : kFloatAttention.of[type];
}

size_t SplitsOf(int64_t tokens) { return DivUp(static_cast<size_t>(tokens), kSplit); }

}  // namespace

/// What all items of one call share.
struct CpuAttention::Call {
  const AttentionArgs* args;
  const KvLayout* layout;
  int32_t window;
  int32_t group;  // KV group of the layer
  const SplitKernel* kernel;
  std::span<const AttentionWork::Row> rows;
};

struct CpuAttention::Worker {
  uint8_t* scratch;
  float* q;  // [kRows][padded]
  State split;
  uint8_t* packed_q[kMostTogether];
  State running[kMostTogether];
};

CpuAttention::CpuAttention(const AttentionKernels* kernels, const VectorKernels* vector,
                           ThreadPool* pool)
    : kernels_(kernels), vector_(vector), pool_(pool) {}

size_t CpuAttention::ScratchBytes(int threads, int32_t head_dim, int64_t max_tokens) {
  const auto padded = static_cast<int32_t>(RoundUp(head_dim, 16));
  const size_t n = static_cast<size_t>(threads);
  return n * WorkerBytes(padded) +
         (n * kAttentionPieces * SplitsOf(max_tokens) + kMostSharedItems) * StateBytes(padded);
}

Status CpuAttention::ReserveScratch(int32_t head_dim, int64_t max_tokens) {
  head_dim_padded_ = static_cast<int32_t>(RoundUp(head_dim, 16));
  max_tokens_ = max_tokens;
  KV_ASSIGN(scratch_, AlignedBuffer::Allocate(ScratchBytes(pool_->size(), head_dim, max_tokens),
                                              MemoryOwner::kScratch, "the scratch of attention"));
  open_ = std::vector<std::atomic<int32_t>>(static_cast<size_t>(pool_->size()) * kAttentionPieces);
  return {};
}

CpuAttention::State CpuAttention::StateAt(uint8_t* memory) {
  auto* f = reinterpret_cast<float*>(memory);
  return {f, f + kRows, f + 2 * kRows};
}

CpuAttention::State CpuAttention::SharedAt(int32_t row) const {
  const size_t bytes = StateBytes(head_dim_padded_);
  State state = StateAt(scratch_.data() + scratch_.size() - kMostSharedItems * bytes +
                        static_cast<size_t>(row / kRows) * bytes);
  state.m += row % kRows;
  state.l += row % kRows;
  state.acc += static_cast<size_t>(row % kRows) * head_dim_padded_;
  return state;
}

SplitBlocks CpuAttention::BlocksOf(const Call& call, Place place) const {
  const KvLayout& l = *call.layout;
  const TableView& table = call.args->batch->table(call.group, place.item->slice);
  const int32_t count = kSplit / l.block_tokens;
  const int32_t first = place.split * count - table.first_block;
  SplitBlocks out;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t block = first + i;
    if (block >= 0 && block < table.count)
      out.blocks[i] = call.args->kv->block(table.blocks[block]);
  }
  const int32_t head = place.item->kv_head, layer = call.args->layer;
  out.k_offset = l.KOffset(layer, head);
  out.v_offset = l.VOffset(layer, head);
  out.k_scale_offset = l.KScaleOffset(layer, head);
  out.v_scale_offset = l.VScaleOffset(layer, head);
  return out;
}

/// One split for all rows of an item.
void CpuAttention::ComputeSplit(const Call& call, Place place, Place after, const uint8_t* packed_q,
                                uint8_t* scratch, State out) {
  const KvLayout& l = *call.layout;
  const Item& item = *place.item;
  const auto begin_of = [&](int32_t row, int32_t split) {
    return std::clamp(FirstAttended(call.rows[row].position, call.window) - split * kSplit, 0,
                      kSplit);
  };
  const auto end_of = [&](int32_t row, int32_t split) {
    return std::clamp(call.rows[row].position + 1 - split * kSplit, 0, kSplit);
  };
  int32_t begin[kRows], end[kRows];
  SplitArgs s;
  s.kv = BlocksOf(call, place);
  s.rows = item.end - item.begin;
  s.least = kSplit;
  for (int32_t r = 0; r < s.rows; ++r) {
    begin[r] = begin_of(item.begin + r, place.split);
    end[r] = std::max(begin[r], end_of(item.begin + r, place.split));
    if (begin[r] < end[r]) {
      s.least = std::min(s.least, begin[r]);
      s.most = std::max(s.most, end[r]);
    }
  }
  s.begin = begin;
  s.end = end;
  if (after.item != nullptr) {
    s.after = BlocksOf(call, after);
    s.after_begin = std::min(begin_of(after.item->begin, after.split), kSplit - 1);
    s.after_end = end_of(after.item->end - 1, after.split);
  }
  s.block_tokens = l.block_tokens;
  s.head_dim_padded = l.head_dim_padded;
  s.channels = static_cast<int32_t>(RoundUp(l.head_dim, l.pack()));
  s.q = packed_q;
  s.m = out.m;
  s.l = out.l;
  s.acc = out.acc;
  s.scratch = scratch;
  s.vector = vector_;
  call.kernel->split(s);
}

void CpuAttention::Copy(const State& from, size_t rows, const State& to) const {
  std::copy_n(from.m, rows, to.m);
  std::copy_n(from.l, rows, to.l);
  std::copy_n(from.acc, rows * static_cast<size_t>(head_dim_padded_), to.acc);
}

/// The running result of an item's rows before its first split.
void CpuAttention::Begin(const Item& item, const State& state) const {
  const auto rows = static_cast<size_t>(item.end - item.begin);
  if (item.from < 0) {
    std::fill_n(state.m, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(state.l, rows, 0.0f);
    return;
  }
  Copy(SharedAt(item.from), rows, state);
}

/// Adds a split's result to the running one; the formula is the same for every way here.
void CpuAttention::Merge(int32_t rows, int32_t padded, const State& from, const State& to) const {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (int32_t r = 0; r < rows; ++r) {
    if (from.l[r] == 0 && from.m[r] == kNone) continue;  // attends to nothing of the split
    const size_t at = static_cast<size_t>(r) * padded;
    if (to.l[r] == 0 && to.m[r] == kNone) {
      to.m[r] = from.m[r];
      to.l[r] = from.l[r];
      std::memcpy(to.acc + at, from.acc + at, static_cast<size_t>(padded) * sizeof(float));
      continue;
    }
    RowState merged{to.m[r], to.l[r], to.acc + at};
    vector_->merge({from.m[r], from.l[r], from.acc + at}, padded, &merged);
    to.m[r] = merged.m;
    to.l[r] = merged.l;
  }
}

void CpuAttention::Finish(const Call& call, const Item& item, const State& state) {
  const AttentionArgs& a = *call.args;
  const KvLayout& l = *call.layout;
  if (item.to >= 0) {
    Copy(state, static_cast<size_t>(item.end - item.begin), SharedAt(item.to));
    return;
  }
  for (int32_t r = 0; r < item.end - item.begin; ++r) {
    const auto [row, head, position] = call.rows[item.begin + r];
    float* out = a.out + row * a.out_stride + int64_t{head} * l.head_dim;
    const float inverse = 1.0f / state.l[r];
    const float* acc = state.acc + static_cast<size_t>(r) * l.head_dim_padded;
    for (int32_t c = 0; c < l.head_dim; ++c) out[c] = acc[c] * inverse;
  }
}

void CpuAttention::LoadQueries(const Call& call, const Item& item, float* q, uint8_t* packed_q) {
  const AttentionArgs& a = *call.args;
  const KvLayout& l = *call.layout;
  for (int32_t r = 0; r < item.end - item.begin; ++r) {
    const auto [row, head, position] = call.rows[item.begin + r];
    const float* from = a.q + row * a.q_stride + int64_t{head} * l.head_dim;
    float* to = q + static_cast<size_t>(r) * l.head_dim_padded;
    std::memcpy(to, from, static_cast<size_t>(l.head_dim) * sizeof(float));
    for (int32_t c = l.head_dim; c < l.head_dim_padded; ++c) to[c] = 0;
  }
  call.kernel->queries(q, item.end - item.begin, l.head_dim_padded, packed_q);
}

CpuAttention::Place CpuAttention::BeginOf(const AttentionWork::Phase& phase, size_t unit) {
  if (unit >= phase.units.size()) return {};
  const AttentionWork::Unit& u = phase.units[unit];
  const Item& item = phase.items[u.item];
  return {&item, u.split < 0 ? item.first_split : u.split};
}

/// All splits of some items of a phase in ascending order; `next`: the unit that is taken next.
void CpuAttention::RunWhole(const Call& call, std::span<const Item> items,
                            const AttentionWork::Phase& phase, const std::atomic<size_t>& next,
                            Worker& w) {
  const int32_t padded = call.layout->head_dim_padded;
  int32_t first = items[0].first_split, last = items[0].last_split;
  for (size_t i = 0; i < items.size(); ++i) {
    LoadQueries(call, items[i], w.q, w.packed_q[i]);
    Begin(items[i], w.running[i]);
    first = std::min(first, items[i].first_split);
    last = std::max(last, items[i].last_split);
  }
  for (int32_t split = first; split < last; ++split) {
    for (size_t i = 0; i < items.size(); ++i) {
      const Item& item = items[i];
      if (split < item.first_split || split >= item.last_split) continue;
      // The items read the same K and V: what comes after them is their next split.
      const Place after = split + 1 < item.last_split
                              ? Place{&item, split + 1}
                              : BeginOf(phase, next.load(std::memory_order_relaxed));
      ComputeSplit(call, {&item, split}, after, w.packed_q[i], w.scratch, w.split);
      Merge(item.end - item.begin, padded, w.split, w.running[i]);
    }
  }
  for (size_t i = 0; i < items.size(); ++i) Finish(call, items[i], w.running[i]);
}

/// The work of a call; that of one before it, where they share it.
const AttentionWork& CpuAttention::WorkOf(const AttentionArgs& args) {
  const auto group = static_cast<size_t>(args.kv->layout->group_of(args.layer));
  if (group >= kept_.size()) kept_.resize(group + 1);
  Kept& kept = kept_[group];
  if (args.forward == 0 || kept.forward != args.forward || kept.batch != args.batch) {
    kept.forward = args.forward;
    kept.batch = args.batch;
    kept.work.Make(args, pool_->size(), max_tokens_);
  }
  return kept.work;
}

void CpuAttention::Run(const AttentionArgs& args, OpCounters& counters) {
  const KvLayout& l = *args.kv->layout;
  CHECK_EQ(l.head_dim_padded, head_dim_padded_);
  CHECK_EQ(args.heads % l.kv_heads, 0);
  const AttentionWork& work = WorkOf(args);
  counters += work.counts();
  const Call call{
      &args,      &l, l.window_of(args.layer), l.group_of(args.layer), &KernelFor(*kernels_, l),
      work.rows()};
  if (!work.shared().items.empty()) RunPhase(call, work.shared());
  if (!work.own().items.empty()) RunPhase(call, work.own());
}

void CpuAttention::RunPhase(const Call& call, const AttentionWork::Phase& phase) {
  const std::span<const Item> items = phase.items;
  const std::span<const AttentionWork::Unit> units = phase.units;
  for (size_t i = 0; i < phase.cuts.size(); ++i) open_[i] = phase.cuts[i];
  const int32_t padded = call.layout->head_dim_padded;
  const size_t state_bytes = StateBytes(padded), worker_bytes = WorkerBytes(padded);
  uint8_t* const partials = scratch_.data() + static_cast<size_t>(pool_->size()) * worker_bytes;
  const auto partial_at = [&](int32_t partial) {
    return StateAt(partials + static_cast<size_t>(partial) * state_bytes);
  };
  const auto worker_at = [&](int index) {
    uint8_t* memory = scratch_.data() + static_cast<size_t>(index) * worker_bytes;
    Worker w;
    w.scratch = memory;
    memory += kSplitScratchBytes;
    w.q = reinterpret_cast<float*>(memory);
    memory += SplitQueryBytes(padded);
    w.split = StateAt(memory);
    memory += state_bytes;
    for (int32_t i = 0; i < kMostTogether; ++i) {
      w.packed_q[i] = memory;
      memory += SplitQueryBytes(padded);
      w.running[i] = StateAt(memory);
      memory += state_bytes;
    }
    return w;
  };

  std::atomic<size_t> next{0};
  pool_->Run([&](int index) {
    Worker w = worker_at(index);
    for (size_t i = next.fetch_add(1); i < units.size(); i = next.fetch_add(1)) {
      const AttentionWork::Unit& unit = units[i];
      const Item& item = items[unit.item];
      if (unit.split < 0) {
        RunWhole(call, items.subspan(unit.item, unit.items), phase, next, w);
        continue;
      }
      LoadQueries(call, item, w.q, w.packed_q[0]);
      ComputeSplit(call, {&item, unit.split}, BeginOf(phase, next.load(std::memory_order_relaxed)),
                   w.packed_q[0], w.scratch, partial_at(unit.partial));
      // Who computes the last split of an item merges them.
      if (open_[unit.cut].fetch_sub(1, std::memory_order_acq_rel) > 1) continue;
      const int32_t first = unit.partial - (unit.split - item.first_split);
      const int32_t rows = item.end - item.begin;
      Begin(item, w.running[0]);
      for (int32_t split = item.first_split; split < item.last_split; ++split)
        Merge(rows, padded, partial_at(first + split - item.first_split), w.running[0]);
      Finish(call, item, w.running[0]);
    }
  });
}

}  // namespace kvasir
