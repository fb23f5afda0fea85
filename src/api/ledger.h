#pragma once

#include <string>
#include <vector>

#include "api/loaded_model.h"

namespace kvasir {

/// One owner's bytes in memory.
struct LedgerEntry {
  std::string owner;
  uint64_t bytes = 0;
  std::string what;
};

/// Every byte of the process by owner, each counted where it is owned and not by taking the others
/// from the sum: what `entries` leave of `resident_bytes` is what nobody owns up to.
struct Ledger {
  std::vector<LedgerEntry> entries;
  uint64_t resident_bytes = 0;  ///< as the system counts
  uint64_t total() const;
};

/// What only the engine can tell of its bytes.
struct EngineBytes {
  uint64_t kv_running = 0,
           kv_cached = 0;  ///< of blocks that sequences hold, that only the cache holds
  uint64_t index = 0, queues = 0;
};
/// Between steps only; plain sums.
EngineBytes ReadEngineBytes(const Engine& engine);

/// On any thread, and not on the engine's: Linux counts resident pages one by one, a tenth of a
/// second for each GiB in small ones. Reads /proc/self.
Ledger ReadLedger(const LoadedModel& model, const EngineBytes& engine);

/// A line for each owner, with its share.
std::string LedgerText(const Ledger& ledger);

}  // namespace kvasir
