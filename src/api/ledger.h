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

/// Between steps only. Linux: reads /proc/self.
Ledger ReadLedger(const LoadedModel& model, const Engine& engine);

/// A line for each owner, with its share.
std::string LedgerText(const Ledger& ledger);

}  // namespace kvasir
