#pragma once

#include <fmt/format.h>

#include <string>

namespace kvasir {

/// Prints one line with the place and the text, then aborts. For our own bugs only: nothing that a
/// user, a file or a peer sends may lead here (those are a Result's errors).
[[noreturn]] void CheckFailed(const char* file, int line, const std::string& text);

}  // namespace kvasir

/// CHECK(condition) aborts when our own invariant is broken.
#define CHECK(cond)                                                \
  do {                                                             \
    if (!(cond)) ::kvasir::CheckFailed(__FILE__, __LINE__, #cond); \
  } while (0)

#define KVASIR_CHECK_OP(a, op, b)                                                               \
  do {                                                                                          \
    const auto& kvasir_check_a = (a);                                                           \
    const auto& kvasir_check_b = (b);                                                           \
    if (!(kvasir_check_a op kvasir_check_b)) {                                                  \
      ::kvasir::CheckFailed(                                                                    \
          __FILE__, __LINE__,                                                                   \
          fmt::format("{} {} {}: {} against {}", #a, #op, #b, kvasir_check_a, kvasir_check_b)); \
    }                                                                                           \
  } while (0)

/// CHECK_EQ(a, b) and its kin print both values.
#define CHECK_EQ(a, b) KVASIR_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) KVASIR_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) KVASIR_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) KVASIR_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) KVASIR_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) KVASIR_CHECK_OP(a, >=, b)
