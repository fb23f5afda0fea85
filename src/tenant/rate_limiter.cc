#include "tenant/rate_limiter.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvasir {
namespace {

constexpr double kMinute = 60;

}  // namespace

/// The tenant's buckets as they are `now`, with its limits of now.
RateLimiter::Buckets& RateLimiter::Refill(const Tenant& tenant, double now) {
  Buckets& b = buckets_[tenant.id];
  const double passed = std::max(0.0, now - b.time);
  const auto refill = [passed](Bucket& bucket, int64_t limit) {
    const auto rate = static_cast<double>(limit);
    // A new limit is met with a full bucket, as far as there is no debt.
    if (bucket.rate != rate) bucket.level = bucket.level < 0 ? bucket.level : rate;
    bucket.rate = rate;
    bucket.level = std::min(rate, bucket.level + passed / kMinute * rate);
  };
  refill(b.requests, tenant.limits.requests_per_minute);
  refill(b.tokens, tenant.limits.tokens_per_minute);
  b.time = std::max(b.time, now);
  return b;
}

std::optional<RateLimiter::Refusal> RateLimiter::Take(const Tenant& tenant, int64_t tokens,
                                                      double now) {
  const TenantLimits& l = tenant.limits;
  if (l.requests_per_minute == 0 && l.tokens_per_minute == 0) return {};
  Buckets& b = Refill(tenant, now);
  const auto wait = [](const Bucket& bucket, double wanted) {
    return (wanted - bucket.level) / bucket.rate * kMinute;
  };
  if (l.requests_per_minute > 0 && b.requests.level < 1) {
    return Refusal{fmt::format("{} requests a minute", l.requests_per_minute), wait(b.requests, 1)};
  }
  const double wanted = std::min(static_cast<double>(tokens), b.tokens.rate);
  if (l.tokens_per_minute > 0 && b.tokens.level < wanted) {
    return Refusal{fmt::format("{} tokens a minute", l.tokens_per_minute), wait(b.tokens, wanted)};
  }
  b.requests.level -= 1;
  b.tokens.level -= static_cast<double>(tokens);
  return {};
}

void RateLimiter::Spend(const Tenant& tenant, int64_t tokens, double now) {
  if (tenant.limits.tokens_per_minute == 0) return;
  Refill(tenant, now).tokens.level -= static_cast<double>(tokens);
}

}  // namespace kvasir
