#include "backend/cpu/attention_work.h"

#include <algorithm>

#include "base/check.h"

namespace kvasir {
namespace {

constexpr int32_t kRows = kSplitRows;  // of an item, at most
constexpr int32_t kSplit = kSplitTokens;

/// Slices with more rows than this of a kv head share nothing: they read keys and values for so
/// many rows that it hardly counts.
constexpr int32_t kMostClusterRows = kRows / 2;

/// The first row of a slice whose result is wanted.
int32_t FirstWanted(const AttentionArgs& args, int32_t slice) {
  return args.first_wanted == nullptr ? 0 : args.first_wanted[slice];
}

using Item = AttentionWork::Item;
using Unit = AttentionWork::Unit;

/// About the time of an item: its splits times its rows; few rows take as long as four, for they
/// wait for memory.
int64_t CostOf(const Item& item) {
  return int64_t{item.last_split - item.first_split} * std::max(item.end - item.begin, 4);
}

void MakeUnits(int threads, AttentionWork::Phase* phase) {
  const std::vector<Item>& items = phase->items;
  std::vector<Unit>& units = phase->units;
  int64_t total = 0;
  for (const Item& item : items) total += CostOf(item);
  // Fewer together where threads would else have too few units to end at the same time.
  const size_t share = items.size() / (2 * kAttentionPieces * static_cast<size_t>(threads));
  const auto together = static_cast<int32_t>(std::clamp<size_t>(share, 1, kMostTogether));
  const auto follows = [&](const Unit& unit, const Item& item) {
    const Item& before = items[unit.item];
    return unit.split < 0 && unit.items < together && before.slice == item.slice &&
           before.kv_head == item.kv_head;
  };
  units.clear();
  phase->cuts.clear();
  int32_t partials = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const int32_t splits = item.last_split - item.first_split;
    const auto index = static_cast<int32_t>(i);
    if (splits == 1 || CostOf(item) * kAttentionPieces * threads <= total) {
      if (!units.empty() && follows(units.back(), item))
        ++units.back().items;
      else
        units.push_back({index, 1, -1, -1, -1});
      continue;
    }
    const auto cut = static_cast<int32_t>(phase->cuts.size());
    phase->cuts.push_back(splits);
    for (int32_t split = 0; split < splits; ++split)
      units.push_back({index, 1, item.first_split + split, partials + split, cut});
    partials += splits;
  }
  // Longest first, so that the last to be taken are short.
  const auto unit_cost = [&](const Unit& u) {
    const Item& item = items[u.item];
    if (u.split >= 0) return CostOf(item) / (item.last_split - item.first_split);
    int64_t sum = 0;
    for (int32_t i = 0; i < u.items; ++i) sum += CostOf(items[u.item + i]);
    return sum;
  };
  std::sort(units.begin(), units.end(), [&](const Unit& a, const Unit& b) {
    const int64_t x = unit_cost(a), y = unit_cost(b);
    if (x != y) return x > y;
    return a.item != b.item ? a.item < b.item : a.split < b.split;
  });
}

}  // namespace

/// Finds slices of few rows that begin with the same blocks.
void AttentionWork::MakeClusters(const AttentionArgs& args) {
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
void AttentionWork::JoinCluster(const AttentionArgs& args, size_t first_cluster, int32_t slice) {
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

void AttentionWork::AddRows(const AttentionArgs& args, int32_t slice, int32_t kv_head) {
  const int32_t per_kv = args.heads / args.kv->layout->kv_heads;
  const BatchSlice& s = args.batch->slices[slice];
  for (int32_t r = FirstWanted(args, slice); r < s.rows; ++r) {
    for (int32_t h = 0; h < per_kv; ++h)
      rows_.push_back({s.first_row + r, kv_head * per_kv + h, s.first_pos + r});
  }
}

/// The items of splits that slices share, and where each of these goes on from.
void AttentionWork::MakeSharedItems(const AttentionArgs& args) {
  const int32_t kv_heads = args.kv->layout->kv_heads;
  shared_.items.clear();
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
          if (shared_.items.size() == kMostSharedItems) {
            rows_.resize(begin);
            break;
          }
          const auto to = static_cast<int32_t>(shared_.items.size()) * kRows;
          shared_.items.push_back(
              {clusters_[c].leader, h, begin, end, 0, clusters_[c].splits, -1, to});
          item = &shared_.items.back();
        }
        item->end = end;
        from_[static_cast<size_t>(slice) * kv_heads + h] = item->to + begin - item->begin;
      }
    }
  }
}

void AttentionWork::MakeItems(const AttentionArgs& args, int64_t max_tokens) {
  const KvLayout& l = *args.kv->layout;
  const int32_t window = l.window_of(args.layer);
  own_.items.clear();
  counts_ = {};
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
    CHECK_LT(last, max_tokens);
    uint64_t pairs = 0;
    for (int32_t r = first; r < slice.rows; ++r) {
      const int32_t position = slice.first_pos + r;
      pairs += static_cast<uint64_t>(position - FirstAttended(position, window) + 1);
    }
    pairs *= static_cast<uint64_t>(args.heads);
    counts_.attention_ops += pairs;
    counts_.attention_flops += pairs * 4 * static_cast<uint64_t>(l.head_dim);
    const uint64_t token_bytes = l.layer_bytes / l.block_tokens,
                   head_bytes = token_bytes / l.kv_heads;
    counts_.kv_bytes_read += static_cast<uint64_t>(last - lo + 1) * token_bytes;
    for (int32_t h = 0; h < l.kv_heads; ++h) {
      const int32_t from = from_[s * l.kv_heads + h];
      const int32_t shared = from < 0 ? 0 : clusters_[cluster_of_[s]].splits;
      if (from >= 0 && clusters_[cluster_of_[s]].leader != index)
        counts_.kv_bytes_read -= static_cast<uint64_t>(shared) * kSplit * head_bytes;
      const auto first_row = static_cast<int32_t>(rows_.size());
      AddRows(args, index, h);
      const auto rows_end = static_cast<int32_t>(rows_.size());
      for (int32_t begin = first_row; begin < rows_end; begin += kRows) {
        const int32_t end = std::min(rows_end, begin + kRows);
        const int32_t first_split = FirstAttended(rows_[begin].position, window) / kSplit;
        own_.items.push_back({index, h, begin, end, std::max(shared, first_split),
                              rows_[end - 1].position / kSplit + 1, from, -1});
      }
    }
  }
}

void AttentionWork::Make(const AttentionArgs& args, int threads, int64_t max_tokens) {
  rows_.clear();
  MakeClusters(args);
  MakeSharedItems(args);
  MakeItems(args, max_tokens);
  MakeUnits(threads, &shared_);
  MakeUnits(threads, &own_);
}

}  // namespace kvasir
