#pragma once

#include <cstdint>
#include <string>

namespace kvasir {

/// How much memory this process may really use, and what says so.
struct MemoryLimits {
  uint64_t total_bytes = 0;      ///< of the machine
  uint64_t available_bytes = 0;  ///< the least of what the machine, cgroup and rlimits leave now
  std::string limited_by;        ///< "machine", "cgroup v2 /a/b", "cgroup v1 memory", "RLIMIT_AS"
};

/// Reads /proc/meminfo (MemAvailable), the process's cgroup v1 or v2 memory limits of every level
/// up to the root (limit minus usage, reclaimable page cache not counted as used), and RLIMIT_AS.
/// `root` is put before every path read, for tests.
MemoryLimits ReadMemoryLimits(const std::string& root = "");

/// Resident bytes of this process now (/proc/self/statm).
uint64_t ResidentBytes();

/// To be called before the first thread. Where RLIMIT_AS is set, all threads allocate from one
/// heap: each heap of its own reserves 64 MiB of addresses, and a thread that gets none takes a
/// page for every allocation, for as long as it lives.
void ShareHeapWhereAddressesAreLimited();

/// Bytes of the heap that the program holds, with the allocator's own headers; what it has given
/// back but the allocator keeps.
uint64_t HeapInUse();
uint64_t HeapSlack();

}  // namespace kvasir
