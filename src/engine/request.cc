#include "engine/request.h"

#include <utility>

#include "base/clock.h"

namespace kvasir {

const char* ForbiddenWithBeams(const Request& r) {
  const SamplingParams plain;
  const SamplingParams& p = r.sampling;
  const std::pair<bool, const char*> forbidden[] = {
      {p.temperature != 0, "temperature"},
      {p.top_k != plain.top_k, "top_k"},
      {p.top_p != plain.top_p, "top_p"},
      {p.min_p != plain.min_p, "min_p"},
      {p.typical_p != plain.typical_p, "typical_p"},
      {p.repetition_penalty != plain.repetition_penalty, "repetition_penalty"},
      {p.frequency_penalty != plain.frequency_penalty, "frequency_penalty"},
      {p.presence_penalty != plain.presence_penalty, "presence_penalty"},
      {!p.logit_bias.empty(), "logit_bias"},
      {p.min_tokens != 0, "min_tokens"},
      {p.logprobs > 0, "top_logprobs"},
      {!r.stop.strings.empty(), "stop"},
  };
  for (const auto& [set, name] : forbidden) {
    if (set) return name;
  }
  return nullptr;
}

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
