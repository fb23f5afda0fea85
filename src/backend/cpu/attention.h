#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_work.h"
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

  /// As Backend::Attention; adds AttentionWork::counts.
  void Run(const AttentionArgs& args, OpCounters& counters);

 private:
  using Item = AttentionWork::Item;
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

  const AttentionWork& WorkOf(const AttentionArgs& args);
  void RunPhase(const Call& call, const AttentionWork::Phase& phase);
  SplitBlocks BlocksOf(const Call& call, Place place) const;
  /// `after`: what this thread will likely compute next.
  void ComputeSplit(const Call& call, Place place, Place after, const uint8_t* packed_q,
                    uint8_t* scratch, State out);
  void LoadQueries(const Call& call, const Item& item, float* q, uint8_t* packed_q);
  void RunWhole(const Call& call, std::span<const Item> items, const AttentionWork::Phase& phase,
                const std::atomic<size_t>& next, Worker& worker);
  /// Where a thread that takes unit `unit` begins.
  static Place BeginOf(const AttentionWork::Phase& phase, size_t unit);
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
  /// The work of the last call of each KV group.
  struct Kept {
    uint64_t forward = 0;
    const Batch* batch = nullptr;
    AttentionWork work;
  };
  std::vector<Kept> kept_;
  std::vector<std::atomic<int32_t>> open_;  // splits of each cut item that are not computed yet
};

}  // namespace kvasir
