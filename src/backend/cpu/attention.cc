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

/// Items that a thread takes at once, at most: K and V of a split then come from memory once for
/// 256 rows. Of a prompt of 8,192 tokens in chunks of 512, attention took 4.33 s instead of 4.98,
/// in chunks of 64 4.91 s instead of 6.44; with 16 items 4.25 and 4.83 s (1B shape, Xeon with AMX,
/// 2 cores, 2026-11-25).
constexpr int32_t kTogether = 8;

/// A worker's own memory: the kernels' scratch, padded queries, a split's state, and for each item
/// packed queries and the running state.
size_t WorkerBytes(int32_t padded) {
  return kSplitScratchBytes + (1 + kTogether) * (SplitQueryBytes(padded) + StateBytes(padded));
}

/// An item that is more than one part in kPieces of a thread's share of the work is cut at its
/// splits.
constexpr int kPieces = 4;

/// Slices with more rows than this of a kv head share nothing: they read keys and values for so
/// many rows that it hardly counts.
constexpr int32_t kMostClusterRows = kRows / 2;
/// Items of shared splits in a call, at most; slices beyond these read their blocks alone.
constexpr size_t kMostSharedItems = 256;

size_t SplitsOf(int64_t tokens) { return DivUp(static_cast<size_t>(tokens), kSplit); }

int32_t FirstAttended(int32_t position, int32_t window) {
  return window == 0 ? 0 : std::max(0, position - window + 1);
}

}  // namespace

/// What all items of one call share.
struct CpuAttention::Call {
  const AttentionArgs* args;
  const KvLayout* layout;
  int32_t window;
  int32_t group;  // KV group of the layer
  const SplitKernel* kernel;
};

struct CpuAttention::Worker {
  uint8_t* scratch;
  float* q;  // [kRows][padded]
  State split;
  uint8_t* packed_q[kTogether];
  State running[kTogether];
};

CpuAttention::CpuAttention(const AttentionKernels* kernels, const VectorKernels* vector,
                           ThreadPool* pool)
    : kernels_(kernels), vector_(vector), pool_(pool) {}

size_t CpuAttention::ScratchBytes(int threads, int32_t head_dim, int64_t max_tokens) {
  const auto padded = static_cast<int32_t>(RoundUp(head_dim, 16));
  const size_t n = static_cast<size_t>(threads);
  return n * WorkerBytes(padded) +
         (n * kPieces * SplitsOf(max_tokens) + kMostSharedItems) * StateBytes(padded);
}

Status CpuAttention::ReserveScratch(int32_t head_dim, int64_t max_tokens) {
  head_dim_padded_ = static_cast<int32_t>(RoundUp(head_dim, 16));
  max_tokens_ = max_tokens;
  KV_ASSIGN(scratch_, AlignedBuffer::Allocate(ScratchBytes(pool_->size(), head_dim, max_tokens),
                                              MemoryOwner::kScratch, "the scratch of attention"));
  open_ = std::vector<std::atomic<int32_t>>(static_cast<size_t>(pool_->size()) * kPieces);
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

int32_t CpuAttention::FirstWanted(const AttentionArgs& args, int32_t slice) {
  return args.first_wanted == nullptr ? 0 : args.first_wanted[slice];
}

/// Finds slices of few rows that begin with the same blocks.
void CpuAttention::MakeClusters(const AttentionArgs& args) {
  const KvLayout& l = *args.kv->layout;
  const auto slices = static_cast<int32_t>(args.batch->slices.size());
  clusters_.clear();
  by_block_.clear();
  cluster_of_.assign(args.batch->slices.size(), -1);
  if (l.window_of(args.layer) != 0) return;  // few of the tokens in a window are the first ones
  const int32_t per_kv = args.heads / l.kv_heads;
  for (int32_t s = 0; s < slices; ++s) {
    const BatchSlice& slice = args.batch->slices[s];
    const int32_t wanted = slice.rows - FirstWanted(args, s);
    const TableView& table = args.batch->table(l.group_of(args.layer), s);
    if (wanted > 0 && wanted * per_kv <= kMostClusterRows && table.first_block == 0 &&
        slice.first_pos >= kSplit) {
      by_block_.emplace_back(table.blocks[0], s);
    }
  }
  std::sort(by_block_.begin(), by_block_.end());
  size_t first_cluster = 0;
  for (size_t i = 0; i < by_block_.size(); ++i) {
    if (i > 0 && by_block_[i].first != by_block_[i - 1].first) first_cluster = clusters_.size();
    JoinCluster(args, first_cluster, by_block_[i].second);
  }
}

/// Adds a slice to the cluster, from `first_cluster` on, where most is read once, if any.
void CpuAttention::JoinCluster(const AttentionArgs& args, size_t first_cluster, int32_t slice) {
  const KvLayout& l = *args.kv->layout;
  const int32_t group = l.group_of(args.layer), blocks = kSplit / l.block_tokens;
  const TableView& own = args.batch->table(group, slice);
  // A row's own token lies behind what it shares.
  const int32_t most = args.batch->slices[slice].first_pos / kSplit;
  size_t best = clusters_.size();
  int32_t best_gain = 0, best_splits = most;
  for (size_t c = first_cluster; c < clusters_.size(); ++c) {
    const Cluster& cluster = clusters_[c];
    const TableView& other = args.batch->table(group, cluster.leader);
    int32_t splits = 0;
    while (splits < std::min(most, cluster.splits) &&
           std::equal(own.blocks + splits * blocks, own.blocks + (splits + 1) * blocks,
                      other.blocks + splits * blocks)) {
      ++splits;
    }
    const int32_t gain = splits * cluster.slices - cluster.splits * (cluster.slices - 1);
    if (gain > best_gain) {
      best = c;
      best_gain = gain;
      best_splits = splits;
    }
  }
  if (best == clusters_.size()) clusters_.push_back({slice, 0, 0});
  ++clusters_[best].slices;
  clusters_[best].splits = best_splits;
  cluster_of_[slice] = static_cast<int32_t>(best);
}

void CpuAttention::AddRows(const AttentionArgs& args, int32_t slice, int32_t kv_head) {
  const int32_t per_kv = args.heads / args.kv->layout->kv_heads;
  const BatchSlice& s = args.batch->slices[slice];
  for (int32_t r = FirstWanted(args, slice); r < s.rows; ++r) {
    for (int32_t h = 0; h < per_kv; ++h)
      rows_.push_back({s.first_row + r, kv_head * per_kv + h, s.first_pos + r});
  }
}

/// The items of splits that slices share, and where each of these goes on from.
void CpuAttention::MakeSharedItems(const AttentionArgs& args) {
  const int32_t kv_heads = args.kv->layout->kv_heads;
  shared_items_.clear();
  from_.assign(args.batch->slices.size() * static_cast<size_t>(kv_heads), -1);
  for (size_t c = 0; c < clusters_.size(); ++c) {
    if (clusters_[c].slices < 2) continue;
    for (int32_t h = 0; h < kv_heads; ++h) {
      Item* item = nullptr;
      for (const auto& [block, slice] : by_block_) {
        if (cluster_of_[slice] != static_cast<int32_t>(c)) continue;
        const auto begin = static_cast<int32_t>(rows_.size());
        AddRows(args, slice, h);
        const auto end = static_cast<int32_t>(rows_.size());
        if (item == nullptr || end - item->begin > kRows) {
          if (shared_items_.size() == kMostSharedItems) {
            rows_.resize(begin);
            break;
          }
          const auto to = static_cast<int32_t>(shared_items_.size()) * kRows;
          shared_items_.push_back(
              {clusters_[c].leader, h, begin, end, 0, clusters_[c].splits, -1, to});
          item = &shared_items_.back();
        }
        item->end = end;
        from_[static_cast<size_t>(slice) * kv_heads + h] = item->to + begin - item->begin;
      }
    }
  }
}

void CpuAttention::MakeItems(const AttentionArgs& args, OpCounters& counters) {
  const KvLayout& l = *args.kv->layout;
  const int32_t window = l.window_of(args.layer);
  rows_.clear();
  items_.clear();
  MakeClusters(args);
  MakeSharedItems(args);
  for (size_t s = 0; s < args.batch->slices.size(); ++s) {
    const BatchSlice& slice = args.batch->slices[s];
    const auto index = static_cast<int32_t>(s);
    const int32_t first = FirstWanted(args, index);
    if (first >= slice.rows) continue;
    const TableView& table = args.batch->table(l.group_of(args.layer), index);
    const int32_t lo = FirstAttended(slice.first_pos + first, window);
    const int32_t last = slice.first_pos + slice.rows - 1;
    CHECK_LE(table.first_block, lo / l.block_tokens);
    CHECK_LT(last / l.block_tokens, table.first_block + table.count);
    CHECK_LT(last, max_tokens_);
    uint64_t pairs = 0;
    for (int32_t r = first; r < slice.rows; ++r) {
      const int32_t position = slice.first_pos + r;
      pairs += static_cast<uint64_t>(position - FirstAttended(position, window) + 1);
    }
    pairs *= static_cast<uint64_t>(args.heads);
    counters.attention_ops += pairs;
    counters.attention_flops += pairs * 4 * static_cast<uint64_t>(l.head_dim);
    const uint64_t token_bytes = l.layer_bytes / l.block_tokens,
                   head_bytes = token_bytes / l.kv_heads;
    counters.kv_bytes_read += static_cast<uint64_t>(last - lo + 1) * token_bytes;
    for (int32_t h = 0; h < l.kv_heads; ++h) {
      const int32_t from = from_[s * l.kv_heads + h];
      const int32_t shared = from < 0 ? 0 : clusters_[cluster_of_[s]].splits;
      if (from >= 0 && clusters_[cluster_of_[s]].leader != index)
        counters.kv_bytes_read -= static_cast<uint64_t>(shared) * kSplit * head_bytes;
      const auto first_row = static_cast<int32_t>(rows_.size());
      AddRows(args, index, h);
      const auto rows_end = static_cast<int32_t>(rows_.size());
      for (int32_t begin = first_row; begin < rows_end; begin += kRows) {
        const int32_t end = std::min(rows_end, begin + kRows);
        const int32_t first_split = FirstAttended(rows_[begin].position, window) / kSplit;
        items_.push_back({index, h, begin, end, std::max(shared, first_split),
                          rows_[end - 1].position / kSplit + 1, from, -1});
      }
    }
  }
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
    return std::clamp(FirstAttended(rows_[row].position, call.window) - split * kSplit, 0, kSplit);
  };
  const auto end_of = [&](int32_t row, int32_t split) {
    return std::clamp(rows_[row].position + 1 - split * kSplit, 0, kSplit);
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
    const auto [row, head, position] = rows_[item.begin + r];
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
    const auto [row, head, position] = rows_[item.begin + r];
    const float* from = a.q + row * a.q_stride + int64_t{head} * l.head_dim;
    float* to = q + static_cast<size_t>(r) * l.head_dim_padded;
    std::memcpy(to, from, static_cast<size_t>(l.head_dim) * sizeof(float));
    for (int32_t c = l.head_dim; c < l.head_dim_padded; ++c) to[c] = 0;
  }
  call.kernel->queries(q, item.end - item.begin, l.head_dim_padded, packed_q);
}

CpuAttention::Place CpuAttention::BeginOf(std::span<const Item> items, size_t unit) const {
  if (unit >= units_.size()) return {};
  const Unit& u = units_[unit];
  const Item& item = items[u.item];
  return {&item, u.split < 0 ? item.first_split : u.split};
}

/// All splits of some of all items in ascending order; `next`: the unit that is taken next.
void CpuAttention::RunWhole(const Call& call, std::span<const Item> items,
                            std::span<const Item> all, const std::atomic<size_t>& next, Worker& w) {
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
                              : BeginOf(all, next.load(std::memory_order_relaxed));
      ComputeSplit(call, {&item, split}, after, w.packed_q[i], w.scratch, w.split);
      Merge(item.end - item.begin, padded, w.split, w.running[i]);
    }
  }
  for (size_t i = 0; i < items.size(); ++i) Finish(call, items[i], w.running[i]);
}

void CpuAttention::MakeUnits(std::span<const Item> items) {
  // A unit's time is about its splits times its rows; few rows take as long as four, for they wait
  // for memory.
  const auto cost = [](const Item& item) {
    return int64_t{item.last_split - item.first_split} * std::max(item.end - item.begin, 4);
  };
  int64_t total = 0;
  for (const Item& item : items) total += cost(item);
  // Fewer together where threads would else have too few units to end at the same time.
  const size_t share = items.size() / (2 * kPieces * static_cast<size_t>(pool_->size()));
  const auto together = static_cast<int32_t>(std::clamp<size_t>(share, 1, kTogether));
  const auto follows = [&](const Unit& unit, const Item& item) {
    const Item& before = items[unit.item];
    return unit.split < 0 && unit.items < together && before.slice == item.slice &&
           before.kv_head == item.kv_head;
  };
  units_.clear();
  int32_t partials = 0, cut = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const int32_t splits = item.last_split - item.first_split;
    const auto index = static_cast<int32_t>(i);
    if (splits == 1 || cost(item) * kPieces * pool_->size() <= total) {
      if (!units_.empty() && follows(units_.back(), item))
        ++units_.back().items;
      else
        units_.push_back({index, 1, -1, -1, -1});
      continue;
    }
    open_[cut] = splits;
    for (int32_t split = 0; split < splits; ++split)
      units_.push_back({index, 1, item.first_split + split, partials + split, cut});
    partials += splits;
    ++cut;
  }
  // Longest first, so that the last to be taken are short.
  const auto unit_cost = [&](const Unit& u) {
    const Item& item = items[u.item];
    if (u.split >= 0) return cost(item) / (item.last_split - item.first_split);
    int64_t sum = 0;
    for (int32_t i = 0; i < u.items; ++i) sum += cost(items[u.item + i]);
    return sum;
  };
  std::sort(units_.begin(), units_.end(), [&](const Unit& a, const Unit& b) {
    const int64_t x = unit_cost(a), y = unit_cost(b);
    if (x != y) return x > y;
    return a.item != b.item ? a.item < b.item : a.split < b.split;
  });
}

void CpuAttention::Run(const AttentionArgs& args, OpCounters& counters) {
  const KvLayout& l = *args.kv->layout;
  CHECK_EQ(l.head_dim_padded, head_dim_padded_);
  CHECK_EQ(args.heads % l.kv_heads, 0);
  MakeItems(args, counters);
  const auto type = static_cast<size_t>(l.dtype);
  const AttentionKernels& kernels = kernels_->of[type].split ? *kernels_ : kFloatAttention;
  const Call call{&args, &l, l.window_of(args.layer), l.group_of(args.layer), &kernels.of[type]};
  if (!shared_items_.empty()) RunItems(call, shared_items_);
  if (!items_.empty()) RunItems(call, items_);
}

void CpuAttention::RunItems(const Call& call, std::span<const Item> items) {
  MakeUnits(items);
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
    for (int32_t i = 0; i < kTogether; ++i) {
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
    for (size_t i = next.fetch_add(1); i < units_.size(); i = next.fetch_add(1)) {
      const Unit& unit = units_[i];
      const Item& item = items[unit.item];
      if (unit.split < 0) {
        RunWhole(call, items.subspan(unit.item, unit.items), items, next, w);
        continue;
      }
      LoadQueries(call, item, w.q, w.packed_q[0]);
      ComputeSplit(call, {&item, unit.split}, BeginOf(items, next.load(std::memory_order_relaxed)),
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
