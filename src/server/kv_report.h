#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/ledger.h"
#include "engine/engine.h"
#include "metrics/recent_values.h"
#include "metrics/server_metrics.h"

namespace kvasir {

/// The cache and who is in it at one moment, as plain values.
struct KvSnapshot {
  struct Row {  // a sequence
    uint64_t id = 0, tenant = 0;
    char state = 'w';  // r: running, w: waiting, p: waits for a prefix, e: preempted
    int32_t prompt_tokens = 0, cached_tokens = 0, computed_tokens = 0, output_tokens = 0;
    int32_t blocks = 0, preemptions = 0;
    double age_s = 0;
  };
  struct Node {                               // of the prefix index
    uint64_t id = 0, parent = 0, tenant = 0;  // parent 0: none
    int32_t depth = 0, tokens = 0, blocks = 0, users = 0;
    uint32_t hits = 0;
    bool ready = false;
  };
  struct TenantRow {
    uint64_t id = 0;
    int64_t running = 0, waiting = 0, blocks = 0, quota_blocks = 0;
    double weight = 1, served_tokens = 0;
  };
  int64_t time_ns = 0;  ///< Clock
  int64_t blocks = 0, free = 0, cached_idle = 0, unfilled_slots = 0;
  int64_t evicted_blocks = 0, evicted_behind_window = 0, dropped_blocks = 0;  ///< ever
  int32_t block_tokens = 0;
  size_t block_bytes = 0;
  double bytes_per_token = 0;
  std::string cells;  ///< by block: . free, r one sequence, s several, c cached, w written
  std::vector<uint16_t> owners;  ///< by block: index into tenants + 1; 0: nobody
  std::vector<Row> sequences;    ///< running first, then waiting
  std::vector<Node> nodes;
  std::vector<TenantRow> tenants;
  std::vector<StepRecord> steps;      ///< the last ones, oldest first
  StepTotals decode, prefill, mixed;  ///< of all steps
  size_t running = 0, waiting = 0;
  SchedulerCounters counters;
};

/// Reads all of it. On the engine's thread, between steps: plain copies, some numbers for each
/// block, node and sequence.
KvSnapshot ReadKv(const Engine& engine);
/// Only what is one number for all: no map, owners, sequences, nodes, tenants or single steps.
KvSnapshot ReadKvTotals(const Engine& engine);

/// What a look at the cache shows beside the snapshot.
struct KvView {
  std::string model;
  std::map<uint64_t, std::string> tenant_names;
  uint64_t after_step = 0;  ///< only later steps are shown
  double unix_time = 0;
  Percentiles ttft, itl;
  Ledger ledger;
};
/// GET /v1/kv. Bounded: the hottest prefixes and the first sequences, of the map some thousands of
/// cells.
nlohmann::ordered_json ToJson(const KvSnapshot& snapshot, const KvView& view);

/// What /metrics tells of the snapshot; its totals are enough.
MetricGauges GaugesOf(const KvSnapshot& snapshot, const Ledger& ledger);

}  // namespace kvasir
