#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "tenant/key_table.h"

namespace kvasir {

/// Keeps tenants to their requests and tokens a minute: a token bucket for each, as large as a
/// minute's worth. Time is seconds of any clock; one that goes back counts as standing still.
class RateLimiter {
 public:
  struct Refusal {
    std::string limit;     ///< "3 requests a minute"
    double retry_after_s;  ///< when the same would be taken
  };

  /// Takes a request and its `tokens` out of the buckets, or nothing. A request with more tokens
  /// than a minute has is taken from a full bucket, and leaves a debt.
  std::optional<Refusal> Take(const Tenant& tenant, int64_t tokens, double now);
  /// Takes `tokens` that were not known before; the bucket may go below zero.
  void Spend(const Tenant& tenant, int64_t tokens, double now);

 private:
  struct Bucket {
    double level = 0;
    double rate = 0;  // a minute; 0: not used yet
  };
  struct Buckets {
    Bucket requests, tokens;
    double time = 0;
  };
  Buckets& Refill(const Tenant& tenant, double now);

  std::unordered_map<uint64_t, Buckets> buckets_;  // by tenant; only of those with a limit
};

}  // namespace kvasir
