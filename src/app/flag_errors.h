#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

/// Why an option does not take `value`, by what it takes: "--max-tokens is gl; it must be a whole
/// number". Uses up the option: nothing may be parsed with it afterwards.
std::string WhyNotTaken(CLI::Option* option, const std::string& value);

/// What to do instead of a flag of llama.cpp that Kvasir does not have, where the command line has
/// one; else empty. "-ngl 99" reads as -n with the value "gl".
std::string ForeignFlagHint(const std::vector<std::string>& arguments);

}  // namespace kvasir
