#include "text/jinja_strings.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "text/jinja_interpreter.h"
#include "text/utf8.h"

namespace kvasir::jinja {
namespace {

/// Calls f(code, bytes of it) for each character.
template <typename F>
void ForEachChar(std::string_view s, F f) {
  for (size_t i = 0; i < s.size();) {
    if (const auto byte = static_cast<uint8_t>(s[i]); byte < 0x80) {
      f(uint32_t{byte}, s.substr(i, 1));
      ++i;
      continue;
    }
    const Utf8Char c = DecodeUtf8(s.substr(i));
    f(c.code, s.substr(i, static_cast<size_t>(c.bytes)));
    i += static_cast<size_t>(c.bytes);
  }
}

void AppendUpper(uint32_t code, std::string* out) {
  if (code == 0xDF) {  // the one letter of everyday text whose upper case has two
    *out += "SS";
    return;
  }
  AppendUtf8(static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))), out);
}

void AppendLower(uint32_t code, std::string* out) {
  AppendUtf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))), out);
}

bool IsLetter(uint32_t code) {
  const auto c = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool IsCased(uint32_t code) {
  const auto c = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LT;
}

bool IsDigitChar(uint32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code)) == UTF8PROC_CATEGORY_ND;
}

/// Compares texts, and counts the bytes that it looked at.
class ComparedBytes {
 public:
  explicit ComparedBytes(Interpreter& in) : in_(in) {}
  bool BeginsWith(std::string_view s, std::string_view what) {
    const auto differ = std::mismatch(what.begin(), what.end(), s.begin(), s.end());
    uncounted_ += static_cast<size_t>(differ.first - what.begin()) + 1;
    if (uncounted_ >= kChunk) in_.SpendScan(std::exchange(uncounted_, 0));
    return differ.first == what.end();
  }

 private:
  static constexpr size_t kChunk = 1 << 14;  // less is not worth the call
  Interpreter& in_;
  size_t uncounted_ = 0;
};

void CheckSeparator(const std::string* separator) {
  if (separator != nullptr && separator->empty())
    throw TemplateError("split: the separator is empty");
}

void AddPart(Interpreter& in, std::string_view part, std::vector<std::string>* out) {
  in.Spend(1);
  out->emplace_back(part);
}

/// Where the words begin and end that white space separates.
std::vector<std::pair<size_t, size_t>> Words(Interpreter& in, std::string_view s) {
  std::vector<std::pair<size_t, size_t>> out;
  size_t at = 0;
  bool in_word = false;
  ForEachChar(s, [&](uint32_t code, std::string_view c) {
    if (IsWhite(code)) {
      in_word = false;
    } else {
      if (!in_word) {
        in.Spend(1);
        out.emplace_back(at, at);
      }
      in_word = true;
      out.back().second = at + c.size();
    }
    at += c.size();
  });
  return out;
}

/// One conversion of PercentFormat.
struct Spec {
  bool left = false, zero = false, plus = false;
  size_t width = 0;
  int precision = -1;
};

std::string FormatOne(char kind, const Spec& spec, const Value& v) {
  std::string text;
  int64_t i = 0;
  switch (kind) {
    case 's':
      text = ToStr(v);
      break;
    case 'r':
      text = Repr(v);
      break;
    case 'd':
    case 'i':
    case 'x':
    case 'X':
      if (!v.number()) FailOperand(v, "be formatted as a number");
      if (!v.integer(&i)) {
        if (!(std::abs(v.real()) < 0x1p63)) FailInteger();
        i = static_cast<int64_t>(v.real());
      }
      text = kind == 'x'   ? fmt::format("{:x}", i)
             : kind == 'X' ? fmt::format("{:X}", i)
                           : std::to_string(i);
      break;
    case 'f':
      if (!v.number()) FailOperand(v, "be formatted as a number");
      text = fmt::format("{:.{}f}", v.real(), spec.precision < 0 ? 6 : spec.precision);
      break;
    default:
      throw TemplateError(fmt::format("the format %{} is not supported", kind));
  }
  if ((kind == 's' || kind == 'r') && spec.precision >= 0)
    text = SubString(text, 0, spec.precision);
  if (spec.plus && v.number() && text[0] != '-') text.insert(0, 1, '+');
  const auto length = static_cast<size_t>(CodePoints(text));
  if (length >= spec.width) return text;
  const size_t pad = spec.width - length;
  if (spec.left) return text + std::string(pad, ' ');
  if (!spec.zero || !v.number()) return std::string(pad, ' ') + text;
  const size_t sign = text[0] == '-' || text[0] == '+' ? 1 : 0;
  return text.substr(0, sign) + std::string(pad, '0') + text.substr(sign);
}

}  // namespace

int64_t CodePoints(std::string_view s) {
  int64_t n = 0;
  ForEachChar(s, [&](uint32_t, std::string_view) { ++n; });
  return n;
}

size_t ByteOfCharacter(std::string_view s, int64_t index) {
  size_t out = 0;
  ForEachChar(s, [&](uint32_t, std::string_view c) {
    if (index-- > 0) out += c.size();
  });
  return out;
}

std::vector<std::string> Characters(std::string_view s) {
  std::vector<std::string> out;
  ForEachChar(s, [&](uint32_t, std::string_view c) { out.emplace_back(c); });
  return out;
}

std::string SubString(std::string_view s, int64_t begin, int64_t end) {
  std::string out;
  int64_t i = 0;
  ForEachChar(s, [&](uint32_t, std::string_view c) {
    if (i >= begin && i < end) out += c;
    ++i;
  });
  return out;
}

std::string Upper(std::string_view s) {
  std::string out;
  ForEachChar(s, [&](uint32_t c, std::string_view) { AppendUpper(c, &out); });
  return out;
}

std::string Lower(std::string_view s) {
  std::string out;
  ForEachChar(s, [&](uint32_t c, std::string_view) { AppendLower(c, &out); });
  return out;
}

std::string Capitalize(std::string_view s) {
  std::string out;
  bool first = true;
  ForEachChar(s, [&](uint32_t c, std::string_view) {
    first ? AppendUpper(c, &out) : AppendLower(c, &out);
    first = false;
  });
  return out;
}

std::string Title(std::string_view s) {
  std::string out;
  bool in_word = false;
  ForEachChar(s, [&](uint32_t c, std::string_view) {
    in_word ? AppendLower(c, &out) : AppendUpper(c, &out);
    in_word = IsCased(c);
  });
  return out;
}

bool IsWhite(uint32_t c) {
  return (c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string TitleOfWords(std::string_view s) {
  std::string out;
  bool start = true;
  ForEachChar(s, [&](uint32_t code, std::string_view c) {
    start ? AppendUpper(code, &out) : AppendLower(code, &out);
    start = c.size() == 1 && (std::string_view("-({[<").find(c[0]) != std::string_view::npos ||
                              IsWhite(static_cast<uint8_t>(c[0])));
  });
  return out;
}

size_t FindText(Interpreter& in, std::string_view s, std::string_view what, size_t from) {
  if (from > s.size() || what.size() > s.size() - from) return std::string_view::npos;
  if (what.empty()) return from;
  ComparedBytes compared(in);
  const size_t last = s.size() - what.size();
  for (size_t at = s.find(what[0], from); at <= last; at = s.find(what[0], at + 1)) {
    if (compared.BeginsWith(s.substr(at), what)) return at;
  }
  return std::string_view::npos;
}

size_t FindLastText(Interpreter& in, std::string_view s, std::string_view what) {
  if (what.size() > s.size()) return std::string_view::npos;
  ComparedBytes compared(in);
  for (size_t at = s.size() - what.size() + 1; at-- > 0;) {
    if (compared.BeginsWith(s.substr(at), what)) return at;
  }
  return std::string_view::npos;
}

std::string Strip(std::string_view s, const std::string* chars, bool left, bool right) {
  std::unordered_set<std::string_view> set;
  if (chars != nullptr) ForEachChar(*chars, [&](uint32_t, std::string_view c) { set.insert(c); });
  size_t begin = 0, end = 0, at = 0;
  bool started = false;
  ForEachChar(s, [&](uint32_t code, std::string_view c) {
    const bool strip = chars == nullptr ? IsWhite(code) : set.count(c) != 0;
    if (!strip) {
      if (!started) begin = at;
      started = true;
      end = at + c.size();
    }
    at += c.size();
  });
  if (!started) begin = end = left ? s.size() : 0;
  if (!left) begin = 0;
  if (!right) end = s.size();
  return std::string(s.substr(begin, end - begin));
}

std::string ReplaceText(Interpreter& in, std::string_view s, std::string_view from,
                        std::string_view to, int64_t count) {
  std::string out;
  size_t at = 0;
  if (from.empty()) {  // between all characters
    ForEachChar(s, [&](uint32_t, std::string_view c) {
      if (count-- != 0)
        out += to;
      else
        count = 0;
      out += c;
    });
    if (count != 0) out += to;
    return out;
  }
  for (size_t hit; count != 0 && (hit = FindText(in, s, from, at)) != std::string_view::npos;
       --count) {
    out += s.substr(at, hit - at);
    out += to;
    at = hit + from.size();
  }
  return out += s.substr(at);
}

std::vector<std::string> Split(Interpreter& in, std::string_view s, const std::string* separator,
                               int64_t max_splits) {
  CheckSeparator(separator);
  std::vector<std::string> out;
  const auto add = [&](std::string_view part) { AddPart(in, part, &out); };
  if (separator != nullptr) {
    size_t at = 0;
    for (size_t hit;
         max_splits != 0 && (hit = FindText(in, s, *separator, at)) != std::string_view::npos;
         --max_splits) {
      add(s.substr(at, hit - at));
      at = hit + separator->size();
    }
    add(s.substr(at));
    return out;
  }
  for (const auto& [begin, end] : Words(in, s)) {
    if (max_splits >= 0 && static_cast<int64_t>(out.size()) == max_splits) {
      add(s.substr(begin));
      break;
    }
    add(s.substr(begin, end - begin));
  }
  return out;
}

std::vector<std::string> RSplit(Interpreter& in, std::string_view s, const std::string* separator,
                                int64_t max_splits) {
  CheckSeparator(separator);
  std::vector<std::string> out;
  const auto add = [&](std::string_view part) { AddPart(in, part, &out); };
  if (separator != nullptr) {
    for (size_t hit;
         max_splits != 0 && (hit = FindLastText(in, s, *separator)) != std::string_view::npos;
         --max_splits) {
      add(s.substr(hit + separator->size()));
      s = s.substr(0, hit);
    }
    add(s);
  } else {
    const auto words = Words(in, s);
    for (size_t i = words.size(); i-- > 0;) {
      const auto& [begin, end] = words[i];
      if (max_splits >= 0 && static_cast<int64_t>(out.size()) == max_splits) {
        add(s.substr(0, end));
        break;
      }
      add(s.substr(begin, end - begin));
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> SplitLines(Interpreter& in, std::string_view s, bool keep_ends) {
  std::vector<std::string> out;
  std::string line;
  bool after_return = false;
  const auto finish = [&] {
    in.Spend(1);
    out.push_back(std::exchange(line, {}));
  };
  ForEachChar(s, [&](uint32_t c, std::string_view bytes) {
    if (c == '\n' && after_return) {
      after_return = false;
      if (keep_ends) line += bytes;
      finish();
      return;
    }
    if (after_return) finish();
    after_return = c == '\r';
    const bool ends = (c >= 0xA && c <= 0xC) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if ((!ends && !after_return) || keep_ends) line += bytes;
    if (ends) finish();
  });
  if (after_return || !line.empty()) finish();
  return out;
}

bool IsAll(std::string_view s, CharClass what) {
  if (what == CharClass::kUpper ||
      what == CharClass::kLower) {  // at least one cased, none of the other case
    bool any = false, all = true;
    ForEachChar(s, [&](uint32_t c, std::string_view) {
      const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
      any = any || IsCased(c);
      const bool upper = category == UTF8PROC_CATEGORY_LU, lower = category == UTF8PROC_CATEGORY_LL;
      all = all && !(what == CharClass::kUpper ? lower : upper) && category != UTF8PROC_CATEGORY_LT;
    });
    return any && all;
  }
  bool all = !s.empty();
  ForEachChar(s, [&](uint32_t c, std::string_view) {
    switch (what) {
      case CharClass::kAlpha:
        all = all && IsLetter(c);
        break;
      case CharClass::kDigit:
        all = all && IsDigitChar(c);
        break;
      case CharClass::kAlnum:
        all = all && (IsLetter(c) || IsDigitChar(c));
        break;
      default:
        all = all && IsWhite(c);
    }
  });
  return all;
}

std::string PercentFormat(const std::string& format, const Value& values) {
  std::vector<Value> items = {values};
  if (values.list() != nullptr && values.list()->tuple) items = values.list()->items;
  constexpr size_t kMaxWidth = 10'000;
  size_t next = 0;
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    Spec spec;
    const auto peek = [&](size_t k) { return k < format.size() ? format[k] : '\0'; };
    for (++i; peek(i) == '-' || peek(i) == '0' || peek(i) == '+' || peek(i) == ' '; ++i) {
      spec.left |= format[i] == '-';
      spec.zero |= format[i] == '0';
      spec.plus |= format[i] == '+';
    }
    const auto number = [&] {
      size_t n = 0;
      for (; peek(i) >= '0' && peek(i) <= '9'; ++i)
        n = std::min(n * 10 + static_cast<size_t>(format[i] - '0'), kMaxWidth);
      return n;
    };
    spec.width = number();
    if (peek(i) == '.') {
      ++i;
      spec.precision = static_cast<int>(std::min<size_t>(number(), 100));
    }
    if (peek(i) == '%') {
      out += '%';
      continue;
    }
    if (next >= items.size()) throw TemplateError("there are more % formats than values");
    out += FormatOne(peek(i), spec, items[next++]);
    if (out.size() > kMaxValueBytes) throw TemplateError("a % format makes too long a text");
  }
  if (next < items.size()) throw TemplateError("there are more values than % formats");
  return out;
}

std::string BraceFormat(const std::string& format, const Args& values) {
  const auto bad = [](std::string_view what) {
    return TemplateError(
        fmt::format("format: {{{}}} is not supported, or has no value; {{}}, {{0}} "
                    "and {{name}} are",
                    what.substr(0, 40)));
  };
  std::string out;
  size_t next = 0;
  bool counted = false, numbered = false;
  for (size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == c) {
      out += c;
      ++i;
      continue;
    }
    const size_t end = c == '{' ? format.find('}', i) : std::string::npos;
    if (end == std::string::npos) throw TemplateError("format: a single { or }");
    const std::string_view field = std::string_view(format).substr(i + 1, end - i - 1);
    i = end;
    const Value* value = nullptr;
    if (field.find_first_not_of("0123456789") == std::string_view::npos) {
      size_t index = next;
      if (field.empty()) ++next;
      (field.empty() ? counted : numbered) = true;
      if (counted && numbered) throw TemplateError("format: {} and {0} in one text");
      if (field.size() > 6) throw bad(field);
      if (!field.empty()) std::from_chars(field.data(), field.data() + field.size(), index);
      if (index < values.positional.size()) value = &values.positional[index];
    } else {
      for (const auto& [name, v] : values.named) {
        if (name == field) value = &v;
      }
    }
    if (value == nullptr) throw bad(field);
    out += ToStr(*value);
    if (out.size() > kMaxValueBytes) throw TemplateError("format makes too long a text");
  }
  return out;
}

std::string EscapeHtml(std::string_view s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace kvasir::jinja
