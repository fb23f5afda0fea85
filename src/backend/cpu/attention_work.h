#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attention_kernels.h"

namespace kvasir {

/// An item that is more than one part in kAttentionPieces of a thread's share of the work is cut at
/// its splits.
inline constexpr int kAttentionPieces = 4;
/// Items that a thread takes at once, at most: K and V of a split then come from memory once for
/// 256 rows. Of a prompt of 8,192 tokens in chunks of 512, attention took 4.33 s instead of 4.98,
/// in chunks of 64 4.91 s instead of 6.44; with 16 items 4.25 and 4.83 s (1B shape, Xeon with AMX,
/// 2 cores, 2026-11-25).
inline constexpr int32_t kMostTogether = 8;
/// Items of shared splits, at most; slices beyond these read their blocks alone.
inline constexpr size_t kMostSharedItems = 256;

/// The first position that a query attends to; window 0: all.
constexpr int32_t FirstAttended(int32_t position, int32_t window) {
  return window == 0 || position < window ? 0 : position - window + 1;
}

/// How the attention of a layer is divided among threads: into items of few rows of one kv head,
/// which are cut at splits of kSplitTokens where threads would else wait for one another. Slices of
/// few rows whose tables begin with the same blocks read the splits that they have in common once.
/// It depends on the batch and the wanted rows alone, so that all layers of a KV group have the
/// same. Memory that it once had it keeps.
class AttentionWork {
 public:
  /// A query: of a row of the batch and a head.
  struct Row {
    int32_t row, head, position;
  };
  /// Rows that go through the kernel together, all of one kv head.
  struct Item {
    int32_t slice, kv_head;           // whose blocks are read
    int32_t begin, end;               // of rows()
    int32_t first_split, last_split;  // of all its rows, half-open
    int32_t from;  // the row of shared results where its own so far begins; -1: nothing so far
    int32_t to;    // the row of shared results where its own goes; -1: it is the output
  };
  /// What a thread takes at once: one split of an item, or some items of one slice and kv head,
  /// split by split, so that K and V of a split come from memory once for all of their rows.
  struct Unit {
    int32_t item;     // the first
    int32_t items;    // how many follow one another
    int32_t split;    // -1: all
    int32_t partial;  // where the split's state goes
    int32_t cut;      // the item's place in Phase::cuts
  };
  struct Phase {
    std::vector<Item> items;
    std::vector<Unit> units;    // the longest first
    std::vector<int32_t> cuts;  // the splits of each item that is cut
  };

  /// For calls of so many threads over contexts of at most `max_tokens`.
  void Make(const AttentionArgs& args, int threads, int64_t max_tokens);

  const std::vector<Row>& rows() const { return rows_; }
  /// Shared splits, whose results the others go on from.
  const Phase& shared() const { return shared_; }
  const Phase& own() const { return own_; }
  /// attention_ops, attention_flops and kv_bytes_read of a layer: for each slice and kv head the K
  /// and V bytes of the tokens that its wanted rows attend to, once; those of shared splits once
  /// for all.
  const OpCounters& counts() const { return counts_; }

 private:
  /// Slices of few rows whose first `splits` splits are the same blocks.
  struct Cluster {
    int32_t leader;  // the first of them
    int32_t slices, splits;
  };

  void MakeClusters(const AttentionArgs& args);
  void JoinCluster(const AttentionArgs& args, size_t first_cluster, int32_t slice);
  void MakeSharedItems(const AttentionArgs& args);
  void MakeItems(const AttentionArgs& args, int64_t max_tokens);
  void AddRows(const AttentionArgs& args, int32_t slice, int32_t kv_head);

  std::vector<Row> rows_;
  Phase shared_, own_;
  OpCounters counts_;
  std::vector<Cluster> clusters_;
  std::vector<int32_t> cluster_of_;                    // by slice; -1: none
  std::vector<int32_t> from_;                          // by slice and kv head, as Item::from
  std::vector<std::pair<int32_t, int32_t>> by_block_;  // slices by their first block
};

}  // namespace kvasir
