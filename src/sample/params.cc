#include "sample/params.h"

#include <cmath>

namespace kvasir {
namespace {

constexpr size_t kMaxStopBytes = 4096;
constexpr size_t kMaxBiases = 1024;
constexpr int32_t kMaxLogprobs = 100;

/// NaN is in no range.
Status InRange(const char* name, double value, double min, double max) {
  if (value >= min && value <= max) return {};
  return MakeError(ErrorCode::kInvalid, "{} is {}; it must be from {} to {}", name, value, min,
                   max);
}

}  // namespace

Status Validate(const SamplingParams& p, int32_t vocab) {
  if (p.logit_bias.size() > kMaxBiases) {
    return MakeError(ErrorCode::kInvalid, "logit_bias has {} entries; at most {} are allowed",
                     p.logit_bias.size(), kMaxBiases);
  }
  for (const auto& [token, bias] : p.logit_bias) {
    KV_RETURN_IF_ERROR(InRange("a token of logit_bias", token, 0, vocab - 1));
    KV_RETURN_IF_ERROR(InRange("a value of logit_bias", bias, -100, 100));
  }
  KV_RETURN_IF_ERROR(InRange("repetition_penalty", p.repetition_penalty, 0.01, 100));
  KV_RETURN_IF_ERROR(InRange("frequency_penalty", p.frequency_penalty, -2, 2));
  KV_RETURN_IF_ERROR(InRange("presence_penalty", p.presence_penalty, -2, 2));
  KV_RETURN_IF_ERROR(InRange("penalty_last_n", p.penalty_last_n, -1, INT32_MAX));
  KV_RETURN_IF_ERROR(InRange("min_tokens", p.min_tokens, 0, INT32_MAX));
  KV_RETURN_IF_ERROR(InRange("temperature", p.temperature, 0, 100));
  KV_RETURN_IF_ERROR(InRange("top_k", p.top_k, 0, INT32_MAX));
  KV_RETURN_IF_ERROR(InRange("typical_p", p.typical_p, 0, 1));
  KV_RETURN_IF_ERROR(InRange("top_p", p.top_p, 0, 1));
  KV_RETURN_IF_ERROR(InRange("min_p", p.min_p, 0, 1));
  return InRange("logprobs", p.logprobs, -1, kMaxLogprobs);
}

Status Validate(const StopRules& rules, int32_t vocab) {
  if (rules.strings.size() > kMaxStopStrings) {
    return MakeError(ErrorCode::kInvalid, "there are {} stop strings; at most {} are allowed",
                     rules.strings.size(), kMaxStopStrings);
  }
  size_t bytes = 0;
  for (const std::string& s : rules.strings) {
    if (s.empty()) return MakeError(ErrorCode::kInvalid, "a stop string is empty");
    bytes += s.size();
  }
  if (bytes > kMaxStopBytes) {
    return MakeError(ErrorCode::kInvalid, "the stop strings have {} bytes; at most {} are allowed",
                     bytes, kMaxStopBytes);
  }
  if (rules.token_ids.size() > kMaxStopTokens) {
    return MakeError(ErrorCode::kInvalid, "there are {} stop tokens; at most {} are allowed",
                     rules.token_ids.size(), kMaxStopTokens);
  }
  for (const int32_t id : rules.token_ids) {
    KV_RETURN_IF_ERROR(InRange("a stop token", id, 0, vocab - 1));
  }
  return {};
}

}  // namespace kvasir
