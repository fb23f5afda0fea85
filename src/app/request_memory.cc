#include "app/request_memory.h"

#include <algorithm>

#include "app/flags.h"

namespace kvasir {

Result<RequestMemory> PlanRequests(const std::string& body_limit, uint64_t available) {
  constexpr uint64_t kPart = 16, kLeast = 32 << 20, kMost = 512 << 20, kUsualBody = 32 << 20;
  constexpr uint64_t kBecomes = 8;  // bytes that a byte of a body may become
  RequestMemory m{.bytes = std::clamp(available / kPart, kLeast, kMost)};
  if (!body_limit.empty()) {
    KV_ASSIGN(m.body_bytes, ParseBytes("--body-limit", body_limit));
    constexpr uint64_t kMostBody = 1 << 30;
    if (m.body_bytes < 1 || m.body_bytes > kMostBody)
      return FlagError("--body-limit is {}; it must be from 1 to 1G", body_limit);
    m.bytes = std::max(m.bytes, kBecomes * m.body_bytes);
  }
  m.all_bodies_bytes = m.bytes / kBecomes;
  if (body_limit.empty()) m.body_bytes = std::min(kUsualBody, m.all_bodies_bytes / 2);
  return m;
}

}  // namespace kvasir
