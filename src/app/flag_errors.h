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

/// What is wrong with a whole number that CLI11 reads as another one: 010 as 8, and -1 as the
/// largest where none is below 0. Empty: nothing.
std::string ReadAsAnother(CLI::Option* option);

}  // namespace kvasir
