#pragma once

#include <string>
#include <string_view>

#include "text/jinja_value.h"

namespace kvasir::jinja {

/// A filter gets its input as the first positional argument.
using Builtin = Value (*)(Interpreter&, Args&);

/// nullptr: there is none of that name.
Builtin FindFilter(std::string_view name);
/// Tests give a boolean.
Builtin FindTest(std::string_view name);

/// The method `name` of a string, list or dict, bound to it; undefined if it has none.
Value FindMethod(const Value& self, std::string_view name);

/// The functions that every template has: range, namespace, raise_exception, ...
Value FindGlobal(std::string_view name);

}  // namespace kvasir::jinja
