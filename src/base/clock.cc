#include "base/clock.h"

#include <chrono>

namespace kvasir {
namespace {

class StdSteadyClock final : public Clock {
 public:
  int64_t NowNs() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace

const Clock& SteadyClock() {
  static const StdSteadyClock clock;
  return clock;
}

}  // namespace kvasir
