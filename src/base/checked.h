#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace kvasir {

/// A size that knows when it overflowed. Sizes that come from files and requests are multiplied and
/// added as CheckedSize, and looked at once at the end: no term can wrap unseen.
class CheckedSize {
 public:
  constexpr CheckedSize(uint64_t value = 0) : value_(value) {}  // NOLINT: sizes convert

  friend constexpr CheckedSize operator+(CheckedSize a, CheckedSize b) {
    CheckedSize r;
    r.bad_ = __builtin_add_overflow(a.value_, b.value_, &r.value_) || a.bad_ || b.bad_;
    return r;
  }
  friend constexpr CheckedSize operator*(CheckedSize a, CheckedSize b) {
    CheckedSize r;
    r.bad_ = __builtin_mul_overflow(a.value_, b.value_, &r.value_) || a.bad_ || b.bad_;
    return r;
  }
  constexpr CheckedSize& operator+=(CheckedSize b) { return *this = *this + b; }
  constexpr CheckedSize& operator*=(CheckedSize b) { return *this = *this * b; }

  /// Rounded up to a multiple of `alignment`, which is not 0.
  constexpr CheckedSize RoundUp(uint64_t alignment) const {
    CheckedSize r = *this + (alignment - 1);
    r.value_ -= r.value_ % alignment;
    return r;
  }

  /// The value, unless some step overflowed 64 bits.
  constexpr std::optional<uint64_t> Get() const {
    if (bad_) return std::nullopt;
    return value_;
  }
  /// True when the value did not overflow and is at most `limit`.
  constexpr bool AtMost(uint64_t limit) const { return !bad_ && value_ <= limit; }

 private:
  uint64_t value_ = 0;
  bool bad_ = false;
};

/// `value` rounded up to a multiple of `alignment`, for sizes that are already known to be sane.
constexpr size_t RoundUp(size_t value, size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}
/// The number of `unit`s that hold `value`.
constexpr size_t DivUp(size_t value, size_t unit) { return (value + unit - 1) / unit; }

}  // namespace kvasir
