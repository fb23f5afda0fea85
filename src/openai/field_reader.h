#pragma once

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "openai/api_error.h"

namespace kvasir {

/// Reads the fields of a JSON object, remembers the first error, and which fields were asked for.
/// null is as if left out. After an error all reads leave their targets alone.
class FieldReader {
 public:
  /// `prefix` is put before field names in errors: "stream_options.".
  explicit FieldReader(const nlohmann::ordered_json& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  /// The field, or nullptr if it is not there, null, or there was an error before.
  const nlohmann::ordered_json* Get(const std::string& name) {
    known_.insert(name);
    if (error_) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  void Fail(const std::string& name, const std::string& what) {
    if (error_) return;
    error_ = ApiError{.message = fmt::format("{}{} {}", prefix_, name, what),
                      .param = prefix_ + name,
                      .code = {}};
  }

  /// With a message that is a whole sentence and names the field itself.
  void Refuse(const std::string& name, const std::string& message, std::string code = {}) {
    if (error_) return;
    error_ = ApiError{.message = message, .param = prefix_ + name, .code = std::move(code)};
  }

  void Bool(const std::string& name, bool* out) {
    const auto* value = Get(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fail(name, "must be true or false");
    *out = value->get<bool>();
  }

  void String(const std::string& name, std::string* out) {
    const auto* value = Get(name);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(name, "must be a string");
    *out = value->get<std::string>();
  }

  void Object(const std::string& name) {
    const auto* value = Get(name);
    if (value != nullptr && !value->is_object()) Fail(name, "must be an object");
  }

  template <typename T>
  void Int(const std::string& name, T* out, int64_t least, int64_t most) {
    const auto* value = Get(name);
    if (value == nullptr) return;
    if (!value->is_number_integer()) return Fail(name, "must be an integer");
    const bool too_big = value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
    const int64_t number = too_big ? INT64_MAX : value->get<int64_t>();
    if (number < least || number > most || too_big)
      return Fail(name, fmt::format("is {}; it must be from {} to {}", value->dump(), least, most));
    *out = static_cast<T>(number);
  }

  template <typename T>
  void Number(const std::string& name, T* out, double least, double most) {
    const auto* value = Get(name);
    if (value == nullptr) return;
    if (!value->is_number()) return Fail(name, "must be a number");
    const double number = value->get<double>();
    if (!(number >= least && number <= most))
      return Fail(name, fmt::format("is {}; it must be from {} to {}", value->dump(), least, most));
    *out = static_cast<T>(number);
  }

  /// Fields of the object that nobody asked for.
  std::vector<std::string> Unknown() const {
    std::vector<std::string> out;
    for (const auto& [name, value] : object_.items()) {
      if (known_.count(name) == 0) out.push_back(name);
    }
    return out;
  }

  const std::optional<ApiError>& error() const { return error_; }

 private:
  const nlohmann::ordered_json& object_;
  std::string prefix_;
  std::set<std::string> known_;
  std::optional<ApiError> error_;
};

}  // namespace kvasir
