#pragma once

#include <string_view>

#include "base/result.h"

namespace kvasir {

/// To be asked before a TOML text is parsed: characters beyond ASCII stand in strings and comments
/// only. TOML 1.0 says so, and toml++ 3.3 is undefined for some of them elsewhere (its tables of
/// white space end in a branch that must not be reached). An Error names the line.
Status CheckTomlText(std::string_view text);

}  // namespace kvasir
