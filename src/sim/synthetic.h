#pragma once

#include <string>
#include <vector>

#include "sim/trace.h"

namespace kvasir {

/// A made-up stream of requests. Lengths are drawn around their means, arrivals are Poisson.
struct SyntheticOptions {
  /// "shared": a few long system prompts, each with short questions of its own.
  /// "chats": conversations; each turn's prompt is all that was said before and a new question.
  /// "documents": long prompts that have nothing in common.
  /// "flood": four tenants with chats; the last sends ten times what the others send.
  std::string kind = "shared";
  size_t requests = 1000;
  double per_second = 2;  ///< arrivals of all together
  uint64_t seed = 1;
};

/// The trace of a workload; the same options give the same trace. An Error for an unknown kind.
Result<std::vector<TraceRequest>> MakeSynthetic(const SyntheticOptions& options);

}  // namespace kvasir
