#include "text/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "text/jinja_value.h"
#include "text/utf8.h"

namespace kvasir::jinja {
namespace {

constexpr std::array<std::string_view, 24> kOperators = {
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~",
    "<",  ">",  "=",  ".",  ":",  "|",  ",", "(", ")", "[", "]", "{"};

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsNameStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80);
}
bool IsNamePart(char c) { return IsNameStart(c) || std::isdigit(static_cast<unsigned char>(c)); }

std::string NormalizeNewlines(std::string_view in) {
  std::string out;
  out.reserve(in.size());
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i] == '\r') {
      out += '\n';
      if (i + 1 < in.size() && in[i + 1] == '\n') ++i;
    } else {
      out += in[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(NormalizeNewlines(source)) {}

  std::vector<Token> Run() {
    while (at_ < text_.size()) {
      const size_t tag = FindTag();
      AddData(tag);
      if (tag == std::string::npos) break;
      TakeTag();
    }
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Fail(const std::string& message) const {
    throw TemplateError(fmt::format("line {}: {}", line_, message));
  }
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  std::string_view Rest() const { return std::string_view(text_).substr(at_); }
  void Advance(size_t count) {
    line_ +=
        static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                                    text_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
  }

  size_t FindTag() const {
    for (size_t i = text_.find('{', at_); i != std::string::npos; i = text_.find('{', i + 1)) {
      const char next = i + 1 < text_.size() ? text_[i + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return i;
    }
    return std::string::npos;
  }

  /// Data up to a tag, with the space that the tag takes from its end.
  void AddData(size_t tag) {
    const size_t end = std::min(tag, text_.size());
    std::string data = text_.substr(at_, end - at_);
    const bool at_line_start = at_ == 0 || text_[at_ - 1] == '\n';
    if (tag != std::string::npos) {
      const char mark = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      if (mark == '-') {
        while (!data.empty() && IsSpace(data.back())) data.pop_back();
      } else if (mark != '+' && text_[tag + 1] != '{') {
        StripLineStart(&data, at_line_start);
      }
    }
    if (!data.empty()) Add(TokenKind::kData, std::move(data));
    Advance(end - at_);
  }

  /// lstrip_blocks: the spaces before a block or comment go if nothing else is before it on its
  /// line.
  static void StripLineStart(std::string* data, bool data_starts_line) {
    size_t keep = data->size();
    while (keep > 0 && IsSpace((*data)[keep - 1]) && (*data)[keep - 1] != '\n') --keep;
    if (keep == 0 ? data_starts_line : (*data)[keep - 1] == '\n') data->resize(keep);
  }

  void TakeTag() {
    const char kind = text_[at_ + 1];
    if (kind == '#') {
      const size_t begin = at_ + (Peek(2) == '-' || Peek(2) == '+' ? 3 : 2);
      const size_t end = text_.find("#}", begin);
      if (end == std::string::npos) Fail("a comment {# has no end #}");
      const char mark = end > begin ? text_[end - 1] : '\0';  // that of the begin is no other
      Advance(end - at_);
      EndTag(2, mark == '-', mark != '+');
      return;
    }
    if (kind == '%' && TakeRaw()) return;
    const bool block = kind == '%';
    Add(block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    Advance(Peek(2) == '-' || Peek(2) == '+' ? 3 : 2);
    TakeExpression(block ? "%}" : "}}", block);
  }

  /// Leaves a tag whose end mark has `length` characters. trim_blocks: the newline after a block or
  /// comment goes.
  void EndTag(size_t length, bool strip, bool trim_newline) {
    Advance(length);
    if (strip) {
      size_t n = 0;
      while (at_ + n < text_.size() && IsSpace(text_[at_ + n])) ++n;
      Advance(n);
    } else if (trim_newline && Peek() == '\n') {
      Advance(1);
    }
  }

  /// Length of "{%- name -%}" at `at`, with any marks; 0 if it is not that.
  size_t TagLength(size_t at, std::string_view name, char* open, char* close) const {
    const std::string_view s = std::string_view(text_).substr(at);
    size_t i = 2;
    const auto mark = [&](char* out) {
      *out = i < s.size() && (s[i] == '-' || s[i] == '+') ? s[i++] : '\0';
    };
    const auto skip = [&] {
      while (i < s.size() && IsSpace(s[i])) ++i;
    };
    if (s.substr(0, 2) != "{%") return 0;
    mark(open);
    skip();
    if (s.substr(i, name.size()) != name) return 0;
    i += name.size();
    skip();
    mark(close);
    return s.substr(i, 2) == "%}" ? i + 2 : 0;
  }

  bool TakeRaw() {
    char open = 0, close = 0;
    const size_t begin = TagLength(at_, "raw", &open, &close);
    if (begin == 0) return false;
    Advance(begin - 2);
    EndTag(2, close == '-', false);
    for (size_t end = text_.find("{%", at_); end != std::string::npos;
         end = text_.find("{%", end + 2)) {
      const size_t length = TagLength(end, "endraw", &open, &close);
      if (length == 0) continue;
      AddData(end);
      Advance(length - 2);
      EndTag(2, close == '-', close != '+');
      return true;
    }
    Fail("{% raw %} has no {% endraw %}");
  }

  void TakeExpression(std::string_view end, bool block) {
    int nesting = 0;
    for (;;) {
      while (IsSpace(Peek())) Advance(1);
      if (at_ >= text_.size()) Fail(fmt::format("a tag has no end {}", end));
      const std::string_view rest = Rest();
      const char mark = rest[0];
      const bool marked = (mark == '-' || (mark == '+' && block)) && rest.substr(1, 2) == end;
      if (nesting == 0 && (marked || rest.substr(0, 2) == end)) {
        Add(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
        EndTag(marked ? 3 : 2, marked && mark == '-', block && !(marked && mark == '+'));
        return;
      }
      TakeToken(&nesting);
    }
  }

  void TakeToken(int* nesting) {
    const char c = Peek();
    if (IsNameStart(c)) {
      size_t n = 1;
      while (IsNamePart(Peek(n))) ++n;
      Add(TokenKind::kName, text_.substr(at_, n));
      Advance(n);
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      TakeNumber();
    } else if (c == '"' || c == '\'') {
      TakeString(c);
    } else if (c == '}') {
      if (--*nesting < 0) Fail("unexpected }");
      Add(TokenKind::kOperator, "}");
      Advance(1);
    } else {
      const auto* op = std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view o) {
        return Rest().substr(0, o.size()) == o;
      });
      if (op == kOperators.end()) Fail(fmt::format("unexpected character '{}'", c));
      if (*op == "(" || *op == "[" || *op == "{") ++*nesting;
      if (*op == ")" || *op == "]") --*nesting;
      if (*nesting < 0) Fail(fmt::format("unexpected {}", *op));
      Add(TokenKind::kOperator, std::string(*op));
      Advance(op->size());
    }
  }

  void TakeNumber() {
    size_t n = 0;
    const auto digits = [&](auto is_digit) {
      while (is_digit(Peek(n)) || (Peek(n) == '_' && is_digit(Peek(n + 1)))) ++n;
    };
    const auto decimal = [](char ch) { return ch >= '0' && ch <= '9'; };
    const char base = static_cast<char>(std::tolower(static_cast<unsigned char>(Peek(1))));
    bool is_float = false;
    if (Peek() == '0' && (base == 'x' || base == 'o' || base == 'b')) {
      n = 2;
      digits([](char ch) { return std::isxdigit(static_cast<unsigned char>(ch)) != 0; });
    } else {
      digits(decimal);
      if (Peek(n) == '.' && decimal(Peek(n + 1))) {
        is_float = true;
        ++n;
        digits(decimal);
      }
      const size_t sign = Peek(n + 1) == '+' || Peek(n + 1) == '-' ? 1 : 0;
      if ((Peek(n) == 'e' || Peek(n) == 'E') && decimal(Peek(n + 1 + sign))) {
        is_float = true;
        n += 1 + sign;
        digits(decimal);
      }
    }
    std::string text = text_.substr(at_, n);
    std::erase(text, '_');
    Add(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    Advance(n);
  }

  void TakeString(char quote) {
    const int start = line_;
    std::string out;
    size_t i = at_ + 1;
    for (; i < text_.size() && text_[i] != quote; ++i) {
      if (text_[i] == '\\' && i + 1 < text_.size()) {
        Unescape(&i, &out);
      } else {
        out += text_[i];
      }
    }
    if (i >= text_.size()) Fail("a string has no end");
    Advance(i + 1 - at_);
    tokens_.push_back({TokenKind::kString, std::move(out), start});
  }

  /// `*i` is at a backslash and is left at the last character of the escape.
  void Unescape(size_t* i, std::string* out) const {
    const char c = text_[++*i];
    switch (c) {
      case 'n':
        *out += '\n';
        return;
      case 't':
        *out += '\t';
        return;
      case 'r':
        *out += '\r';
        return;
      case 'b':
        *out += '\b';
        return;
      case 'f':
        *out += '\f';
        return;
      case 'v':
        *out += '\v';
        return;
      case 'a':
        *out += '\a';
        return;
      case '\\':
      case '\'':
      case '"':
        *out += c;
        return;
      case '\n':
        return;
      case 'x':
        return UnescapeCode(i, 2, 16, out);
      case 'u':
        return UnescapeCode(i, 4, 16, out);
      case 'U':
        return UnescapeCode(i, 8, 16, out);
      default:
        break;
    }
    if (c >= '0' && c <= '7') {
      size_t n = 1;
      while (n < 3 && *i + n < text_.size() && text_[*i + n] >= '0' && text_[*i + n] <= '7') ++n;
      --*i;
      return UnescapeCode(i, n, 8, out);
    }
    *out += '\\';
    *out += c;
  }

  void UnescapeCode(size_t* i, size_t digits, int base, std::string* out) const {
    const std::string hex = text_.substr(*i + 1, digits);
    size_t used = 0;
    unsigned long code = 0;
    try {
      code = std::stoul(hex, &used, base);
    } catch (const std::exception&) {
      used = 0;
    }
    const bool scalar = code < 0x110000 && !(code >= 0xD800 && code < 0xE000);
    if (used != digits || hex.size() != digits || !scalar) Fail("a string has an invalid escape");
    AppendUtf8(static_cast<uint32_t>(code), out);
    *i += digits;
  }

  std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace kvasir::jinja
