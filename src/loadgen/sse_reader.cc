#include "loadgen/sse_reader.h"

#include <utility>

namespace kvasir {

void SseReader::Line(std::string_view line, const std::function<void(std::string_view)>& data) {
  if (line.empty()) {
    if (std::exchange(has_data_, false)) data(data_);
    data_.clear();
    return;
  }
  constexpr std::string_view kField = "data:";
  if (line.substr(0, kField.size()) != kField) return;
  line.remove_prefix(kField.size());
  if (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

bool SseReader::Push(std::string_view bytes, const std::function<void(std::string_view)>& data) {
  for (const char c : bytes) {
    // A line ends with LF, CR, or both.
    if (c == '\n' && std::exchange(after_return_, false)) continue;
    after_return_ = c == '\r';
    if (c != '\n' && c != '\r') {
      line_ += c;
      continue;
    }
    Line(line_, data);
    line_.clear();
  }
  return line_.size() + data_.size() <= kMost;
}

}  // namespace kvasir
