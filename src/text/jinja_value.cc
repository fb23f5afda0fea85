#include "text/jinja_value.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/utf8.h"

namespace kvasir::jinja {
namespace {

struct Extent {
  int depth = 0;
  size_t bytes = 0;

  void Add(const Value& v) {
    int below = 0;
    bytes += 16;
    if (const std::string* s = v.str()) bytes += s->size();
    if (const List* l = v.list()) {
      below = l->depth;
      bytes += l->bytes;
    }
    if (const Dict* d = v.dict()) {
      below = d->depth;
      bytes += d->bytes;
    }
    depth = std::max(depth, below);
    if (depth >= kMaxValueDepth) {
      throw TemplateError(
          fmt::format("lists and dicts are nested more than {} deep", kMaxValueDepth));
    }
    if (bytes > kMaxValueBytes) {
      throw TemplateError(fmt::format("a list or dict holds more than {} bytes", kMaxValueBytes));
    }
  }
};

bool Printable(uint32_t code) {
  if (code == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string EscapeCode(uint32_t code) {
  if (code < 0x100) return fmt::format("\\x{:02x}", code);
  if (code < 0x10000) return fmt::format("\\u{:04x}", code);
  return fmt::format("\\U{:08x}", code);
}

std::string ReprString(const std::string& s) {
  const bool has_single = s.find('\'') != std::string::npos;
  const char quote = has_single && s.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = DecodeUtf8(std::string_view(s).substr(i));
    i += static_cast<size_t>(c.bytes);
    switch (c.code) {
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\\':
        out += "\\\\";
        break;
      default:
        if (c.code == static_cast<uint32_t>(quote)) {
          out += '\\';
          out += quote;
        } else if (!Printable(c.code)) {
          out += EscapeCode(c.code);
        } else {
          AppendUtf8(c.code, &out);
        }
    }
  }
  return out += quote;
}

void AppendJsonUnicode(uint32_t code, std::string* out) {
  if (code < 0x10000) {
    *out += fmt::format("\\u{:04x}", code);
    return;
  }
  const uint32_t c = code - 0x10000;
  *out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (c >> 10), 0xDC00 + (c & 0x3FF));
}

void AppendJsonString(const std::string& s, bool ascii, std::string* out) {
  *out += '"';
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = DecodeUtf8(std::string_view(s).substr(i));
    i += static_cast<size_t>(c.bytes);
    switch (c.code) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      default:
        if (c.code < 0x20 || (ascii && c.code > 0x7E)) {
          AppendJsonUnicode(c.code, out);
        } else {
          AppendUtf8(c.code, out);
        }
    }
  }
  *out += '"';
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, std::string* out) : style_(style), out_(out) {}

  void Write(const Value& v, int level) {
    if (out_->size() > kMaxValueBytes) {  // long separators and indents, many times
      throw TemplateError(fmt::format("tojson: the text is longer than {} bytes", kMaxValueBytes));
    }
    if (v.none()) {
      *out_ += "null";
    } else if (const bool* b = v.as<bool>()) {
      *out_ += *b ? "true" : "false";
    } else if (const int64_t* i = v.as<int64_t>()) {
      *out_ += std::to_string(*i);
    } else if (const Large* large = v.as<Large>()) {
      *out_ += std::to_string(large->value);
    } else if (const double* d = v.as<double>()) {
      *out_ += JsonDouble(*d);
    } else if (const std::string* s = v.str()) {
      AppendJsonString(*s, style_.ensure_ascii, out_);
    } else if (const List* l = v.list()) {
      WriteList(*l, level);
    } else if (const Dict* dict = v.dict()) {
      WriteDict(*dict, level);
    } else {
      throw TemplateError(fmt::format("tojson: {} cannot be written as JSON", TypeName(v)));
    }
  }

 private:
  static std::string JsonDouble(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return ReprDouble(d);
  }
  void NewLine(int level) {
    if (style_.indent < 0) return;
    *out_ += '\n';
    out_->append(static_cast<size_t>(level) * static_cast<size_t>(style_.indent), ' ');
  }
  void WriteList(const List& l, int level) {
    *out_ += '[';
    for (size_t i = 0; i < l.items.size(); ++i) {
      if (i != 0) *out_ += style_.item_separator;
      NewLine(level + 1);
      Write(l.items[i], level + 1);
    }
    if (!l.items.empty()) NewLine(level);
    *out_ += ']';
  }
  void WriteDict(const Dict& d, int level) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : d.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [](const auto* a, const auto* b) { return Less(a->first, b->first); });
    }
    *out_ += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i != 0) *out_ += style_.item_separator;
      NewLine(level + 1);
      AppendJsonString(Key(items[i]->first), style_.ensure_ascii, out_);
      *out_ += style_.key_separator;
      Write(items[i]->second, level + 1);
    }
    if (!items.empty()) NewLine(level);
    *out_ += '}';
  }
  static std::string Key(const Value& v) {
    if (v.none()) return "null";
    if (const bool* b = v.as<bool>()) return *b ? "true" : "false";
    if (v.str() != nullptr || v.number()) return ToStr(v);
    throw TemplateError(fmt::format("tojson: a key cannot be {}", TypeName(v)));
  }

  const JsonStyle& style_;
  std::string* out_;
};

bool ListsEqual(const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), Equals);
}

bool DictsEqual(const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.Find(key);
    if (other == nullptr || !Equals(value, *other)) return false;
  }
  return true;
}

/// Writes a key out so that equal keys have one text, as 1, 1.0 and true do. False: a list or dict,
/// which can be no key.
bool WriteKey(const Value& v, std::string* out) {
  int64_t i = 0;
  if (v.integer(&i)) {
    *out += fmt::format("{};", i);
  } else if (const Large* large = v.as<Large>()) {
    *out += fmt::format("{};", large->value);
  } else if (const double* d = v.as<double>()) {
    const bool whole = std::abs(*d) < 9e18 && *d == std::trunc(*d);
    *out += whole ? fmt::format("{};", static_cast<int64_t>(*d)) : fmt::format("{:a};", *d);
  } else if (const std::string* s = v.str()) {
    *out += fmt::format("s{}:{}", s->size(), *s);
  } else if (const List* l = v.list()) {
    if (!l->tuple) return false;
    *out += '(';
    for (const Value& item : l->items) {
      if (!WriteKey(item, out)) return false;
    }
    *out += ')';
  } else if (v.dict() != nullptr) {
    return false;
  } else {
    *out += v.object() != nullptr ? fmt::format("{};", static_cast<const void*>(v.object()))
            : v.none()            ? "none;"
                                  : "undefined;";
  }
  return true;
}

std::string JoinRepr(const std::vector<Value>& items) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) out += (i == 0 ? "" : ", ") + Repr(items[i]);
  return out;
}

}  // namespace

const List* Value::list() const {
  const auto* p = as<std::shared_ptr<const List>>();
  return p == nullptr ? nullptr : p->get();
}
const Dict* Value::dict() const {
  const auto* p = as<std::shared_ptr<const Dict>>();
  return p == nullptr ? nullptr : p->get();
}
Object* Value::object() const {
  const auto* p = as<std::shared_ptr<Object>>();
  return p == nullptr ? nullptr : p->get();
}

bool Value::integer(int64_t* out) const {
  if (const bool* b = as<bool>()) {
    *out = *b ? 1 : 0;
    return true;
  }
  if (const int64_t* i = as<int64_t>()) {
    *out = *i;
    return true;
  }
  return false;
}

double Value::real() const {
  if (const double* d = as<double>()) return *d;
  if (const Large* l = as<Large>()) return static_cast<double>(l->value);
  int64_t i = 0;
  integer(&i);
  return static_cast<double>(i);
}

Value Value::Missing(std::string what) {
  constexpr size_t kMost = 100;  // a name may be as long as a template, and be held many times
  if (what.size() > kMost) {
    size_t end = kMost;
    while (end > 0 && (static_cast<uint8_t>(what[end]) & 0xC0) == 0x80) --end;
    what.resize(end);
    what += "...";
  }
  return Value(Undefined{std::move(what)});
}

Value Value::MakeList(std::vector<Value> items, bool tuple) {
  Extent extent;
  for (const Value& v : items) extent.Add(v);
  return Value(
      std::make_shared<const List>(List{std::move(items), tuple, extent.depth + 1, extent.bytes}));
}

Value Value::MakeDict(
    std::vector<std::pair<Value, Value>> items) {  // NOLINT: moved from, piece by piece
  auto dict = std::make_shared<Dict>();
  Extent extent;
  for (auto& [key, value] : items) {
    extent.Add(key);
    extent.Add(value);
    std::string text;
    if (key.str() == nullptr && !WriteKey(key, &text)) FailOperand(key, "be a key of a dict");
    const auto [it, added] = key.str() != nullptr
                                 ? dict->by_string.try_emplace(*key.str(), dict->items.size())
                                 : dict->by_other.try_emplace(text, dict->items.size());
    if (!added) {
      dict->items[it->second].second = std::move(value);
      continue;
    }
    dict->items.emplace_back(std::move(key), std::move(value));
  }
  dict->depth = extent.depth + 1;
  dict->bytes = extent.bytes;
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

const Value* Dict::Find(std::string_view key) const {
  const auto it = by_string.find(key);
  return it == by_string.end() ? nullptr : &items[it->second].second;
}

const Value* Dict::Find(const Value& key) const {
  if (key.str() != nullptr) return Find(std::string_view(*key.str()));
  std::string text;
  if (by_other.empty() || !WriteKey(key, &text)) return nullptr;
  const auto it = by_other.find(text);
  return it == by_other.end() ? nullptr : &items[it->second].second;
}

const Value* Args::Get(size_t index, std::string_view name) {
  known_positional_ = std::max(known_positional_, index + 1);
  known_named_.emplace_back(name);
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

const Value& Args::Need(size_t index, std::string_view name) {
  const Value* v = Get(index, name);
  if (v == nullptr) throw TemplateError(fmt::format("{} needs the argument {}", callee, name));
  return *v;
}

bool Args::Flag(size_t index, std::string_view name, bool otherwise) {
  const Value* v = Get(index, name);
  return v == nullptr ? otherwise : Truthy(*v);
}

int64_t Args::Int(size_t index, std::string_view name, int64_t otherwise) {
  const Value* v = Get(index, name);
  int64_t out = otherwise;
  if (v != nullptr && !v->none() && !v->integer(&out)) {
    throw TemplateError(
        fmt::format("{}: {} must be an integer, not {}", callee, name, TypeName(*v)));
  }
  return out;
}

std::string Args::Text(size_t index, std::string_view name, std::string_view otherwise) {
  const Value* v = Get(index, name);
  return v == nullptr ? std::string(otherwise) : ToStr(*v);
}

void Args::Done() const {
  if (positional.size() > known_positional_) {
    throw TemplateError(fmt::format("{} takes at most {} arguments, not {}", callee,
                                    known_positional_, positional.size()));
  }
  for (const auto& [key, value] : named) {
    if (std::find(known_named_.begin(), known_named_.end(), key) == known_named_.end()) {
      throw TemplateError(fmt::format("{} has no argument {}", callee, key));
    }
  }
}

std::string TypeName(const Value& v) {
  if (const Undefined* u = v.as<Undefined>()) return "the undefined " + u->what;
  if (v.none()) return "none";
  if (v.as<bool>()) return "a boolean";
  if (v.as<int64_t>() || v.as<Large>()) return "an integer";
  if (v.as<double>()) return "a float";
  if (v.str()) return "a string";
  if (v.list()) return v.list()->tuple ? "a tuple" : "a list";
  if (v.dict()) return "a dict";
  return "a " + v.object()->type;
}

size_t SizeOf(const Value& v) {
  if (const std::string* s = v.str()) return s->size();
  if (const List* l = v.list()) return l->bytes;
  if (const Dict* d = v.dict()) return d->bytes;
  return 0;
}

void FailInteger() { throw TemplateError("an integer is out of the range of 64 bits"); }

void FailOperand(const Value& v, std::string_view operation) {
  if (v.undefined()) throw TemplateError(fmt::format("{} is undefined", v.as<Undefined>()->what));
  throw TemplateError(fmt::format("{} cannot {}", TypeName(v), operation));
}

bool Truthy(const Value& v) {
  if (v.undefined() || v.none()) return false;
  if (const bool* b = v.as<bool>()) return *b;
  if (const int64_t* i = v.as<int64_t>()) return *i != 0;
  if (const double* d = v.as<double>()) return *d != 0;
  if (v.as<Large>()) return true;
  if (const std::string* s = v.str()) return !s->empty();
  if (const List* l = v.list()) return !l->items.empty();
  if (const Dict* d = v.dict()) return !d->items.empty();
  return true;
}

bool Equals(const Value& a, const Value& b) {
  if (a.number() && b.number()) {
    int64_t x = 0, y = 0;
    if (a.integer(&x) && b.integer(&y)) return x == y;
    if (!a.as<double>() && !b.as<double>())
      return a.as<Large>() && b.as<Large>() && a.as<Large>()->value == b.as<Large>()->value;
    return a.real() == b.real();
  }
  if (a.v.index() != b.v.index()) return false;
  if (a.undefined() || a.none()) return true;
  if (a.str()) return *a.str() == *b.str();
  if (a.list()) {
    return a.list()->tuple == b.list()->tuple && ListsEqual(a.list()->items, b.list()->items);
  }
  if (a.dict()) return DictsEqual(*a.dict(), *b.dict());
  return a.object() == b.object();
}

bool Less(const Value& a, const Value& b) {
  if (a.number() && b.number()) {
    int64_t x = 0, y = 0;
    if (a.integer(&x) && b.integer(&y)) return x < y;
    if (a.as<Large>() && b.as<Large>()) return a.as<Large>()->value < b.as<Large>()->value;
    return a.real() < b.real();
  }
  if (a.str() && b.str()) return *a.str() < *b.str();  // UTF-8 sorts as its code points do
  if (a.list() && b.list()) {
    const auto &x = a.list()->items, &y = b.list()->items;
    return std::lexicographical_compare(x.begin(), x.end(), y.begin(), y.end(), Less);
  }
  if (a.undefined()) FailOperand(a, "");
  throw TemplateError(fmt::format("{} cannot be compared with {}", TypeName(a), TypeName(b)));
}

std::string ReprDouble(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  int exponent = 0;
  const size_t e = text.find('e');
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), end.ptr, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string ToStr(const Value& v) {
  if (v.undefined()) return {};
  if (const std::string* s = v.str()) return *s;
  return Repr(v);
}

std::string Repr(const Value& v) {
  if (v.undefined()) return "Undefined";
  if (v.none()) return "None";
  if (const bool* b = v.as<bool>()) return *b ? "True" : "False";
  if (const int64_t* i = v.as<int64_t>()) return std::to_string(*i);
  if (const double* d = v.as<double>()) return ReprDouble(*d);
  if (const Large* l = v.as<Large>()) return std::to_string(l->value);
  if (const std::string* s = v.str()) return ReprString(*s);
  if (const List* l = v.list()) {
    const std::string inner = JoinRepr(l->items);
    if (!l->tuple) return "[" + inner + "]";
    return "(" + inner + (l->items.size() == 1 ? ",)" : ")");
  }
  if (const Dict* d = v.dict()) {
    std::string out = "{";
    for (const auto& [key, value] : d->items) {
      if (out.size() > 1) out += ", ";
      out += Repr(key) + ": " + Repr(value);
    }
    return out + "}";
  }
  return "<" + v.object()->type + ">";
}

std::string ToJson(const Value& v, const JsonStyle& style) {
  std::string out;
  JsonWriter(style, &out).Write(v, 0);
  return out;
}

}  // namespace kvasir::jinja
