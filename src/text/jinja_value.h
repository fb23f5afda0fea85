#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace kvasir::jinja {

/// What is wrong with a template, or with what it does. Stays within this folder: ChatTemplate
/// turns it into an Error. (Results for every step of an expression would be most of the
/// interpreter.)
class TemplateError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Interpreter;
struct Value;
struct Args;

using String = std::shared_ptr<const std::string>;
using Function = std::function<Value(Interpreter&, Args&)>;

/// The result of looking up what is not there; `what` is for the message when it is used.
struct Undefined {
  std::string what;
};
struct None {};
/// An integer above what int64 holds. It can be passed on, compared and printed; there is no
/// arithmetic with it but that of floats.
struct Large {
  uint64_t value = 0;
};

struct List;
struct Dict;
struct Object;

/// A Python-like value. Lists and dicts are immutable once made; only a namespace() changes.
struct Value {
  std::variant<Undefined, None, bool, int64_t, double, Large, String, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Object>>
      v;

  Value() = default;
  template <typename T>
  explicit Value(T x) : v(std::move(x)) {}
  static Value Str(std::string s) {
    return Value(std::make_shared<const std::string>(std::move(s)));
  }
  static Value MakeNone() { return Value(None{}); }
  static Value Missing(std::string what);  ///< Undefined; `what` is cut to some 100 bytes
  static Value MakeList(std::vector<Value> items, bool tuple = false);
  static Value MakeDict(std::vector<std::pair<Value, Value>> items);

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&v);
  }
  bool undefined() const { return as<Undefined>() != nullptr; }
  bool none() const { return as<None>() != nullptr; }
  const std::string* str() const { return as<String>() ? as<String>()->get() : nullptr; }
  const List* list() const;
  const Dict* dict() const;
  Object* object() const;
  bool number() const { return as<bool>() || as<int64_t>() || as<double>() || as<Large>(); }
  /// A bool counts as 0 or 1, as in Python. False for a Large one.
  bool integer(int64_t* out) const;
  double real() const;  ///< of a number
};

/// Nesting is bounded, so that walking and freeing a value needs a bounded stack.
constexpr int kMaxValueDepth = 200;
/// Bytes of all that a list or dict holds; what it holds twice counts twice. So its text is bounded
/// before it is made.
constexpr size_t kMaxValueBytes = size_t{64} << 20;

struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
  size_t bytes = 0;
};

/// Keeps the order of insertion.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::map<std::string, size_t, std::less<>> by_string;  ///< index of string keys
  std::map<std::string, size_t> by_other;                ///< of others, written out
  int depth = 1;
  size_t bytes = 0;
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
};

/// A thing with identity: namespace, loop, macro, cycler, function, bound method.
struct Object {
  std::string type;
  std::map<std::string, Value, std::less<>> fields;
  Function call;          ///< empty: cannot be called
  bool settable = false;  ///< namespace(): {% set ns.x = ... %}
};

/// Arguments of a call. Functions take what they know with Get and end with Done.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  std::string callee;  ///< for messages

  /// Argument `index`, or the one called `name`; nullptr if not given.
  const Value* Get(size_t index, std::string_view name);
  /// The same, for one that must be there.
  const Value& Need(size_t index, std::string_view name);
  bool Flag(size_t index, std::string_view name, bool otherwise);
  int64_t Int(size_t index, std::string_view name, int64_t otherwise);
  std::string Text(size_t index, std::string_view name, std::string_view otherwise);
  /// Throws if there are arguments that were not asked for.
  void Done() const;

 private:
  size_t known_positional_ = 0;
  std::vector<std::string> known_named_;
};

std::string TypeName(const Value& v);
/// The bytes that walking over `v` and what it holds passes.
size_t SizeOf(const Value& v);
bool Truthy(const Value& v);
/// As Python's ==; numbers compare across types.
bool Equals(const Value& a, const Value& b);
/// As Python's <; throws where Python does.
bool Less(const Value& a, const Value& b);
/// As Python's str(); Undefined is "".
std::string ToStr(const Value& v);
std::string Repr(const Value& v);
/// As Python's repr() of a float.
std::string ReprDouble(double d);

struct JsonStyle {
  int indent = -1;  ///< -1: one line
  bool ensure_ascii = false, sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
};
/// As Python's json.dumps.
std::string ToJson(const Value& v, const JsonStyle& style);

/// Throws that an integer has more than 64 bits.
[[noreturn]] void FailInteger();
/// Throws that `v` is undefined, or that it does not fit `operation`.
[[noreturn]] void FailOperand(const Value& v, std::string_view operation);

}  // namespace kvasir::jinja
