#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/jinja_ast.h"

namespace kvasir::jinja {

/// One rendering: variables, budgets, output.
class Interpreter {
 public:
  Interpreter(const TemplateLimits& limits, int64_t now) : limits_(limits), now_(now) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// The text of a template with the variables of `context`, which must be a dict.
  std::string Render(const Body& body, const Value& context);

  // What filters, tests and methods use.
  int64_t now() const { return now_; }
  /// Counts work; throws when the budget is spent.
  void Spend(size_t steps);
  /// Counts a walk over `bytes` of text or of what lists and dicts hold: work that evaluates
  /// nothing.
  void SpendScan(size_t bytes) { Spend(bytes / kBytesOfAStep); }
  /// Counts memory made, so that a loop of doublings ends; throws when the budget is spent.
  void SpendBytes(size_t bytes);
  /// A walk over each argument, of the positional ones from `from` on.
  void SpendArgs(const Args& args, size_t from);
  Value Text(std::string s);                                     ///< a string, counted
  Value MakeList(std::vector<Value> items, bool tuple = false);  ///< counted
  std::shared_ptr<Object> NewObject(std::string type);
  // ToStr, Equals and Less, counted.
  std::string Str(const Value& v);
  bool Same(const Value& a, const Value& b);
  bool Before(const Value& a, const Value& b);
  /// a.name and a[key], as Jinja2's sandbox does it.
  Value Attribute(const Value& v, std::string_view name);
  Value Item(const Value& v, const Value& key);
  Value Call(const Value& callee, Args& args);
  /// a op b for + - * / // % **.
  Value Arithmetic(const std::string& op, const Value& a, const Value& b);
  Value Filter(const std::string& name, Args& args);
  bool Test(const std::string& name, Args& args);
  /// The items that a loop over `v` sees.
  std::vector<Value> Iterate(const Value& v);

 private:
  /// A walk over so many bytes takes about as long as to evaluate a node.
  static constexpr size_t kBytesOfAStep = 128;

  struct Scope {
    std::map<std::string, Value, std::less<>> vars;
    Scope* parent = nullptr;
    bool captured = false;  // a macro was defined below it and may outlive it
  };
  enum class Flow { kNext, kBreak, kContinue };
  struct Deeper;
  class NewScope;

  Value Eval(const Node& n);
  Value EvalNode(const Node& n);
  Value Binary(const Node& n);
  Value Compare(const Node& n);
  bool Contains(const Value& container, const Value& item);
  Value Slice(const Node& n);
  Value EvalFilter(const Node& n, const Value* input);
  Args EvalArgs(const Node& n, std::string callee, const Value* first);
  Value Lookup(std::string_view name);

  Flow Exec(const Body& body);
  Flow ExecNode(const Node& n);
  Value RunLoop(const Node& n, const Value& iterable, int depth);
  void Assign(const Node& target, const Value& value);
  Value DefineMacro(const Node& n);
  std::string Capture(const std::function<void()>& body);
  void Write(std::string_view text);

  const TemplateLimits& limits_;
  int64_t now_;
  size_t steps_ = 0, bytes_ = 0;
  int depth_ = 0;
  std::string* out_ = nullptr;
  Scope* scope_ = nullptr;
  std::vector<std::unique_ptr<Scope>> captured_;
  std::vector<std::shared_ptr<Object>> objects_;
};

}  // namespace kvasir::jinja
