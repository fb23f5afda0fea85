#include "engine/request.h"

#include "base/clock.h"

namespace kvasir {

std::string_view NameOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

CacheReport ForClient(const CacheReport& report, uint64_t tenant) {
  CacheReport out = report;
  if (out.diverged_tenant != tenant) out.diverged_had = -1;
  out.diverged_tenant = 0;
  out.evicted_for = 0;
  return out;
}

double RequestStats::ttft_seconds() const {
  return first_token_ns == 0 ? 0 : SecondsBetween(submitted_ns, first_token_ns);
}

double RequestStats::decode_tokens_per_second() const {
  if (output_tokens < 2 || last_token_ns <= first_token_ns) return 0;
  return (output_tokens - 1) / SecondsBetween(first_token_ns, last_token_ns);
}

}  // namespace kvasir
