#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace kvasir {

/// Takes server-sent events out of bytes that come cut anywhere (WHATWG HTML, 9.2): the data of
/// each event, lines joined. Comments and other fields are skipped. Bounded: an event that is
/// larger than kMost is an error.
class SseReader {
 public:
  static constexpr size_t kMost = 64 << 20;

  /// Calls `data` for each event that is complete now. False once an event was too large.
  bool Push(std::string_view bytes, const std::function<void(std::string_view data)>& data);

 private:
  void Line(std::string_view line, const std::function<void(std::string_view data)>& data);
  std::string line_, data_;
  bool has_data_ = false, after_return_ = false;
};

}  // namespace kvasir
