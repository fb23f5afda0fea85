#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace kvasir::jinja {
namespace {

using Method = Value (*)(Interpreter&, const Value& self, Args&);

const std::string* OptionalText(Args& a, size_t index, std::string_view name) {
  const Value* v = a.Get(index, name);
  if (v == nullptr || v->none()) return nullptr;
  if (v->str() == nullptr) FailOperand(*v, "be used as text here");
  return v->str();
}

const std::string& NeedText(Args& a, size_t index, std::string_view name) {
  const Value& v = a.Need(index, name);
  if (v.str() == nullptr) FailOperand(v, "be used as text here");
  return *v.str();
}

Value Strings(Interpreter& in, std::vector<std::string> parts, bool tuple = false) {
  std::vector<Value> out;
  for (std::string& p : parts) out.push_back(in.Text(std::move(p)));
  return in.MakeList(std::move(out), tuple);
}

template <std::string (*F)(std::string_view)>
Value Mapped(Interpreter& in, const Value& self, Args& a) {
  a.Done();
  return in.Text(F(*self.str()));
}

template <CharClass kClass>
Value Is(Interpreter&, const Value& self, Args& a) {
  a.Done();
  return Value(IsAll(*self.str(), kClass));
}

template <bool kLeft, bool kRight>
Value StripMethod(Interpreter& in, const Value& self, Args& a) {
  const std::string* chars = OptionalText(a, 0, "chars");
  a.Done();
  if (chars != nullptr) in.SpendScan(chars->size() * 16);  // a set is made of them
  return in.Text(Strip(*self.str(), chars, kLeft, kRight));
}

template <bool kFromRight>
Value SplitMethod(Interpreter& in, const Value& self, Args& a) {
  const std::string* separator = OptionalText(a, 0, "sep");
  const int64_t most = a.Int(1, "maxsplit", -1);
  a.Done();
  return Strings(in, kFromRight ? RSplit(in, *self.str(), separator, most)
                                : Split(in, *self.str(), separator, most));
}

Value SplitLinesMethod(Interpreter& in, const Value& self, Args& a) {
  const bool keep = a.Flag(0, "keepends", false);
  a.Done();
  return Strings(in, SplitLines(in, *self.str(), keep));
}

/// What the arguments start and end leave of a string, as Python reads them.
struct Part {
  std::string_view text;
  int64_t before = 0;  ///< characters
  bool none = false;   ///< the start is behind the end: not even "" is there
};
Part TakePart(const std::string& s, Args& a) {
  const bool whole = a.Get(1, "start") == nullptr && a.Get(2, "end") == nullptr;
  if (whole) return {.text = s};
  const int64_t length = CodePoints(s);
  const auto bound = [&](int64_t at) { return at < 0 ? std::max<int64_t>(at + length, 0) : at; };
  const int64_t begin = bound(a.Int(1, "start", 0)),
                end = std::min(bound(a.Int(2, "end", length)), length);
  if (begin > end) return {.none = true};
  const std::string_view view = s;
  const size_t from = ByteOfCharacter(view, begin);
  return {.text = view.substr(from, ByteOfCharacter(view.substr(from), end - begin)),
          .before = begin};
}

/// The argument, or any of a tuple of them.
template <bool (*Matches)(std::string_view, std::string_view)>
Value AnyOf(Interpreter&, const Value& self, Args& a) {
  const Value& what = a.Need(0, "prefix");
  const Part part = TakePart(*self.str(), a);
  a.Done();
  if (what.str() != nullptr) return Value(!part.none && Matches(part.text, *what.str()));
  if (what.list() == nullptr) FailOperand(what, "be looked for in a string");
  const auto& items = what.list()->items;
  return Value(std::any_of(items.begin(), items.end(), [&](const Value& v) {
    return v.str() != nullptr && !part.none && Matches(part.text, *v.str());
  }));
}
bool StartsWith(std::string_view s, std::string_view what) { return s.starts_with(what); }
bool EndsWith(std::string_view s, std::string_view what) { return s.ends_with(what); }

Value FormatMethod(Interpreter& in, const Value& self, Args& a) {
  return in.Text(BraceFormat(*self.str(), a));
}

Value ReplaceMethod(Interpreter& in, const Value& self, Args& a) {
  a.positional.insert(a.positional.begin(), self);
  return in.Filter("replace", a);
}

Value JoinMethod(Interpreter& in, const Value& self, Args& a) {
  Args inner;
  inner.positional = {a.Need(0, "iterable"), self};
  a.Done();
  return in.Filter("join", inner);
}

template <bool kFromRight, bool kMustBeThere>
Value FindIn(Interpreter& in, const Value& self, Args& a) {
  const std::string& what = NeedText(a, 0, "sub");
  const auto [s, before, none] = TakePart(*self.str(), a);
  a.Done();
  const size_t at = none         ? std::string::npos
                    : kFromRight ? FindLastText(in, s, what)
                                 : FindText(in, s, what);
  if (at != std::string::npos) return Value(before + CodePoints(s.substr(0, at)));
  if (kMustBeThere) throw TemplateError("index: the text is not there");
  return Value(int64_t{-1});
}

Value CountIn(Interpreter& in, const Value& self, Args& a) {
  const std::string& what = NeedText(a, 0, "sub");
  const auto [s, before, none] = TakePart(*self.str(), a);
  a.Done();
  int64_t n = 0;
  if (none) return Value(n);
  if (what.empty()) return Value(CodePoints(s) + 1);
  for (size_t at = FindText(in, s, what); at != std::string::npos;
       at = FindText(in, s, what, at + what.size()))
    ++n;
  return Value(n);
}

Value RemovePrefix(Interpreter& in, const Value& self, Args& a) {
  const std::string& what = NeedText(a, 0, "prefix");
  a.Done();
  return self.str()->starts_with(what) ? in.Text(self.str()->substr(what.size())) : self;
}

Value RemoveSuffix(Interpreter& in, const Value& self, Args& a) {
  const std::string& what = NeedText(a, 0, "suffix");
  a.Done();
  return self.str()->ends_with(what)
             ? in.Text(self.str()->substr(0, self.str()->size() - what.size()))
             : self;
}

template <bool kFromRight>
Value Partition(Interpreter& in, const Value& self, Args& a) {
  const std::string& what = NeedText(a, 0, "sep");
  a.Done();
  if (what.empty()) throw TemplateError("partition: the separator is empty");
  const std::string& s = *self.str();
  const size_t at = kFromRight ? FindLastText(in, s, what) : FindText(in, s, what);
  if (at == std::string::npos) {
    return kFromRight ? Strings(in, {"", "", s}, true) : Strings(in, {s, "", ""}, true);
  }
  return Strings(in, {s.substr(0, at), what, s.substr(at + what.size())}, true);
}

template <int kSide>  // -1: text left, 1: right
Value Justify(Interpreter& in, const Value& self, Args& a) {
  const int64_t width = std::clamp<int64_t>(a.Int(0, "width", 0), 0, 1000);
  const std::string fill = a.Text(1, "fillchar", " ");
  a.Done();
  if (CodePoints(fill) != 1) throw TemplateError("the fill character must be one character");
  std::string pad;
  for (int64_t i = CodePoints(*self.str()); i < width; ++i) pad += fill;
  return in.Text(kSide < 0 ? *self.str() + pad : pad + *self.str());
}

Value ZFill(Interpreter& in, const Value& self, Args& a) {
  const int64_t width = std::clamp<int64_t>(a.Int(0, "width", 0), 0, 1000);
  a.Done();
  const std::string& s = *self.str();
  const size_t sign = !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
  const int64_t zeros = std::max<int64_t>(0, width - CodePoints(s));
  return in.Text(s.substr(0, sign) + std::string(static_cast<size_t>(zeros), '0') + s.substr(sign));
}

const std::map<std::string_view, Method> kStringMethods = {
    {"strip", StripMethod<true, true>},
    {"lstrip", StripMethod<true, false>},
    {"rstrip", StripMethod<false, true>},
    {"split", SplitMethod<false>},
    {"rsplit", SplitMethod<true>},
    {"splitlines", SplitLinesMethod},
    {"startswith", AnyOf<StartsWith>},
    {"endswith", AnyOf<EndsWith>},
    {"upper", Mapped<Upper>},
    {"lower", Mapped<Lower>},
    {"casefold", Mapped<Lower>},
    {"title", Mapped<Title>},
    {"capitalize", Mapped<Capitalize>},
    {"replace", ReplaceMethod},
    {"format", FormatMethod},
    {"join", JoinMethod},
    {"find", FindIn<false, false>},
    {"rfind", FindIn<true, false>},
    {"index", FindIn<false, true>},
    {"rindex", FindIn<true, true>},
    {"count", CountIn},
    {"removeprefix", RemovePrefix},
    {"removesuffix", RemoveSuffix},
    {"partition", Partition<false>},
    {"rpartition", Partition<true>},
    {"ljust", Justify<-1>},
    {"rjust", Justify<1>},
    {"zfill", ZFill},
    {"isalpha", Is<CharClass::kAlpha>},
    {"isdigit", Is<CharClass::kDigit>},
    {"isnumeric", Is<CharClass::kDigit>},
    {"isdecimal", Is<CharClass::kDigit>},
    {"isalnum", Is<CharClass::kAlnum>},
    {"isspace", Is<CharClass::kSpace>},
    {"isupper", Is<CharClass::kUpper>},
    {"islower", Is<CharClass::kLower>},
};

Value Items(Interpreter& in, const Value& self, Args& a) {
  a.positional.insert(a.positional.begin(), self);
  return in.Filter("items", a);
}
Value Keys(Interpreter& in, const Value& self, Args& a) {
  a.Done();
  return in.MakeList(in.Iterate(self));
}
Value Values(Interpreter& in, const Value& self, Args& a) {
  a.Done();
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->items) out.push_back(value);
  return in.MakeList(std::move(out));
}
Value GetMethod(Interpreter& in, const Value& self, Args& a) {
  const Value& key = a.Need(0, "key");
  const Value* otherwise = a.Get(1, "default");
  a.Done();
  in.SpendScan(SizeOf(key));
  if (const Value* found = self.dict()->Find(key)) return *found;
  return otherwise == nullptr ? Value::MakeNone() : *otherwise;
}
Value Copy(Interpreter&, const Value& self, Args& a) {
  a.Done();
  return self;
}
/// As in Jinja2's immutable sandbox, which is what templates run in elsewhere.
Value Forbidden(Interpreter&, const Value&, Args& a) {
  throw TemplateError(
      fmt::format("{} would change a list or dict, which templates may not", a.callee));
}

const std::map<std::string_view, Method> kDictMethods = {
    {"items", Items},          {"keys", Keys},         {"values", Values},
    {"get", GetMethod},        {"copy", Copy},         {"update", Forbidden},
    {"pop", Forbidden},        {"popitem", Forbidden}, {"clear", Forbidden},
    {"setdefault", Forbidden},
};

Value ListIndex(Interpreter& in, const Value& self, Args& a) {
  const Value& what = a.Need(0, "value");
  a.Done();
  const auto& items = self.list()->items;
  in.Spend(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (in.Same(items[i], what)) return Value(static_cast<int64_t>(i));
  }
  throw TemplateError("index: the value is not in the list");
}
Value ListCount(Interpreter& in, const Value& self, Args& a) {
  const Value& what = a.Need(0, "value");
  a.Done();
  const auto& items = self.list()->items;
  in.Spend(items.size());
  return Value(static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& v) { return in.Same(v, what); })));
}

const std::map<std::string_view, Method> kListMethods = {
    {"index", ListIndex},   {"count", ListCount}, {"copy", Copy},        {"append", Forbidden},
    {"insert", Forbidden},  {"pop", Forbidden},   {"remove", Forbidden}, {"extend", Forbidden},
    {"reverse", Forbidden}, {"sort", Forbidden},  {"clear", Forbidden},
};

}  // namespace

Value FindMethod(const Value& self, std::string_view name) {
  const std::map<std::string_view, Method>* table = nullptr;
  if (self.str() != nullptr) table = &kStringMethods;
  if (self.dict() != nullptr) table = &kDictMethods;
  if (self.list() != nullptr) table = &kListMethods;
  if (table == nullptr) return {};
  const auto it = table->find(name);
  if (it == table->end()) return {};
  auto bound = std::make_shared<Object>();
  bound->type = "method " + std::string(name);
  bound->call = [self, method = it->second](Interpreter& in, Args& a) {
    if (self.str() != nullptr) in.SpendScan(self.str()->size());
    in.SpendArgs(a, 0);
    return method(in, self, a);
  };
  return Value(std::move(bound));
}

}  // namespace kvasir::jinja
