#include "tenant/rate_limiter.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvasir {
namespace {

constexpr double kMinute = 60;

}  // namespace

void RateLimiter::Bucket::SetLimit(int64_t limit) {
  limited = limit > 0;
  if (!limited) return;  // it fills on at the rate it had, should the limit come again
  const bool first = rate == 0;
  rate = static_cast<double>(limit);
  level = first ? rate : std::min(level, rate);
}

double RateLimiter::Bucket::SecondsUntil(double wanted) const {
  return (wanted - level) / rate * kMinute;
}

/// Never more than a minute's worth.
void RateLimiter::Bucket::Add(double amount) {
  if (limited) level = std::min(rate, level + amount);
}

void RateLimiter::Buckets::Refill(double now) {
  const double passed = std::max(0.0, now - time);
  for (Bucket* b : {&requests, &tokens})
    b->level = std::min(b->rate, b->level + passed / kMinute * b->rate);
  time = std::max(time, now);
}

/// The tenant's buckets as they are `now`, or nullptr if it never had a limit.
RateLimiter::Buckets* RateLimiter::Find(uint64_t tenant, double now) {
  const auto it = buckets_.find(tenant);
  if (it == buckets_.end()) return nullptr;
  it->second.Refill(now);
  return &it->second;
}

std::optional<RateLimiter::Refusal> RateLimiter::TakeRequest(const Tenant& tenant, double now) {
  const TenantLimits& l = tenant.limits;
  const bool none = l.requests_per_minute == 0 && l.tokens_per_minute == 0;
  if (none && buckets_.count(tenant.id) == 0) return {};
  Buckets& b = buckets_[tenant.id];
  b.Refill(now);
  b.requests.SetLimit(l.requests_per_minute);
  b.tokens.SetLimit(l.tokens_per_minute);
  if (b.requests.limited && b.requests.level < 1) {
    return Refusal{fmt::format("{} requests a minute", l.requests_per_minute),
                   b.requests.SecondsUntil(1)};
  }
  // No prompt is so short that its tokens could be taken: it need not be read.
  if (b.tokens.limited && b.tokens.level < 1) {
    return Refusal{fmt::format("{} tokens a minute", l.tokens_per_minute),
                   b.tokens.SecondsUntil(1)};
  }
  b.requests.Add(-1);
  return {};
}

std::optional<RateLimiter::Refusal> RateLimiter::TakeTokens(uint64_t tenant, int64_t tokens,
                                                            double now) {
  Buckets* b = Find(tenant, now);
  if (b == nullptr || !b->tokens.limited) return {};
  const double wanted = std::min(static_cast<double>(tokens), b->tokens.rate);
  if (b->tokens.level < wanted) {
    return Refusal{fmt::format("{:.0f} tokens a minute", b->tokens.rate),
                   b->tokens.SecondsUntil(wanted)};
  }
  b->tokens.Add(-static_cast<double>(tokens));
  return {};
}

void RateLimiter::Spend(uint64_t tenant, int64_t tokens, double now) {
  if (Buckets* b = Find(tenant, now); b != nullptr) b->tokens.Add(-static_cast<double>(tokens));
}

void RateLimiter::GiveBack(uint64_t tenant, int64_t requests, int64_t tokens, double now) {
  Buckets* b = Find(tenant, now);
  if (b == nullptr) return;
  b->requests.Add(static_cast<double>(requests));
  b->tokens.Add(static_cast<double>(tokens));
}

}  // namespace kvasir
