#include "base/memory_limits.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

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
void ApplyLevel(MemoryLimits* limits, const std::string& dir, const char* limit_file,
                const char* usage_file, const char* cache_field, const std::string& by) {
  const auto limit = ReadNumber(dir + "/" + limit_file);
  if (!limit || *limit >= (uint64_t{1} << 62)) return;  // v1 writes a huge number for "none"
  const uint64_t used = ReadNumber(dir + "/" + usage_file).value_or(0);
  const uint64_t cache = std::min(used, ReadField(dir + "/memory.stat", cache_field));
  const uint64_t taken = used - cache;
  Limit(limits, *limit > taken ? *limit - taken : 0, by);
}

/// The group of this process in a hierarchy ("" for the unified one), from /proc/self/cgroup.
std::optional<std::string> GroupPath(const std::string& root, const std::string& controller) {
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    const std::string names = "," + line.substr(a + 1, b - a - 1) + ",";
    if ((controller.empty() && names == ",,") ||
        (!controller.empty() && names.find("," + controller + ",") != std::string::npos)) {
      return line.substr(b + 1);
    }
  }
  return std::nullopt;
}

/// Applies every level from the group up to the root of its hierarchy.
void ApplyHierarchy(MemoryLimits* limits, const std::string& mount, std::string group,
                    bool unified) {
  while (true) {
    if (!group.empty() && group.back() == '/') group.pop_back();
    const std::string dir = mount + group;
    const std::string by = (unified ? "cgroup v2 " : "cgroup v1 ") + (group.empty() ? "/" : group);
    if (unified) {
      ApplyLevel(limits, dir, "memory.max", "memory.current", "inactive_file", by);
    } else {
      ApplyLevel(limits, dir, "memory.limit_in_bytes", "memory.usage_in_bytes",
                 "total_inactive_file", by);
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return;
    group.resize(slash);
  }
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
  if (const auto group = GroupPath(root, "")) {
    ApplyHierarchy(&limits, root + "/sys/fs/cgroup", *group, true);
  }
  if (const auto group = GroupPath(root, "memory")) {
    ApplyHierarchy(&limits, root + "/sys/fs/cgroup/memory", *group, false);
  }
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
