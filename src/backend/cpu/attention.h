#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attention_kernels.h"
#include "base/thread_pool.h"

namespace kvasir {

/// Attention over the paged cache. For one row (head h of the token at position i) that attends to
/// positions lo..i, lo = max(0, i - window + 1): positions are cut at multiples of kSplit; in each
/// split scores, their maximum m, p = Exp(score - m), l = sum p and acc = sum p v; splits merge in
/// ascending order; out = acc / l. Nothing depends on the row's slice, its batch, the block size or
/// on who computes: only on its q, the cached K and V, and absolute positions.
///
/// Slices of few rows whose tables begin with the same blocks read the splits that they have in
/// common once: their rows are taken together there, and go on each with their own.
class CpuAttention {
 public:
  static constexpr int32_t kSplit = kSplitTokens;
  static constexpr int32_t kTileRows = kSplitRows;  ///< most rows of one work item

  /// All must outlive this.
  CpuAttention(const AttentionKernels* kernels, const VectorKernels* vector, ThreadPool* pool);

  static size_t ScratchBytes(int threads, int32_t head_dim, int64_t max_tokens);
  Status ReserveScratch(int32_t head_dim, int64_t max_tokens);

  /// As Backend::Attention. kv_bytes_read counts, for each slice and kv head, the K and V bytes of
  /// the tokens that its wanted rows attend to, once; those of shared splits once for all.
  void Run(const AttentionArgs& args, OpCounters& counters);

 private:
  /// A query: of a row of the batch and a head.
  struct Row {
    int32_t row, head, position;
  };
  /// Rows that go through the kernel together, all of one kv head.
  struct Item {
    int32_t slice, kv_head;           // whose blocks are read
    int32_t begin, end;               // of rows_
    int32_t first_split, last_split;  // of all its rows, half-open
    int32_t from;  // the row of shared_ where their result so far begins; -1: nothing so far
    int32_t to;    // the row of shared_ where their result goes; -1: it is the output
  };
  /// Slices of few rows whose first `splits` splits are the same blocks.
  struct Cluster {
    int32_t leader;  // the first of them
    int32_t slices, splits;
  };
  /// What a thread takes at once: one split of an item, or some items of one slice and kv head,
  /// split by split, so that K and V of a split come from memory once for all of their rows.
  struct Unit {
    int32_t item;     // the first
    int32_t items;    // how many follow one another
    int32_t split;    // -1: all
    int32_t partial;  // where the split's state goes
    int32_t cut;      // the item's place in open_
  };
  /// Running result of some rows: maximum, sum and weighted values.
  struct State {
    float* m;    // [kTileRows]
    float* l;    // [kTileRows]
    float* acc;  // [kTileRows][head_dim_padded]
  };
  /// A split of an item.
  struct Place {
    const Item* item = nullptr;  // none
    int32_t split = 0;
  };
  struct Worker;
  struct Call;

  /// The first row of a slice whose result is wanted.
  static int32_t FirstWanted(const AttentionArgs& args, int32_t slice);
  void MakeClusters(const AttentionArgs& args);
  void JoinCluster(const AttentionArgs& args, size_t first_cluster, int32_t slice);
  void MakeSharedItems(const AttentionArgs& args);
  void MakeItems(const AttentionArgs& args, OpCounters& counters);
  void AddRows(const AttentionArgs& args, int32_t slice, int32_t kv_head);
  void MakeUnits(std::span<const Item> items);
  void RunItems(const Call& call, std::span<const Item> items);
  SplitBlocks BlocksOf(const Call& call, Place place) const;
  /// `after`: what this thread will likely compute next.
  void ComputeSplit(const Call& call, Place place, Place after, const uint8_t* packed_q,
                    uint8_t* scratch, State out);
  void LoadQueries(const Call& call, const Item& item, float* q, uint8_t* packed_q);
  void RunWhole(const Call& call, std::span<const Item> items, std::span<const Item> all,
                const std::atomic<size_t>& next, Worker& worker);
  /// Where a thread that takes unit `unit` of these items begins.
  Place BeginOf(std::span<const Item> items, size_t unit) const;
  void Begin(const Item& item, const State& state) const;
  void Copy(const State& from, size_t rows, const State& to) const;
  void Merge(int32_t rows, int32_t padded, const State& from, const State& to) const;
  void Finish(const Call& call, const Item& item, const State& state);
  static State StateAt(uint8_t* memory);
  State SharedAt(int32_t row) const;

  const AttentionKernels* kernels_;
  const VectorKernels* vector_;
  ThreadPool* pool_;
  AlignedBuffer scratch_;
  int32_t head_dim_padded_ = 0;
  int64_t max_tokens_ = 0;
  std::vector<Row> rows_;
  std::vector<Item> items_, shared_items_;
  std::vector<Cluster> clusters_;
  std::vector<int32_t> cluster_of_;                    // by slice; -1: none
  std::vector<int32_t> from_;                          // by slice and kv head, as Item::from
  std::vector<std::pair<int32_t, int32_t>> by_block_;  // slices by their first block
  std::vector<Unit> units_;
  std::vector<std::atomic<int32_t>> open_;  // splits of each cut item that are not computed yet
};

}  // namespace kvasir
