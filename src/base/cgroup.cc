#include "base/cgroup.h"

#include <fstream>
#include <optional>

namespace kvasir {
namespace {

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

/// Adds every level from the group up to the root of its hierarchy.
void AddHierarchy(std::vector<CgroupLevel>* levels, const std::string& mount, std::string group,
                  bool unified) {
  while (true) {
    if (!group.empty() && group.back() == '/') group.pop_back();
    levels->push_back(
        {.dir = mount + group,
         .name = (unified ? "cgroup v2 " : "cgroup v1 ") + (group.empty() ? "/" : group),
         .unified = unified});
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return;
    group.resize(slash);
  }
}

}  // namespace

std::vector<CgroupLevel> CgroupLevels(const std::string& controller, const std::string& root) {
  std::vector<CgroupLevel> levels;
  const std::string mount = root + "/sys/fs/cgroup";
  if (const auto group = GroupPath(root, "")) AddHierarchy(&levels, mount, *group, true);
  if (const auto group = GroupPath(root, controller)) {
    AddHierarchy(&levels, mount + "/" + controller, *group, false);
  }
  return levels;
}

}  // namespace kvasir
