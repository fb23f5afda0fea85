#include "base/memory_limits.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/cgroup.h"

namespace kvasir {
namespace {

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word) || word == "max") return std::nullopt;
  try {
    return std::stoull(word);
  } catch (...) {
    return std::nullopt;
  }
}

/// A "name value" line of a file such as meminfo or memory.stat.
uint64_t ReadField(const std::string& path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string key;
    uint64_t value = 0;
    if (words >> key >> value && key == name) return value;
  }
  return 0;
}

void Limit(MemoryLimits* limits, uint64_t available, const std::string& by) {
  if (available < limits->available_bytes) {
    limits->available_bytes = available;
    limits->limited_by = by;
  }
}

/// One level of a memory controller: its limit less what is used and cannot be reclaimed.
void ApplyLevel(MemoryLimits* limits, const CgroupLevel& level) {
  const bool v2 = level.unified;
  const auto file = [&](const char* name) { return level.dir + "/" + name; };
  const auto limit = ReadNumber(file(v2 ? "memory.max" : "memory.limit_in_bytes"));
  if (!limit || *limit >= (uint64_t{1} << 62)) return;  // v1 writes a huge number for "none"
  const uint64_t used =
      ReadNumber(file(v2 ? "memory.current" : "memory.usage_in_bytes")).value_or(0);
  const uint64_t cache =
      std::min(used, ReadField(file("memory.stat"), v2 ? "inactive_file" : "total_inactive_file"));
  const uint64_t taken = used - cache;
  Limit(limits, *limit > taken ? *limit - taken : 0, level.name);
}

std::optional<uint64_t> AddressLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return limit.rlim_cur;
}

}  // namespace

MemoryLimits ReadMemoryLimits(const std::string& root) {
  MemoryLimits limits;
  limits.total_bytes = ReadField(root + "/proc/meminfo", "MemTotal:") << 10;
  limits.available_bytes = ReadField(root + "/proc/meminfo", "MemAvailable:") << 10;
  limits.limited_by = "machine";
  for (const CgroupLevel& level : CgroupLevels("memory", root)) ApplyLevel(&limits, level);
  const std::optional<uint64_t> addresses = AddressLimit();
  if (root.empty() && addresses) {
    std::ifstream in("/proc/self/statm");
    uint64_t pages = 0;
    in >> pages;
    const uint64_t used = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    Limit(&limits, *addresses > used ? *addresses - used : 0, "RLIMIT_AS");
  }
  return limits;
}

void ShareHeapWhereAddressesAreLimited() {
  if (AddressLimit()) ::mallopt(M_ARENA_MAX, 1);
}

uint64_t HeapInUse() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

uint64_t HeapSlack() { return ::mallinfo2().fordblks; }

uint64_t ResidentBytes() {
  std::ifstream in("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace kvasir
