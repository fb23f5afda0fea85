#pragma once

#include <string>

#include "server/completions.h"

namespace kvasir {

/// Log lines go to stderr, written by a thread of their own: whoever logs never waits. When lines
/// come faster than they can be written the oldest are dropped. `level`: trace, debug, info, warn,
/// error, critical or off; an Error names another.
Status StartLog(const std::string& level);
/// Writes what is left.
void EndLog();

/// One line for a completion that ended: who, how much, how long and why it was not faster. The
/// prompt's text only if the options say so.
void LogRequest(const OpenCompletion& completion, const UsageCount& usage, double seconds);
/// One line for anything else.
void LogInfo(const std::string& line);
void LogWarning(const std::string& line);

}  // namespace kvasir
