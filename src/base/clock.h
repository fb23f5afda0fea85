#pragma once

#include <cstdint>

namespace kvasir {

/// Time in nanoseconds since an arbitrary start. Passed to whoever needs it, so that the simulator
/// can bring its own.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t NowNs() const = 0;
};

/// The machine's clock that never goes back, whatever is done to its date.
const Clock& SteadyClock();

inline double SecondsBetween(int64_t from_ns, int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) * 1e-9;
}

}  // namespace kvasir
