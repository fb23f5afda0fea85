#pragma once

#include <string>
#include <vector>

namespace kvasir {

/// A control group that holds this process, or one above it. Limits of all of them count.
struct CgroupLevel {
  std::string dir;      ///< its folder
  std::string name;     ///< "cgroup v2 /a/b"
  bool unified = true;  ///< version 2
};

/// The levels of this process (/proc/self/cgroup), its own first, up to the root: those of version
/// 2, then those of the controller's hierarchy of version 1. Folders need not be there: in a
/// container paths may be the host's. `root` is put before every path read, for tests.
std::vector<CgroupLevel> CgroupLevels(const std::string& controller, const std::string& root);

}  // namespace kvasir
