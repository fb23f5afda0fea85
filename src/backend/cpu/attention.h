#pragma once

#include <atomic>
#include <cstdint>
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
class CpuAttention {
 public:
  static constexpr int32_t kSplit = kSplitTokens;
  static constexpr int32_t kTileRows = kSplitRows;  ///< most rows of one work item

  /// All must outlive this.
  CpuAttention(const AttentionKernels* kernels, const VectorKernels* vector, ThreadPool* pool);

  static size_t ScratchBytes(int threads, int32_t head_dim, int64_t max_tokens);
  Status ReserveScratch(int32_t head_dim, int64_t max_tokens);

  /// As Backend::Attention. kv_bytes_read counts, for each slice and kv head, the K and V bytes of
  /// the tokens that its wanted rows attend to, once.
  void Run(const AttentionArgs& args, OpCounters& counters);

 private:
  /// Rows [begin, end) of the flat (token, head of group) rows of one slice and kv head.
  struct Item {
    int32_t slice, kv_head, begin, end;
    int32_t first_split, last_split;  // of all its rows, half-open
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
  /// Which row of the batch and which query head a row of an item is.
  struct Place {
    int32_t row, head;
  };
  struct Worker;
  struct Call;

  void MakeItems(const AttentionArgs& args, OpCounters& counters);
  void MakeUnits();
  void ComputeSplit(const Call& call, const Item& item, int32_t split, const uint8_t* packed_q,
                    uint8_t* scratch, State out);
  void LoadQueries(const Call& call, const Item& item, float* q, uint8_t* packed_q);
  void RunWhole(const Call& call, const Unit& unit, Worker& worker);
  static void Clear(int32_t rows, const State& state);
  static void Merge(int32_t rows, int32_t padded, const State& from, const State& to);
  static Place PlaceOf(const Call& call, const Item& item, int32_t r);
  void Finish(const Call& call, const Item& item, const State& state);
  static State StateAt(uint8_t* memory);

  const AttentionKernels* kernels_;
  const VectorKernels* vector_;
  ThreadPool* pool_;
  AlignedBuffer scratch_;
  int32_t head_dim_padded_ = 0;
  int64_t max_tokens_ = 0;
  std::vector<Item> items_;
  std::vector<Unit> units_;
  std::vector<std::atomic<int32_t>> open_;  // splits of each cut item that are not computed yet
};

}  // namespace kvasir
