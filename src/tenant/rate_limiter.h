#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "tenant/key_table.h"

namespace kvasir {

/// Keeps tenants to their requests and tokens a minute: a token bucket for each, as large as a
/// minute's worth. Time is seconds of any clock; one that goes back counts as standing still.
///
/// A request is taken when it comes, and tells the limits as they are then; its tokens are taken
/// once they are counted. Where there is no limit nothing is counted, and nothing owed later. A
/// first limit begins with a full bucket; one that changes, or goes and comes again, goes on with
/// what the bucket holds.
class RateLimiter {
 public:
  struct Refusal {
    std::string limit;     ///< "3 requests a minute"
    double retry_after_s;  ///< when the same would be taken, as far as it is known
  };

  /// Takes a request out of its bucket, or nothing: there is none, or no token.
  std::optional<Refusal> TakeRequest(const Tenant& tenant, double now);
  /// Takes the tokens of a request's prompt, or nothing. More tokens than a minute has are taken
  /// from a full bucket, and leave a debt.
  std::optional<Refusal> TakeTokens(uint64_t tenant, int64_t tokens, double now);
  /// Takes `tokens` that were not known before; the bucket may go below zero.
  void Spend(uint64_t tenant, int64_t tokens, double now);
  /// Puts back what was taken for something that was not done.
  void GiveBack(uint64_t tenant, int64_t requests, int64_t tokens, double now);

 private:
  struct Bucket {
    double level = 0;
    double rate = 0;       // a minute; of the last limit there was. 0: never any
    bool limited = false;  // now
    void SetLimit(int64_t limit);
    double SecondsUntil(double wanted) const;
    void Add(double amount);
  };
  struct Buckets {
    Bucket requests, tokens;
    double time = 0;
    void Refill(double now);
  };
  Buckets* Find(uint64_t tenant, double now);

  std::unordered_map<uint64_t, Buckets> buckets_;  // by tenant; only of those that had a limit
};

}  // namespace kvasir
