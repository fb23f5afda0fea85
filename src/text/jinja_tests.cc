#include <fmt/format.h>

#include <map>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace kvasir::jinja {
namespace {

/// A test that asks one thing of its subject, at once.
template <bool (*Holds)(const Value&)>
Value One(Interpreter&, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  return Value(Holds(v));
}

/// A test with one operand.
template <bool (*Holds)(Interpreter&, const Value&, const Value&)>
Value Two(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  const Value& other = a.Need(1, "other");
  a.Done();
  return Value(Holds(in, v, other));
}

template <CharClass kCase>
Value HasCase(Interpreter& in, Args& a) {
  const std::string s = in.Str(a.Need(0, "value"));
  a.Done();
  return Value(IsAll(s, kCase));
}

bool IsDefined(const Value& v) { return !v.undefined(); }
bool IsUndefined(const Value& v) { return v.undefined(); }
bool IsNone(const Value& v) { return v.none(); }
bool IsBoolean(const Value& v) { return v.as<bool>() != nullptr; }
bool IsTrue(const Value& v) { return v.as<bool>() != nullptr && *v.as<bool>(); }
bool IsFalse(const Value& v) { return v.as<bool>() != nullptr && !*v.as<bool>(); }
bool IsInteger(const Value& v) { return v.as<int64_t>() || v.as<Large>(); }
bool IsFloat(const Value& v) { return v.as<double>() != nullptr; }
bool IsNumber(const Value& v) { return v.number(); }
bool IsString(const Value& v) { return v.str() != nullptr; }
bool IsMapping(const Value& v) { return v.dict() != nullptr; }
bool IsSequence(const Value& v) {
  return v.str() != nullptr || v.list() != nullptr || v.dict() != nullptr;
}
bool IsIterable(const Value& v) { return IsSequence(v) || v.undefined(); }
bool IsCallable(const Value& v) { return v.object() != nullptr && v.object()->call; }
bool IsEscaped(const Value&) { return false; }

/// Whether v % by is `rest`, which floats may ask too.
bool Leaves(Interpreter& in, const Value& v, const Value& by, int64_t rest) {
  if (!v.number() || !by.number()) FailOperand(v.number() ? by : v, "be divided");
  return Equals(in.Arithmetic("%", v, by), Value(rest));
}
Value IsOdd(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  return Value(Leaves(in, v, Value(int64_t{2}), 1));
}
Value IsEven(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  return Value(Leaves(in, v, Value(int64_t{2}), 0));
}
bool DivisibleBy(Interpreter& in, const Value& a, const Value& b) { return Leaves(in, a, b, 0); }
bool Equal(Interpreter& in, const Value& a, const Value& b) { return in.Same(a, b); }
bool NotEqual(Interpreter& in, const Value& a, const Value& b) { return !in.Same(a, b); }
bool IsLess(Interpreter& in, const Value& a, const Value& b) { return in.Before(a, b); }
bool Greater(Interpreter& in, const Value& a, const Value& b) { return in.Before(b, a); }
bool LessOrEqual(Interpreter& in, const Value& a, const Value& b) { return !in.Before(b, a); }
bool GreaterOrEqual(Interpreter& in, const Value& a, const Value& b) { return !in.Before(a, b); }
bool SameAs(Interpreter& in, const Value& a, const Value& b) {
  return a.v.index() == b.v.index() && in.Same(a, b);
}

Value In(Interpreter& in, Args& a) {
  const Value v = a.Need(0, "value"), container = a.Need(1, "seq");
  a.Done();
  if (container.str() != nullptr) {
    in.SpendScan(container.str()->size());
    return Value(v.str() != nullptr &&
                 FindText(in, *container.str(), *v.str()) != std::string::npos);
  }
  for (const Value& item : in.Iterate(container)) {
    if (in.Same(item, v)) return Value(true);
  }
  return Value(false);
}

Value KnownFilter(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  return Value(FindFilter(in.Str(v)) != nullptr);
}
Value KnownTest(Interpreter& in, Args& a) {
  const Value& v = a.Need(0, "value");
  a.Done();
  return Value(FindTest(in.Str(v)) != nullptr);
}

const std::map<std::string_view, Builtin> kTests = {
    {"boolean", One<IsBoolean>},
    {"callable", One<IsCallable>},
    {"defined", One<IsDefined>},
    {"divisibleby", Two<DivisibleBy>},
    {"==", Two<Equal>},
    {"eq", Two<Equal>},
    {"equalto", Two<Equal>},
    {"escaped", One<IsEscaped>},
    {"even", IsEven},
    {"false", One<IsFalse>},
    {"filter", KnownFilter},
    {"float", One<IsFloat>},
    {">=", Two<GreaterOrEqual>},
    {"ge", Two<GreaterOrEqual>},
    {">", Two<Greater>},
    {"gt", Two<Greater>},
    {"greaterthan", Two<Greater>},
    {"in", In},
    {"integer", One<IsInteger>},
    {"iterable", One<IsIterable>},
    {"<=", Two<LessOrEqual>},
    {"le", Two<LessOrEqual>},
    {"lower", HasCase<CharClass::kLower>},
    {"<", Two<IsLess>},
    {"lt", Two<IsLess>},
    {"lessthan", Two<IsLess>},
    {"mapping", One<IsMapping>},
    {"!=", Two<NotEqual>},
    {"ne", Two<NotEqual>},
    {"none", One<IsNone>},
    {"number", One<IsNumber>},
    {"odd", IsOdd},
    {"sameas", Two<SameAs>},
    {"sequence", One<IsSequence>},
    {"string", One<IsString>},
    {"test", KnownTest},
    {"true", One<IsTrue>},
    {"undefined", One<IsUndefined>},
    {"upper", HasCase<CharClass::kUpper>},
};

}  // namespace

Builtin FindTest(std::string_view name) {
  const auto it = kTests.find(name);
  return it == kTests.end() ? nullptr : it->second;
}

}  // namespace kvasir::jinja
