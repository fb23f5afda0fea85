#include "base/toml_text.h"

#include <algorithm>
#include <string>

namespace kvasir {
namespace {

/// Goes over a text, and knows what it is in.
class TomlScanner {
 public:
  explicit TomlScanner(std::string_view text) : text_(text) {}

  Status Scan() {
    // A byte order mark may come first.
    if (text_.substr(0, 3) == "\xef\xbb\xbf") at_ = 3;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == '"' || c == '\'') {
        if (!SkipString(c)) return Wrong();
      } else if (IsAscii(c)) {
        ++at_;
      } else {
        return Wrong();
      }
    }
    return {};
  }

 private:
  static bool IsAscii(char c) { return static_cast<unsigned char>(c) < 0x80; }
  static bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

  /// False for what may not follow a backslash.
  bool SkipEscape() {
    ++at_;
    // A backslash at the end of a line takes the white space after it along.
    if (at_ < text_.size() && IsSpace(text_[at_])) {
      while (at_ < text_.size() && IsSpace(text_[at_])) ++at_;
      return at_ == text_.size() || IsAscii(text_[at_]);
    }
    if (at_ < text_.size() && !IsAscii(text_[at_])) return false;
    ++at_;
    return true;
  }

  bool SkipString(char quote) {
    const bool multi = text_.substr(at_, 3) == std::string_view(std::string(3, quote));
    at_ += multi ? 3 : 1;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\\' && quote == '"') {
        if (!SkipEscape()) return false;
      } else if (c == quote && (!multi || text_.substr(at_, 3) == std::string(3, quote))) {
        at_ += multi ? 3 : 1;
        return true;
      } else if (c == '\n' && !multi) {
        return true;  // unfinished: the parser will say so
      } else {
        ++at_;
      }
    }
    return true;
  }

  Error Wrong() const {
    size_t line = 1;
    for (const char c : text_.substr(0, std::min(at_, text_.size()))) line += c == '\n';
    return MakeError(ErrorCode::kInvalid,
                     "line {}: characters beyond ASCII stand in quotes and comments only", line);
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Status CheckTomlText(std::string_view text) { return TomlScanner(text).Scan(); }

}  // namespace kvasir
