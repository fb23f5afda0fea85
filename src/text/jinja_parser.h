#pragma once

#include <string_view>

#include "text/jinja_ast.h"

namespace kvasir::jinja {

/// Parses a whole template. Names of filters and tests are checked here, so that a template that
/// cannot work is known when it is loaded. Throws TemplateError with the line.
Body Parse(std::string_view source, int max_depth);

}  // namespace kvasir::jinja
