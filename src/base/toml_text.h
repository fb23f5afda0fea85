#pragma once

#include <toml++/toml.h>
#include <string_view>

#include "base/result.h"

namespace kvasir {

/// The table of a TOML text. Errors name the line and what is wrong with it.
/// Characters beyond ASCII stand in comments only, and in strings before which a word ends (by
/// white space or a comma; brackets may be between): toml++ 3.3 is undefined for some of them
/// elsewhere (its tables of white space end in a branch that must not be reached), and where it
/// looks for the end of a word it takes quotes along, as in 1'x'.
Result<toml::table> ParseToml(std::string_view text);

}  // namespace kvasir
