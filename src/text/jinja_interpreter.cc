#include "text/jinja_interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "text/jinja_builtins.h"
#include "text/jinja_strings.h"

namespace kvasir::jinja {
namespace {

/// All strings, lists and dicts that one rendering may make, together.
constexpr size_t kMaxTotalBytes = size_t{256} << 20;
/// What an object, or a scope that outlives its block, is counted as.
constexpr size_t kObjectBytes = 1024;
/// What a character is counted as where it becomes a string of its own.
constexpr size_t kCharacterBytes = 64;
/// Of evaluation; each level takes a bounded part of the stack.
constexpr int kMaxRunDepth = 1000;

/// Where nodes are evaluated, messages get their line, once.
template <typename F>
auto AtLine(int line, F f) {
  try {
    return f();
  } catch (const TemplateError& e) {
    const std::string_view what = e.what();
    if (what.substr(0, 5) == "line ") throw;
    throw TemplateError(fmt::format("line {}: {}", line, what));
  }
}

int64_t FloorDiv(int64_t a, int64_t b) {
  const int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

int64_t IntegerPower(int64_t base, int64_t exponent) {
  int64_t out = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out)) FailInteger();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) FailInteger();
  }
  return out;
}

Value IntegerArithmetic(const std::string& op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    out = IntegerPower(a, b);
  } else {
    if (b == 0) throw TemplateError("division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {
      overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &out);
    } else {
      out = op == "//" ? FloorDiv(a, b) : a - FloorDiv(a, b) * b;
    }
  }
  if (overflow) FailInteger();
  return Value(out);
}

Value RealArithmetic(const std::string& op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) throw TemplateError("division by zero");
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double r = std::fmod(a, b);
  return Value(r != 0 && (r < 0) != (b < 0) ? r + b : r);
}

}  // namespace

struct Interpreter::Deeper {
  explicit Deeper(Interpreter* interpreter) : in(interpreter) {
    if (++in->depth_ > kMaxRunDepth) {
      --in->depth_;
      throw TemplateError("macros or loops call one another too deep");
    }
  }
  ~Deeper() { --in->depth_; }
  Interpreter* in;
};

class Interpreter::NewScope {
 public:
  NewScope(Interpreter* in, Scope* parent)
      : in_(in), before_(in->scope_), scope_(std::make_unique<Scope>()) {
    scope_->parent = parent;
    in->scope_ = scope_.get();
  }
  ~NewScope() {
    in_->scope_ = before_;
    if (scope_->captured) in_->captured_.push_back(std::move(scope_));
  }
  NewScope(const NewScope&) = delete;
  NewScope& operator=(const NewScope&) = delete;
  Value& operator[](const std::string& name) { return scope_->vars[name]; }

 private:
  Interpreter* in_;
  Scope* before_;
  std::unique_ptr<Scope> scope_;
};

Interpreter::~Interpreter() {
  // Namespaces and macros may hold one another in a circle.
  for (const auto& object : objects_) {
    object->fields.clear();
    object->call = nullptr;
  }
  for (const auto& scope : captured_) scope->vars.clear();
}

void Interpreter::Spend(size_t steps) {
  steps_ += steps;
  if (steps_ > limits_.max_steps || steps > limits_.max_steps) {
    throw TemplateError(fmt::format("the template takes more than {} steps", limits_.max_steps));
  }
}

void Interpreter::SpendBytes(size_t bytes) {
  bytes_ += bytes;
  if (bytes > limits_.max_output_bytes || bytes_ > kMaxTotalBytes) {
    throw TemplateError(
        fmt::format("the template makes more than {} bytes of text",
                    bytes > limits_.max_output_bytes ? limits_.max_output_bytes : kMaxTotalBytes));
  }
}

Value Interpreter::Text(std::string s) {
  SpendBytes(s.size());
  return Value::Str(std::move(s));
}

Value Interpreter::MakeList(std::vector<Value> items, bool tuple) {
  Spend(items.size());
  SpendBytes(items.size() * sizeof(Value));
  return Value::MakeList(std::move(items), tuple);
}

std::shared_ptr<Object> Interpreter::NewObject(std::string type) {
  Spend(1);
  SpendBytes(kObjectBytes);
  objects_.push_back(std::make_shared<Object>());
  objects_.back()->type = std::move(type);
  return objects_.back();
}

std::string Interpreter::Str(const Value& v) {
  SpendScan(SizeOf(v));
  return ToStr(v);
}

bool Interpreter::Same(const Value& a, const Value& b) {
  SpendScan(std::min(SizeOf(a), SizeOf(b)));
  return Equals(a, b);
}

bool Interpreter::Before(const Value& a, const Value& b) {
  SpendScan(std::min(SizeOf(a), SizeOf(b)));
  return Less(a, b);
}

void Interpreter::Write(std::string_view text) {
  if (out_->size() + text.size() > limits_.max_output_bytes) {
    throw TemplateError(
        fmt::format("the output is longer than {} bytes", limits_.max_output_bytes));
  }
  *out_ += text;
}

std::string Interpreter::Capture(const std::function<void()>& body) {
  std::string text;
  std::string* before = std::exchange(out_, &text);
  try {
    body();
  } catch (...) {
    out_ = before;
    throw;
  }
  out_ = before;
  SpendBytes(text.size());
  return text;
}

std::string Interpreter::Render(const Body& body, const Value& context) {
  const NewScope root(this, nullptr);
  for (const auto& [key, value] : context.dict()->items) scope_->vars[ToStr(key)] = value;
  return Capture([&] { Exec(body); });
}

// ---- names, attributes, calls

Value Interpreter::Lookup(std::string_view name) {
  SpendScan(name.size());
  size_t scopes = 0;
  for (const Scope* s = scope_; s != nullptr; s = s->parent) {
    if (++scopes % 16 == 0) Spend(1);
    const auto it = s->vars.find(name);
    if (it != s->vars.end()) return it->second;
  }
  return FindGlobal(name);
}

Value Interpreter::Attribute(const Value& v, std::string_view name) {
  if (v.undefined()) FailOperand(v, "");
  SpendScan(name.size());
  if (const Object* o = v.object()) {
    const auto it = o->fields.find(name);
    if (it != o->fields.end()) return it->second;
  } else {
    Value method = FindMethod(v, name);
    if (!method.undefined()) return method;
    if (v.dict() != nullptr) {
      if (const Value* found = v.dict()->Find(name)) return *found;
    }
  }
  return Value::Missing(fmt::format("the attribute '{}' of {}", name, TypeName(v)));
}

Value Interpreter::Item(const Value& v, const Value& key) {
  if (v.undefined()) FailOperand(v, "");
  SpendScan(SizeOf(key));
  int64_t index = 0;
  const bool integer = key.integer(&index);
  if (v.list() != nullptr && integer) {
    const auto size = static_cast<int64_t>(v.list()->items.size());
    if (index < 0) index += size;
    if (index >= 0 && index < size) return v.list()->items[index];
  } else if (v.str() != nullptr && integer) {
    SpendScan(v.str()->size());
    const int64_t length = CodePoints(*v.str());
    if (index < 0) index += length;
    if (index >= 0 && index < length) return Text(SubString(*v.str(), index, index + 1));
  } else if (v.dict() != nullptr) {
    if (const Value* found = v.dict()->Find(key)) return *found;
  }
  if (key.str() != nullptr) return Attribute(v, *key.str());
  return Value::Missing(fmt::format("the item {} of {}", Repr(key), TypeName(v)));
}

void Interpreter::SpendArgs(const Args& args, size_t from) {
  for (size_t i = from; i < args.positional.size(); ++i) SpendScan(SizeOf(args.positional[i]));
  for (const auto& [name, v] : args.named) SpendScan(SizeOf(v));
}

Value Interpreter::Call(const Value& callee, Args& args) {
  const Deeper deeper(this);
  Spend(1);
  if (callee.object() == nullptr || !callee.object()->call) FailOperand(callee, "be called");
  args.callee = callee.object()->type;
  // A copy: the callee may be replaced while it runs.
  const Function call = callee.object()->call;
  return call(*this, args);
}

Value Interpreter::Filter(const std::string& name, Args& args) {
  const Builtin filter = FindFilter(name);
  if (filter == nullptr) throw TemplateError(fmt::format("the filter {} is not supported", name));
  args.callee = "the filter " + name;
  // Of what a filter applies to, it counts itself what it walks over, text apart.
  const bool text = !args.positional.empty() && args.positional[0].str() != nullptr;
  SpendArgs(args, text ? 0 : 1);
  return filter(*this, args);
}

bool Interpreter::Test(const std::string& name, Args& args) {
  const Builtin test = FindTest(name);
  if (test == nullptr) throw TemplateError(fmt::format("the test {} is not supported", name));
  args.callee = "the test " + name;
  return Truthy(test(*this, args));
}

std::vector<Value> Interpreter::Iterate(const Value& v) {
  std::vector<Value> out;
  if (v.undefined()) return out;
  if (v.list() != nullptr) {
    out = v.list()->items;
  } else if (v.dict() != nullptr) {
    for (const auto& [key, value] : v.dict()->items) out.push_back(key);
  } else if (v.str() != nullptr) {
    Spend(v.str()->size());
    SpendBytes(v.str()->size() * kCharacterBytes);
    for (std::string& c : Characters(*v.str())) out.push_back(Value::Str(std::move(c)));
  } else {
    FailOperand(v, "be iterated over");
  }
  Spend(out.size());
  SpendBytes(out.size() * sizeof(Value));
  return out;
}

// ---- expressions

Value Interpreter::Eval(const Node& n) {
  const Deeper deeper(this);
  Spend(1);
  return AtLine(n.line, [&] { return EvalNode(n); });
}

Value Interpreter::EvalNode(const Node& n) {
  switch (n.kind) {
    case NodeKind::kLiteral:
      return n.value;
    case NodeKind::kName:
      return Lookup(n.text);
    case NodeKind::kList:
    case NodeKind::kTuple: {
      std::vector<Value> items;
      for (const NodePtr& kid : n.kids) items.push_back(Eval(*kid));
      return MakeList(std::move(items), n.kind == NodeKind::kTuple);
    }
    case NodeKind::kDict: {
      std::vector<std::pair<Value, Value>> items;
      for (size_t i = 0; i < n.kids.size(); i += 2) {
        Value key = Eval(*n.kids[i]);
        SpendScan(SizeOf(key));
        items.emplace_back(std::move(key), Eval(*n.kids[i + 1]));
      }
      return Value::MakeDict(std::move(items));
    }
    case NodeKind::kAttribute:
      return Attribute(Eval(*n.kids[0]), n.text);
    case NodeKind::kItem: {
      const Value base = Eval(*n.kids[0]);
      return Item(base, Eval(*n.kids[1]));
    }
    case NodeKind::kSlice:
      return Slice(n);
    case NodeKind::kCall: {
      const Value callee = Eval(*n.kids[0]);
      Args args = EvalArgs(n, "", nullptr);
      return Call(callee, args);
    }
    case NodeKind::kFilter:
      return EvalFilter(n, nullptr);
    case NodeKind::kTest: {
      const Value input = Eval(*n.kids[0]);
      Args args = EvalArgs(n, "", &input);
      return Value(Test(n.text, args));
    }
    case NodeKind::kNot:
      return Value(!Truthy(Eval(*n.kids[0])));
    case NodeKind::kNegate: {
      const Value v = Eval(*n.kids[0]);
      if (!v.number()) FailOperand(v, "be negated");
      if (v.as<double>()) return Value(-v.real());
      return Arithmetic("-", Value(int64_t{0}), v);
    }
    case NodeKind::kPlus: {
      Value v = Eval(*n.kids[0]);
      if (!v.number()) FailOperand(v, "have a sign");
      return v;
    }
    case NodeKind::kBinary:
      return Binary(n);
    case NodeKind::kAnd:
    case NodeKind::kOr: {
      Value v;
      for (const NodePtr& kid : n.kids) {
        v = Eval(*kid);
        if (Truthy(v) == (n.kind == NodeKind::kOr)) break;
      }
      return v;
    }
    case NodeKind::kCompare:
      return Compare(n);
    case NodeKind::kConcat: {
      std::string text;
      for (const NodePtr& kid : n.kids) {
        const std::string part = Str(Eval(*kid));
        SpendBytes(part.size());
        text += part;
      }
      return Text(std::move(text));
    }
    case NodeKind::kCondition:
      if (Truthy(Eval(*n.kids[1]))) return Eval(*n.kids[0]);
      if (n.kids[2]) return Eval(*n.kids[2]);
      return Value::Missing("the value of an if without else");
    default:
      throw TemplateError("a statement where an expression was expected");
  }
}

Args Interpreter::EvalArgs(const Node& n, std::string callee, const Value* first) {
  Args args;
  args.callee = std::move(callee);
  if (first != nullptr) args.positional.push_back(*first);
  for (const Argument& a : n.args) {
    Value v = Eval(*a.value);
    if (a.spread == 1) {
      for (Value& item : Iterate(v)) args.positional.push_back(std::move(item));
    } else if (a.spread == 2) {
      if (v.dict() == nullptr) FailOperand(v, "be passed with **");
      Spend(v.dict()->items.size());
      for (const auto& [key, value] : v.dict()->items) args.named.emplace_back(Str(key), value);
    } else if (!a.name.empty()) {
      args.named.emplace_back(a.name, std::move(v));
    } else {
      args.positional.push_back(std::move(v));
    }
  }
  return args;
}

/// `input`: what a filter block applies to; null: the filter's own first operand.
Value Interpreter::EvalFilter(const Node& n, const Value* input) {
  const Deeper deeper(this);
  Value value;
  if (!n.kids[0]) {
    value = *input;
  } else if (input != nullptr && n.kids[0]->kind == NodeKind::kFilter) {
    value = EvalFilter(*n.kids[0], input);
  } else {
    value = Eval(*n.kids[0]);
  }
  Args args = EvalArgs(n, "", &value);
  return Filter(n.text, args);
}

Value Interpreter::Binary(const Node& n) {
  const Value a = Eval(*n.kids[0]);
  return Arithmetic(n.text, a, Eval(*n.kids[1]));
}

Value Interpreter::Arithmetic(const std::string& op, const Value& a, const Value& b) {
  int64_t x = 0, y = 0;
  if (a.integer(&x) && b.integer(&y)) return IntegerArithmetic(op, x, y);
  const auto whole = [](const Value& v) { return v.number() && !v.as<double>(); };
  if ((a.as<Large>() || b.as<Large>()) && whole(a) && whole(b)) FailInteger();
  if (a.number() && b.number()) return RealArithmetic(op, a.real(), b.real());
  if (op == "+" && a.str() != nullptr && b.str() != nullptr) return Text(*a.str() + *b.str());
  if (op == "+" && a.list() != nullptr && b.list() != nullptr) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return MakeList(std::move(items), a.list()->tuple);
  }
  if (op == "%" && a.str() != nullptr) {
    SpendScan(a.str()->size() + SizeOf(b));
    return Text(PercentFormat(*a.str(), b));
  }
  if (op == "*" && (a.str() != nullptr || a.list() != nullptr) && b.integer(&y)) {
    const auto times = static_cast<size_t>(std::max<int64_t>(y, 0));
    const size_t size = a.str() != nullptr ? a.str()->size() : a.list()->items.size();
    size_t total = 0;
    if (__builtin_mul_overflow(times, size, &total)) FailInteger();
    if (a.str() != nullptr) {
      SpendBytes(total);
      std::string text;
      for (size_t i = 0; i < times && size != 0; ++i) text += *a.str();
      return Value::Str(std::move(text));
    }
    Spend(total);
    std::vector<Value> items;
    for (size_t i = 0; i < times && size != 0; ++i) {
      items.insert(items.end(), a.list()->items.begin(), a.list()->items.end());
    }
    return MakeList(std::move(items), a.list()->tuple);
  }
  if (op == "*" && a.integer(&x) && (b.str() != nullptr || b.list() != nullptr))
    return Arithmetic(op, b, a);
  if (a.undefined()) FailOperand(a, "");
  if (b.undefined()) FailOperand(b, "");
  throw TemplateError(
      fmt::format("'{}' is not possible between {} and {}", op, TypeName(a), TypeName(b)));
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (container.str() != nullptr) {
    if (item.str() == nullptr) FailOperand(item, "be looked for in a string");
    SpendScan(container.str()->size());
    return FindText(*this, *container.str(), *item.str()) != std::string::npos;
  }
  SpendScan(SizeOf(item));
  if (container.dict() != nullptr) return container.dict()->Find(item) != nullptr;
  if (container.list() != nullptr) {
    const auto& items = container.list()->items;
    Spend(items.size());
    return std::any_of(items.begin(), items.end(), [&](const Value& v) { return Same(v, item); });
  }
  if (container.undefined()) return false;
  FailOperand(container, "be searched with 'in'");
}

Value Interpreter::Compare(const Node& n) {
  Value left = Eval(*n.kids[0]);
  for (size_t i = 0; i < n.ops.size(); ++i) {
    const std::string& op = n.ops[i];
    Value right = Eval(*n.kids[i + 1]);
    bool holds = false;
    if (op == "==")
      holds = Same(left, right);
    else if (op == "!=")
      holds = !Same(left, right);
    else if (op == "<")
      holds = Before(left, right);
    else if (op == ">")
      holds = Before(right, left);
    else if (op == "<=")
      holds = !Before(right, left);
    else if (op == ">=")
      holds = !Before(left, right);
    else
      holds = Contains(right, left) == (op == "in");
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::Slice(const Node& n) {
  const Value base = Eval(*n.kids[0]);
  std::optional<int64_t> part[3];
  for (int i = 0; i < 3; ++i) {
    if (!n.kids[i + 1]) continue;
    const Value v = Eval(*n.kids[i + 1]);
    if (v.none()) continue;
    int64_t x = 0;
    if (!v.integer(&x)) FailOperand(v, "be part of a slice");
    part[i] = x;
  }
  const int64_t step = part[2].value_or(1);
  if (step == 0) throw TemplateError("the step of a slice is 0");
  if (base.list() == nullptr && base.str() == nullptr) FailOperand(base, "be sliced");
  if (base.str() != nullptr) SpendScan(base.str()->size());
  // As Python's slice.indices().
  const int64_t size = base.str() != nullptr ? CodePoints(*base.str())
                                             : static_cast<int64_t>(base.list()->items.size());
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto clamp = [&](std::optional<int64_t> x, int64_t otherwise) {
    if (!x) return otherwise;
    return std::clamp(*x < 0 ? *x + size : *x, low, high);
  };
  const int64_t begin = clamp(part[0], step > 0 ? low : high),
                end = clamp(part[1], step > 0 ? high : low);
  if (base.str() != nullptr && step == 1) return Text(SubString(*base.str(), begin, end));
  const std::vector<Value> items = Iterate(base);
  std::vector<Value> out;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    out.push_back(items[i]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (base.list() != nullptr) return MakeList(std::move(out), base.list()->tuple);
  std::string text;
  for (const Value& v : out) text += *v.str();
  return Text(std::move(text));
}

// ---- statements

Interpreter::Flow Interpreter::Exec(const Body& body) {
  const Deeper deeper(this);
  for (const NodePtr& n : body) {
    Spend(1);
    const Flow flow = AtLine(n->line, [&] { return ExecNode(*n); });
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecNode(const Node& n) {
  switch (n.kind) {
    case NodeKind::kData:
      Write(n.text);
      break;
    case NodeKind::kOutput:
      Write(Str(Eval(*n.kids[0])));
      break;
    case NodeKind::kIf:
      for (size_t i = 0; i < n.kids.size(); ++i) {
        if (Truthy(Eval(*n.kids[i]))) return Exec(n.bodies[i]);
      }
      if (n.bodies.size() > n.kids.size()) return Exec(n.bodies.back());
      break;
    case NodeKind::kFor:
      Write(*RunLoop(n, Eval(*n.kids[1]), 0).str());
      break;
    case NodeKind::kSet:
      Assign(*n.kids[0], Eval(*n.kids[1]));
      break;
    case NodeKind::kSetBlock: {
      Value text = Value::Str(Capture([&] {
        const NewScope scope(this, scope_);
        Exec(n.bodies[0]);
      }));
      Assign(*n.kids[0], n.kids[1] ? EvalFilter(*n.kids[1], &text) : text);
      break;
    }
    case NodeKind::kMacro:
      scope_->vars[n.text] = DefineMacro(n);
      break;
    case NodeKind::kCallBlock: {
      const Node& call = *n.kids[0];
      const Value callee = Eval(*call.kids[0]);
      Args args = EvalArgs(call, "", nullptr);
      args.named.emplace_back("caller", DefineMacro(*n.kids[1]));
      Write(Str(Call(callee, args)));
      break;
    }
    case NodeKind::kFilterBlock: {
      const Value text = Value::Str(Capture([&] {
        const NewScope scope(this, scope_);
        Exec(n.bodies[0]);
      }));
      Write(Str(EvalFilter(*n.kids[0], &text)));
      break;
    }
    case NodeKind::kWith: {
      std::vector<Value> values;  // all are evaluated outside of the new scope
      for (size_t i = 1; i < n.kids.size(); i += 2) values.push_back(Eval(*n.kids[i]));
      const NewScope scope(this, scope_);
      for (size_t i = 0; i < values.size(); ++i) Assign(*n.kids[2 * i], values[i]);
      return Exec(n.bodies[0]);
    }
    case NodeKind::kBreak:
      return Flow::kBreak;
    case NodeKind::kContinue:
      return Flow::kContinue;
    default:
      throw TemplateError("an expression where a statement was expected");
  }
  return Flow::kNext;
}

void Interpreter::Assign(const Node& target, const Value& value) {
  if (target.kind == NodeKind::kName) {
    scope_->vars[target.text] = value;
  } else if (target.kind == NodeKind::kAttribute) {
    const Value base = Eval(*target.kids[0]);
    if (base.object() == nullptr || !base.object()->settable) {
      FailOperand(base, "have its attributes set; only a namespace can");
    }
    base.object()->fields[target.text] = value;
  } else {
    std::vector<Value> items = Iterate(value);
    if (items.size() != target.kids.size()) {
      throw TemplateError(fmt::format("{} values for {} names", items.size(), target.kids.size()));
    }
    for (size_t i = 0; i < items.size(); ++i) Assign(*target.kids[i], items[i]);
  }
}

Value Interpreter::DefineMacro(const Node& n) {
  for (Scope* s = scope_; s != nullptr && !s->captured; s = s->parent) {
    SpendBytes(kObjectBytes);
    s->captured = true;
  }
  auto macro = NewObject("macro '" + n.text + "'");
  macro->fields["name"] = Value::Str(n.text);
  macro->call = [&n, defined_in = scope_](Interpreter& in, Args& args) {
    NewScope scope(&in, defined_in);
    const size_t required = n.params.size() - n.kids.size();
    // Each parameter is looked for among the arguments that have names.
    in.Spend((n.params.size() + 1) * args.named.size() / 32);
    for (size_t i = 0; i < n.params.size(); ++i) {
      const Value* given = args.Get(i, n.params[i]);
      if (given != nullptr) {
        scope[n.params[i]] = *given;
      } else if (i >= required) {
        scope[n.params[i]] = in.Eval(*n.kids[i - required]);
      } else {
        scope[n.params[i]] = Value::Missing("the parameter '" + n.params[i] + "'");
      }
    }
    if (const Value* caller = args.Get(args.positional.size(), "caller")) scope["caller"] = *caller;
    args.Done();
    return Value::Str(in.Capture([&] { in.Exec(n.bodies[0]); }));
  };
  return Value(macro);
}

Value Interpreter::RunLoop(const Node& n, const Value& iterable, int depth) {
  std::vector<Value> items = Iterate(iterable);
  if (n.kids[2]) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const NewScope scope(this, scope_);
      Assign(*n.kids[0], item);
      if (Truthy(Eval(*n.kids[2]))) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  return Value::Str(Capture([&] {
    if (items.empty()) {
      if (n.bodies.size() > 1) {
        const NewScope scope(this, scope_);
        Exec(n.bodies[1]);
      }
      return;
    }
    const size_t objects = objects_.size();
    auto loop = NewObject("loop");
    const auto size = static_cast<int64_t>(items.size());
    if (n.recursive) {
      loop->call = [this, &n, depth](Interpreter&, Args& args) {
        const Value inner = args.Need(0, "iterable");
        args.Done();
        return RunLoop(n, inner, depth + 1);
      };
    }
    loop->fields["length"] = Value(size);
    loop->fields["depth"] = Value(static_cast<int64_t>(depth + 1));
    loop->fields["depth0"] = Value(static_cast<int64_t>(depth));
    auto index = std::make_shared<int64_t>(0);
    auto cycle = NewObject("loop.cycle");
    cycle->call = [index](Interpreter&, Args& args) {
      if (args.positional.empty()) throw TemplateError("loop.cycle needs values");
      return args.positional[*index % static_cast<int64_t>(args.positional.size())];
    };
    loop->fields["cycle"] = Value(cycle);
    auto changed = NewObject("loop.changed");
    auto last = std::make_shared<std::vector<Value>>();
    changed->call = [last](Interpreter& in, Args& args) {
      const bool same = last->size() == args.positional.size() &&
                        std::equal(last->begin(), last->end(), args.positional.begin(),
                                   [&in](const Value& a, const Value& b) { return in.Same(a, b); });
      *last = args.positional;
      return Value(!same);
    };
    loop->fields["changed"] = Value(changed);
    for (int64_t i = 0; i < size; ++i) {
      *index = i;
      auto& f = loop->fields;
      f["index"] = Value(i + 1);
      f["index0"] = Value(i);
      f["revindex"] = Value(size - i);
      f["revindex0"] = Value(size - i - 1);
      f["first"] = Value(i == 0);
      f["last"] = Value(i == size - 1);
      f["previtem"] = i == 0 ? Value::Missing("loop.previtem") : items[i - 1];
      f["nextitem"] = i == size - 1 ? Value::Missing("loop.nextitem") : items[i + 1];
      NewScope scope(this, scope_);
      scope["loop"] = Value(loop);
      Assign(*n.kids[0], items[i]);
      if (Exec(n.bodies[0]) == Flow::kBreak) break;
    }
    // Where nothing else refers to them, the three go: each is here and in objects_, and two are in
    // the first one's fields.
    if (objects_.size() == objects + 3 && loop.use_count() == 2 && cycle.use_count() == 3 &&
        changed.use_count() == 3) {
      objects_.resize(objects);
      bytes_ -= 3 * kObjectBytes;
    }
  }));
}

}  // namespace kvasir::jinja
