#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace kvasir::jinja {
namespace {

/// Widths, indents and separators: more is a mistake or an attack.
constexpr int64_t kMaxWidth = 1000;

int64_t Width(Args& a, size_t index, std::string_view name, int64_t otherwise) {
  const int64_t w = a.Int(index, name, otherwise);
  if (w < 0 || w > kMaxWidth) {
    throw TemplateError(
        fmt::format("{}: {} is {}; it must be from 0 to {}", a.callee, name, w, kMaxWidth));
  }
  return w;
}

const std::string* OptionalText(Args& a, size_t index, std::string_view name) {
  const Value* v = a.Get(index, name);
  if (v == nullptr || v->none()) return nullptr;
  if (v->str() == nullptr) FailOperand(*v, "be used as text here");
  return v->str();
}

std::string Input(Interpreter& in, Args& a) { return in.Str(a.Need(0, "value")); }

/// `attribute` as Jinja2 reads it: dotted, with numbers as indexes.
Value GetPath(Interpreter& in, const Value& v, const Value& path) {
  if (path.str() == nullptr) return in.Item(v, path);
  Value at = v;
  const std::string dot = ".";
  in.SpendScan(path.str()->size());
  for (const std::string& part : Split(in, *path.str(), &dot, -1)) {
    const bool number =
        !part.empty() && part.size() < 10 && std::all_of(part.begin(), part.end(), ::isdigit);
    at = in.Item(at,
                 number ? Value(static_cast<int64_t>(std::atoll(part.c_str()))) : Value::Str(part));
  }
  return at;
}

/// What sort, unique, min, max and groupby compare: an attribute, without case unless told.
struct SortKey {
  const Value* attribute = nullptr;
  bool case_sensitive = false;
  Value Of(Interpreter& in, const Value& v) const {
    Value key = attribute == nullptr || attribute->none() ? v : GetPath(in, v, *attribute);
    if (!case_sensitive && key.str() != nullptr) return in.Text(Lower(*key.str()));
    return key;
  }
};

// ---- text

Value FilterUpper(Interpreter& in, Args& a) {
  std::string s = Upper(Input(in, a));
  a.Done();
  return in.Text(s);
}
Value FilterLower(Interpreter& in, Args& a) {
  std::string s = Lower(Input(in, a));
  a.Done();
  return in.Text(s);
}
Value FilterCapitalize(Interpreter& in, Args& a) {
  std::string s = Capitalize(Input(in, a));
  a.Done();
  return in.Text(s);
}
Value FilterString(Interpreter& in, Args& a) {
  std::string s = Input(in, a);
  a.Done();
  return in.Text(s);
}
Value FilterEscape(Interpreter& in, Args& a) {
  std::string s = EscapeHtml(Input(in, a));
  a.Done();
  return in.Text(s);
}

Value FilterTitle(Interpreter& in, Args& a) {
  std::string s = TitleOfWords(Input(in, a));
  a.Done();
  return in.Text(std::move(s));
}

Value FilterTrim(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  const std::string* chars = OptionalText(a, 1, "chars");
  a.Done();
  if (chars != nullptr) in.SpendScan(chars->size() * 16);  // a set is made of them
  return in.Text(Strip(s, chars, true, true));
}

Value FilterReplace(Interpreter& in, Args& a) {
  const std::string s = Input(in, a), from = in.Str(a.Need(1, "old")),
                    to = in.Str(a.Need(2, "new"));
  const int64_t count = a.Int(3, "count", -1);
  a.Done();
  const size_t hits = from.empty() ? s.size() + 1 : s.size() / from.size();
  size_t most = 0;
  if (__builtin_mul_overflow(hits, to.size(), &most) || most > kMaxValueBytes) {
    throw TemplateError("replace: the result could be too long");
  }
  return in.Text(ReplaceText(in, s, from, to, count));
}

Value FilterIndent(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  const Value* width = a.Get(1, "width");
  std::string pad;
  if (width != nullptr && width->str() != nullptr) {
    pad = width->str()->substr(0, kMaxWidth);
  } else {
    pad = std::string(static_cast<size_t>(Width(a, 1, "width", 4)), ' ');
  }
  const bool first = a.Flag(2, "first", false), blank = a.Flag(3, "blank", false);
  a.Done();
  in.SpendBytes(s.size() +
                pad.size() * (1 + static_cast<size_t>(std::count(s.begin(), s.end(), '\n'))));
  std::string out;
  const std::string newline = "\n";
  const std::vector<std::string> lines = Split(in, s, &newline, -1);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) out += '\n';
    if (i == 0 ? first : (blank || !lines[i].empty())) out += pad;
    out += lines[i];
  }
  return in.Text(std::move(out));
}

Value FilterCenter(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  const int64_t pad = Width(a, 1, "width", 80) - CodePoints(s);
  a.Done();
  if (pad <= 0) return in.Text(s);
  // As Python's str.center: an odd rest goes to the left where the width is odd.
  const int64_t left = pad / 2 + (pad & (pad + CodePoints(s)) & 1);
  return in.Text(std::string(static_cast<size_t>(left), ' ') + s +
                 std::string(static_cast<size_t>(pad - left), ' '));
}

Value FilterTruncate(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  const int64_t length = a.Int(1, "length", 255);
  const bool kill = a.Flag(2, "killwords", false);
  const std::string end = a.Text(3, "end", "...");
  const int64_t leeway = a.Int(4, "leeway", 5);
  a.Done();
  if (length < CodePoints(end)) throw TemplateError("truncate: the length is shorter than the end");
  if (CodePoints(s) - leeway <= length) return in.Text(s);
  std::string cut = SubString(s, 0, length - CodePoints(end));
  if (!kill) {
    const std::string space = " ";
    cut = RSplit(in, cut, &space, 1)[0];
  }
  return in.Text(cut + end);
}

Value FilterWordCount(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  a.Done();
  return Value(static_cast<int64_t>(Split(in, s, nullptr, -1).size()));
}

Value FilterUrlEncode(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  a.Done();
  std::string out;
  for (const char c : s) {
    const auto byte = static_cast<uint8_t>(c);
    if (std::isalnum(byte) || std::string_view("_.-~/").find(c) != std::string_view::npos) {
      out += c;
    } else {
      constexpr char kHex[] = "0123456789ABCDEF";
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return in.Text(std::move(out));
}

Value FilterFormat(Interpreter& in, Args& a) {
  const std::string s = Input(in, a);
  std::vector<Value> values(a.positional.begin() + 1, a.positional.end());
  if (!a.named.empty()) throw TemplateError("the filter format takes no named arguments");
  return in.Text(PercentFormat(s, in.MakeList(std::move(values), true)));
}

Value FilterToJson(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  JsonStyle style;
  style.ensure_ascii = a.Flag(1, "ensure_ascii", false);
  const Value* indent = a.Get(2, "indent");
  if (indent != nullptr && !indent->none()) {
    style.indent = static_cast<int>(Width(a, 2, "indent", 0));
    style.item_separator = ",";
  }
  const Value* separators = a.Get(3, "separators");
  if (separators != nullptr && !separators->none()) {
    if (separators->list() == nullptr || separators->list()->items.size() != 2) {
      throw TemplateError("tojson: separators must be two strings");
    }
    style.item_separator = in.Str(separators->list()->items[0]).substr(0, kMaxWidth);
    style.key_separator = in.Str(separators->list()->items[1]).substr(0, kMaxWidth);
  }
  style.sort_keys = a.Flag(4, "sort_keys", false);
  a.Done();
  in.SpendScan(SizeOf(v));
  return in.Text(ToJson(v, style));
}

// ---- numbers

Value FilterAbs(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  int64_t i = 0;
  if (v.integer(&i) && i != INT64_MIN) return Value(i < 0 ? -i : i);
  if (v.as<Large>()) return v;
  if (!v.number()) FailOperand(v, "have an absolute value");
  return Value(std::abs(v.real()));
}

std::optional<double> ParseReal(const std::string& text) {
  const std::string s = Strip(text, nullptr, true, true);
  char* end = nullptr;
  const double d = std::strtod(s.c_str(), &end);
  if (s.empty() || *end != '\0' || s.find('x') != std::string::npos) return std::nullopt;
  return d;
}

Value FilterInt(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  const Value* otherwise = a.Get(1, "default");
  const int64_t base = a.Int(2, "base", 10);
  a.Done();
  const Value fallback = otherwise == nullptr ? Value(int64_t{0}) : *otherwise;
  int64_t i = 0;
  if (v.integer(&i)) return Value(i);
  if (v.as<Large>()) return v;
  double d = 0;
  if (v.as<double>()) {
    d = v.real();
    if (std::isinf(d)) throw TemplateError("int: an infinite number is no integer");
  } else if (v.str() != nullptr) {
    const std::string s = Strip(*v.str(), nullptr, true, true);
    char* end = nullptr;
    errno = 0;
    if (base < 2 || base > 36) throw TemplateError("int: the base must be from 2 to 36");
    const long long parsed = std::strtoll(s.c_str(), &end, static_cast<int>(base));
    if (!s.empty() && *end == '\0') {
      if (errno == ERANGE) FailInteger();
      return Value(static_cast<int64_t>(parsed));
    }
    const std::optional<double> real = ParseReal(s);
    if (!real) return fallback;
    d = *real;
  } else {
    return fallback;
  }
  if (!std::isfinite(d)) return fallback;
  if (std::abs(d) >= 0x1p63) FailInteger();
  return Value(static_cast<int64_t>(d));
}

Value FilterFloat(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  const Value* otherwise = a.Get(1, "default");
  a.Done();
  if (v.number()) return Value(v.real());
  if (v.str() != nullptr) {
    if (const auto d = ParseReal(*v.str())) return Value(*d);
  }
  return otherwise == nullptr ? Value(0.0) : *otherwise;
}

Value FilterRound(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  const int64_t precision = a.Int(1, "precision", 0);
  const std::string method = a.Text(2, "method", "common");
  a.Done();
  if (!v.number()) FailOperand(v, "be rounded");
  if (precision < 0 || precision > 15) throw TemplateError("round: precision must be from 0 to 15");
  int64_t i = 0;
  if (method == "common") {
    if (v.integer(&i)) return v.as<bool>() ? Value(i) : v;
    if (v.as<Large>()) return v;
    // Printing rounds the exact value, as Python's round() does.
    return Value(std::strtod(fmt::format("{:.{}f}", v.real(), precision).c_str(), nullptr));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value(std::ceil(v.real() * scale) / scale);
  if (method == "floor") return Value(std::floor(v.real() * scale) / scale);
  throw TemplateError("round: method must be common, ceil or floor");
}

// ---- lists

Value FilterLength(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  if (v.undefined()) return Value(int64_t{0});
  if (v.str() != nullptr) return Value(CodePoints(*v.str()));
  if (v.list() != nullptr) return Value(static_cast<int64_t>(v.list()->items.size()));
  if (v.dict() != nullptr) return Value(static_cast<int64_t>(v.dict()->items.size()));
  FailOperand(v, "have a length");
}

Value FilterFirst(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  a.Done();
  return items.empty() ? Value::Missing("the first of an empty list") : items.front();
}

Value FilterLast(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  a.Done();
  return items.empty() ? Value::Missing("the last of an empty list") : items.back();
}

Value FilterList(Interpreter& in, Args& a) {
  std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  a.Done();
  return in.MakeList(std::move(items));
}

Value FilterReverse(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  std::vector<Value> items = in.Iterate(v);
  a.Done();
  std::reverse(items.begin(), items.end());
  if (v.str() == nullptr) return in.MakeList(std::move(items));
  std::string out;
  for (const Value& c : items) out += *c.str();
  return in.Text(std::move(out));
}

Value FilterJoin(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const std::string separator = a.Text(1, "d", "");
  const Value* attribute = a.Get(2, "attribute");
  a.Done();
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string part = in.Str(
        attribute == nullptr || attribute->none() ? items[i] : GetPath(in, items[i], *attribute));
    in.SpendBytes(part.size() + separator.size());
    if (i != 0) out += separator;
    out += part;
  }
  return in.Text(std::move(out));
}

Value FilterSort(Interpreter& in, Args& a) {
  std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const bool reverse = a.Flag(1, "reverse", false);
  SortKey key;
  key.case_sensitive = a.Flag(2, "case_sensitive", false);
  key.attribute = a.Get(3, "attribute");
  a.Done();
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(key.Of(in, item), item);
  in.Spend(items.size() * 16);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    return reverse ? in.Before(y.first, x.first) : in.Before(x.first, y.first);
  });
  for (size_t i = 0; i < items.size(); ++i) items[i] = keyed[i].second;
  return in.MakeList(std::move(items));
}

Value FilterUnique(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  SortKey key;
  key.case_sensitive = a.Flag(1, "case_sensitive", false);
  key.attribute = a.Get(2, "attribute");
  a.Done();
  std::vector<Value> seen, out;
  for (const Value& item : items) {
    const Value k = key.Of(in, item);
    in.Spend(seen.size());
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return in.Same(s, k); }))
      continue;
    seen.push_back(k);
    out.push_back(item);
  }
  return in.MakeList(std::move(out));
}

Value Extreme(Interpreter& in, Args& a, bool largest) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  SortKey key;
  key.case_sensitive = a.Flag(1, "case_sensitive", false);
  key.attribute = a.Get(2, "attribute");
  a.Done();
  if (items.empty()) return Value::Missing("the extreme of an empty list");
  size_t best = 0;
  Value best_key = key.Of(in, items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    Value k = key.Of(in, items[i]);
    if (largest ? in.Before(best_key, k) : in.Before(k, best_key)) {
      best = i;
      best_key = std::move(k);
    }
  }
  return items[best];
}
Value FilterMin(Interpreter& in, Args& a) { return Extreme(in, a, false); }
Value FilterMax(Interpreter& in, Args& a) { return Extreme(in, a, true); }

Value FilterSum(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const Value* attribute = a.Get(1, "attribute");
  const Value* start = a.Get(2, "start");
  a.Done();
  Value sum = start == nullptr ? Value(int64_t{0}) : *start;
  for (const Value& item : items) {
    const Value v =
        attribute == nullptr || attribute->none() ? item : GetPath(in, item, *attribute);
    sum = in.Arithmetic("+", sum, v);
  }
  return sum;
}

Value FilterMap(Interpreter& in, Args& a) {
  if (!Truthy(a.Need(0, "value"))) return in.MakeList({});  // none too, as in Jinja2
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  std::vector<Value> out;
  if (a.positional.size() == 1) {
    const Value& attribute = a.Need(1, "attribute");
    const Value* otherwise = a.Get(2, "default");
    a.Done();
    for (const Value& item : items) {
      Value v = GetPath(in, item, attribute);
      out.push_back(v.undefined() && otherwise != nullptr ? *otherwise : v);
    }
    return in.MakeList(std::move(out));
  }
  const std::string name = in.Str(a.positional[1]);
  for (const Value& item : items) {
    in.Spend((a.positional.size() + a.named.size()) / 16);
    Args inner;
    inner.positional = {item};
    inner.positional.insert(inner.positional.end(), a.positional.begin() + 2, a.positional.end());
    inner.named = a.named;
    out.push_back(in.Filter(name, inner));
  }
  return in.MakeList(std::move(out));
}

/// select, reject, selectattr, rejectattr: positional[first] is the test's name.
Value Choose(Interpreter& in, Args& a, bool by_attribute, bool wanted) {
  if (!Truthy(a.Need(0, "value"))) return in.MakeList({});
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const size_t first = by_attribute ? 2 : 1;
  if (by_attribute) a.Need(1, "attribute");
  std::vector<Value> out;
  for (const Value& item : items) {
    const Value subject = by_attribute ? GetPath(in, item, a.positional[1]) : item;
    bool holds = false;
    if (a.positional.size() > first) {
      in.Spend((a.positional.size() + a.named.size()) / 16);
      Args inner;
      inner.positional = {subject};
      inner.positional.insert(inner.positional.end(),
                              a.positional.begin() + static_cast<ptrdiff_t>(first) + 1,
                              a.positional.end());
      inner.named = a.named;
      holds = in.Test(in.Str(a.positional[first]), inner);
    } else {
      holds = Truthy(subject);
    }
    if (holds == wanted) out.push_back(item);
  }
  return in.MakeList(std::move(out));
}
Value FilterSelect(Interpreter& in, Args& a) { return Choose(in, a, false, true); }
Value FilterReject(Interpreter& in, Args& a) { return Choose(in, a, false, false); }
Value FilterSelectAttr(Interpreter& in, Args& a) { return Choose(in, a, true, true); }
Value FilterRejectAttr(Interpreter& in, Args& a) { return Choose(in, a, true, false); }

Value FilterGroupBy(Interpreter& in, Args& a) {
  std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const Value attribute = a.Need(1, "attribute");
  const Value* otherwise = a.Get(2, "default");
  const bool case_sensitive = a.Flag(3, "case_sensitive", false);
  a.Done();
  struct Keyed {
    Value sort, shown, item;
  };
  std::vector<Keyed> keyed;
  for (Value& item : items) {
    Value shown = GetPath(in, item, attribute);
    if (shown.undefined() && otherwise != nullptr) shown = *otherwise;
    Value sort = !case_sensitive && shown.str() != nullptr ? in.Text(Lower(*shown.str())) : shown;
    keyed.push_back({std::move(sort), std::move(shown), std::move(item)});
  }
  in.Spend(keyed.size() * 16);
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const Keyed& x, const Keyed& y) { return in.Before(x.sort, y.sort); });
  std::vector<Value> groups;
  for (size_t i = 0; i < keyed.size();) {
    std::vector<Value> group;
    const size_t start = i;
    for (; i < keyed.size() && in.Same(keyed[i].sort, keyed[start].sort); ++i)
      group.push_back(keyed[i].item);
    groups.push_back(in.MakeList({keyed[start].shown, in.MakeList(std::move(group))}, true));
  }
  return in.MakeList(std::move(groups));
}

Value FilterBatch(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const int64_t count = a.Int(1, "linecount", 0);
  const Value* fill = a.Get(2, "fill_with");
  a.Done();
  if (count < 1) throw TemplateError("batch: linecount must be 1 or more");
  const auto n = static_cast<size_t>(std::min<int64_t>(count, 1'000'000));
  std::vector<Value> rows;
  for (size_t i = 0; i < items.size(); i += n) {
    std::vector<Value> row(items.begin() + static_cast<ptrdiff_t>(i),
                           items.begin() + static_cast<ptrdiff_t>(std::min(i + n, items.size())));
    if (fill != nullptr && !fill->none()) {
      in.Spend(n);
      row.resize(n, *fill);
    }
    rows.push_back(in.MakeList(std::move(row)));
  }
  return in.MakeList(std::move(rows));
}

Value FilterSlice(Interpreter& in, Args& a) {
  const std::vector<Value> items = in.Iterate(a.Need(0, "value"));
  const int64_t slices = a.Int(1, "slices", 0);
  const Value* fill = a.Get(2, "fill_with");
  a.Done();
  if (slices < 1 || slices > 100'000) throw TemplateError("slice: slices must be from 1 to 100000");
  in.Spend(static_cast<size_t>(slices));
  const size_t n = static_cast<size_t>(slices), per = items.size() / n, extra = items.size() % n;
  std::vector<Value> rows;
  size_t at = 0;
  for (size_t s = 0; s < n; ++s) {
    const size_t size = per + (s < extra ? 1 : 0);
    std::vector<Value> row(items.begin() + static_cast<ptrdiff_t>(at),
                           items.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
    if (fill != nullptr && !fill->none() && s >= extra) row.push_back(*fill);
    rows.push_back(in.MakeList(std::move(row)));
  }
  return in.MakeList(std::move(rows));
}

// ---- dicts and the rest

Value FilterItems(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  std::vector<Value> out;
  if (v.undefined()) return in.MakeList({});
  if (v.dict() == nullptr) FailOperand(v, "give items");
  for (const auto& [key, value] : v.dict()->items) out.push_back(in.MakeList({key, value}, true));
  return in.MakeList(std::move(out));
}

Value FilterDictSort(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  const bool case_sensitive = a.Flag(1, "case_sensitive", false);
  const bool by_value = a.Text(2, "by", "key") == "value";
  const bool reverse = a.Flag(3, "reverse", false);
  a.Done();
  if (v.dict() == nullptr) FailOperand(v, "be sorted by dictsort");
  auto items = v.dict()->items;
  in.Spend(items.size() * 16);
  SortKey key{nullptr, case_sensitive};
  std::stable_sort(items.begin(), items.end(), [&](const auto& x, const auto& y) {
    const Value kx = key.Of(in, by_value ? x.second : x.first),
                ky = key.Of(in, by_value ? y.second : y.first);
    return reverse ? in.Before(ky, kx) : in.Before(kx, ky);
  });
  std::vector<Value> out;
  for (auto& [k, value] : items) out.push_back(in.MakeList({k, value}, true));
  return in.MakeList(std::move(out));
}

Value FilterDefault(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  const Value* otherwise = a.Get(1, "default_value");
  const bool boolean = a.Flag(2, "boolean", false);
  a.Done();
  if (!v.undefined() && (!boolean || Truthy(v))) return v;
  return otherwise == nullptr ? Value::Str("") : *otherwise;
}

Value FilterAttr(Interpreter& in, Args& a) {
  const Value v = a.Need(0, "value");
  const std::string name = in.Str(a.Need(1, "name"));
  a.Done();
  if (v.object() != nullptr) return in.Attribute(v, name);
  return FindMethod(v, name);
}

const std::map<std::string_view, Builtin> kFilters = {
    {"abs", FilterAbs},
    {"attr", FilterAttr},
    {"batch", FilterBatch},
    {"capitalize", FilterCapitalize},
    {"center", FilterCenter},
    {"count", FilterLength},
    {"d", FilterDefault},
    {"default", FilterDefault},
    {"dictsort", FilterDictSort},
    {"e", FilterEscape},
    {"escape", FilterEscape},
    {"first", FilterFirst},
    {"float", FilterFloat},
    {"forceescape", FilterEscape},
    {"format", FilterFormat},
    {"groupby", FilterGroupBy},
    {"indent", FilterIndent},
    {"int", FilterInt},
    {"items", FilterItems},
    {"join", FilterJoin},
    {"last", FilterLast},
    {"length", FilterLength},
    {"list", FilterList},
    {"lower", FilterLower},
    {"map", FilterMap},
    {"max", FilterMax},
    {"min", FilterMin},
    {"reject", FilterReject},
    {"rejectattr", FilterRejectAttr},
    {"replace", FilterReplace},
    {"reverse", FilterReverse},
    {"round", FilterRound},
    {"safe", FilterString},
    {"select", FilterSelect},
    {"selectattr", FilterSelectAttr},
    {"slice", FilterSlice},
    {"sort", FilterSort},
    {"string", FilterString},
    {"sum", FilterSum},
    {"title", FilterTitle},
    {"tojson", FilterToJson},
    {"trim", FilterTrim},
    {"truncate", FilterTruncate},
    {"unique", FilterUnique},
    {"upper", FilterUpper},
    {"urlencode", FilterUrlEncode},
    {"wordcount", FilterWordCount},
};

}  // namespace

Builtin FindFilter(std::string_view name) {
  const auto it = kFilters.find(name);
  return it == kFilters.end() ? nullptr : it->second;
}

}  // namespace kvasir::jinja
