#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace kvasir {

/// What went wrong, for a person: one line that names the thing, the value, the limit, and what to
/// do. `code` says whose fault it is, which decides the exit code or the HTTP status.
enum class ErrorCode {
  kInvalid,      ///< the input (a file, a flag, a request) is malformed or out of range
  kUnsupported,  ///< well formed, but a feature that Kvasir does not have
  kNotFound,     ///< a file, model or name that does not exist
  kNoMemory,     ///< it does not fit in the memory that is really available
  kIo,           ///< the operating system refused
  kCancelled,    ///< somebody stopped it
  kBusy,         ///< too much at once: the same would be taken later
};

struct Error {
  ErrorCode code = ErrorCode::kInvalid;
  std::string message;
  bool in_flags = false;  ///< in a flag or a setting: the command line's exit code is then another
};

/// MakeError(code, "format {}", args...) builds an Error.
template <typename... Args>
Error MakeError(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

/// MakeError for a flag or a setting that is wrong.
template <typename... Args>
Error FlagError(fmt::format_string<Args...> format, Args&&... args) {
  return Error{ErrorCode::kInvalid, fmt::format(format, std::forward<Args>(args)...), true};
}

/// Either a T or an Error. The world's failures (files, sockets, requests) travel in it; our own
/// bugs are CHECKs.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return Checked(); }
  const T& value() const& { return const_cast<Result*>(this)->Checked(); }
  T&& value() && { return std::move(Checked()); }
  T& operator*() & { return Checked(); }
  const T& operator*() const& { return const_cast<Result*>(this)->Checked(); }
  T&& operator*() && { return std::move(Checked()); }
  T* operator->() { return &Checked(); }
  const T* operator->() const { return &const_cast<Result*>(this)->Checked(); }

  const Error& error() const {
    CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  T& Checked() {
    if (!ok()) CheckFailed(__FILE__, __LINE__, "value() of an error: " + error().message);
    return std::get<0>(state_);
  }
  std::variant<T, Error> state_;
};

/// Success, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

/// `checked` (a Result or a Status of what a flag says): its Error, if any, is one of flags.
template <typename T>
T InFlags(T checked) {
  if (checked.ok()) return checked;
  Error error = checked.error();
  error.in_flags = true;
  return error;
}

}  // namespace kvasir

/// KV_RETURN_IF_ERROR(expr): returns the Error of a Status or Result from this function.
#define KV_RETURN_IF_ERROR(expr)                    \
  do {                                              \
    if (auto kv_status = (expr); !kv_status.ok()) { \
      return kv_status.error();                     \
    }                                               \
  } while (0)

#define KV_CONCAT_INNER(a, b) a##b
#define KV_CONCAT(a, b) KV_CONCAT_INNER(a, b)
/// KV_ASSIGN(auto x, expr): x = the Result's value, or returns its Error from this function.
#define KV_ASSIGN(declaration, expr) \
  KV_ASSIGN_IMPL(KV_CONCAT(kv_result_, __LINE__), declaration, expr)
#define KV_ASSIGN_IMPL(tmp, declaration, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.error();           \
  declaration = std::move(*tmp)
