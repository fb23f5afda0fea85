#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace kvasir {

/// Memory for what clients send and ask, which must be there beside the model.
struct RequestMemory {
  uint64_t bytes = 0;  ///< of all that it becomes: texts, JSON values, tokens, answers
  uint64_t all_bodies_bytes = 0, body_bytes = 0;
};

/// A part of what the machine has; a limit on bodies that was asked for asks for its room too.
Result<RequestMemory> PlanRequests(const std::string& body_limit, uint64_t available);

}  // namespace kvasir
