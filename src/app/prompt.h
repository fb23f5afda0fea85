#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace kvasir {

/// The prompt of a subcommand that computes one: `given` (-p), the text of `file` (-f; "-" is
/// stdin) and what stands on stdin, with an empty line between. Stdin counts where it is a pipe or
/// a file, not where it is a terminal or /dev/null. nullopt: there is none of the three.
///
/// Beside -p or -f nobody may have meant the pipe: a program that starts this one leaves it open
/// and writes nothing. So its first byte is waited for only some seconds; it is said that none
/// came.
Result<std::optional<std::string>> ReadPrompt(const std::optional<std::string>& given,
                                              const std::string& file);

inline constexpr char kNoPrompt[] = "a prompt is needed: -p TEXT, -f FILE, or a pipe";
/// For --help.
inline constexpr char kPromptHelp[] =
    "answer this and end. What a pipe or a file on stdin has comes after it, and is a prompt "
    "alone too; a pipe in which nothing comes for 5 s is left out (-f - waits, </dev/null has "
    "none)";

}  // namespace kvasir
