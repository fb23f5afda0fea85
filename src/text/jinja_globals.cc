#include <fmt/format.h>

#include <ctime>
#include <map>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"

namespace kvasir::jinja {
namespace {

/// As Jinja2's sandbox.
constexpr int64_t kMaxRange = 100'000;

Value Range(Interpreter& in, Args& a) {
  int64_t start = 0, stop = a.Int(0, "start", 0);
  if (a.Get(1, "stop") != nullptr) {
    start = stop;
    stop = a.Int(1, "stop", 0);
  }
  const int64_t step = a.Int(2, "step", 1);
  a.Done();
  if (step == 0) throw TemplateError("range: the step is 0");
  std::vector<Value> out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(out.size()) == kMaxRange) {
      throw TemplateError(fmt::format("range: more than {} numbers", kMaxRange));
    }
    out.push_back(Value(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return in.MakeList(std::move(out));
}

Value Namespace(Interpreter& in, Args& a) {
  auto ns = in.NewObject("namespace");
  ns->settable = true;
  for (const Value& v : a.positional) {
    if (v.dict() == nullptr) FailOperand(v, "start a namespace");
    in.Spend(v.dict()->items.size());
    for (const auto& [key, value] : v.dict()->items) ns->fields[in.Str(key)] = value;
  }
  for (const auto& [key, value] : a.named) ns->fields[key] = value;
  return Value(std::move(ns));
}

Value MakeDictFunction(Interpreter& in, Args& a) {
  std::vector<std::pair<Value, Value>> items;
  for (const Value& v : a.positional) {
    if (v.dict() == nullptr) FailOperand(v, "become a dict");
    in.Spend(v.dict()->items.size());
    for (const auto& [key, value] : v.dict()->items) in.SpendScan(SizeOf(key));
    items.insert(items.end(), v.dict()->items.begin(), v.dict()->items.end());
  }
  for (auto& [key, value] : a.named) items.emplace_back(Value::Str(key), value);
  return Value::MakeDict(std::move(items));
}

Value RaiseException(Interpreter&, Args& a) {
  throw TemplateError("the template refuses: " + a.Text(0, "message", ""));
}

Value StrftimeNow(Interpreter& in, Args& a) {
  const std::string format = ToStr(a.Need(0, "format"));
  a.Done();
  constexpr size_t kMaxFormat = 200;
  if (format.size() > kMaxFormat) throw TemplateError("strftime_now: the format is too long");
  if (format.empty()) return Value::Str("");
  const time_t now = in.now();
  tm utc{};
  gmtime_r(&now, &utc);
  char buffer[4096];
  return in.Text(std::string(buffer, strftime(buffer, sizeof buffer, format.c_str(), &utc)));
}

Value Joiner(Interpreter& in, Args& a) {
  const std::string separator = a.Text(0, "sep", ", ");
  a.Done();
  in.SpendBytes(separator.size());
  auto joiner = in.NewObject("joiner");
  joiner->call = [separator, used = std::make_shared<bool>(false)](Interpreter& i, Args& args) {
    args.Done();
    return std::exchange(*used, true) ? i.Text(separator) : Value::Str("");
  };
  return Value(std::move(joiner));
}

Value Cycler(Interpreter& in, Args& a) {
  if (a.positional.empty()) throw TemplateError("cycler needs values");
  auto cycler = in.NewObject("cycler");
  auto position = std::make_shared<size_t>(0);
  const auto items = std::make_shared<std::vector<Value>>(a.positional);
  Object* self = cycler.get();
  self->fields["current"] = (*items)[0];
  auto next = in.NewObject("cycler.next");
  next->call = [position, items, self](Interpreter&, Args& args) {
    args.Done();
    const Value now = (*items)[*position];
    *position = (*position + 1) % items->size();
    self->fields["current"] = (*items)[*position];
    return now;
  };
  auto reset = in.NewObject("cycler.reset");
  reset->call = [position, items, self](Interpreter&, Args& args) {
    args.Done();
    *position = 0;
    self->fields["current"] = (*items)[0];
    return Value::MakeNone();
  };
  self->fields["next"] = Value(next);
  self->fields["reset"] = Value(reset);
  return Value(std::move(cycler));
}

const std::map<std::string_view, Builtin> kGlobals = {
    {"range", Range},
    {"namespace", Namespace},
    {"dict", MakeDictFunction},
    {"raise_exception", RaiseException},
    {"strftime_now", StrftimeNow},
    {"joiner", Joiner},
    {"cycler", Cycler},
};

}  // namespace

Value FindGlobal(std::string_view name) {
  const auto it = kGlobals.find(name);
  if (it == kGlobals.end()) return Value::Missing("'" + std::string(name) + "'");
  auto function = std::make_shared<Object>();
  function->type = std::string(name);
  function->call = it->second;
  return Value(std::move(function));
}

}  // namespace kvasir::jinja
