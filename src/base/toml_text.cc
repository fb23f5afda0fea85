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
        const size_t begin = at_;
        if (!SkipString(c) || (begins_amid_word_ && !AllAscii(begin, at_))) return Wrong();
        begins_amid_word_ = true;
      } else if (IsAscii(c)) {
        // The parser looks ahead to the end of a word, and what it takes for one goes on in what
        // would be a string elsewhere.
        begins_amid_word_ = !EndsWord(c) && (begins_amid_word_ || (c != '[' && c != '{'));
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

  static bool EndsWord(char c) { return IsSpace(c) || c == ']' || c == '}' || c == ','; }
  bool AllAscii(size_t begin, size_t end) const {
    const std::string_view part = text_.substr(begin, end - begin);
    return std::all_of(part.begin(), part.end(), IsAscii);
  }

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
    return MakeError(
        ErrorCode::kInvalid,
        "line {}: characters beyond ASCII stand in comments and in quotes after a space only",
        line);
  }

  std::string_view text_;
  size_t at_ = 0;
  bool begins_amid_word_ = false;  ///< what comes next is part of a word that has begun
};

}  // namespace

Result<toml::table> ParseToml(std::string_view text) {
  KV_RETURN_IF_ERROR(TomlScanner(text).Scan());
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    return MakeError(ErrorCode::kInvalid, "line {}: {}", error.source().begin.line,
                     error.description());
  }
}

}  // namespace kvasir
