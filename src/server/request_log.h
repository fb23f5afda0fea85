#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "openai/api_error.h"
#include "openai/completion_answer.h"

namespace kvasir {

class ApiReply;
struct OpenCompletion;

/// Log lines go to stderr, written by a thread of their own: whoever logs never waits. When lines
/// come faster than they can be written the oldest are dropped. `level`: trace, debug, info, warn,
/// error, critical or off; an Error names another.
Status StartLog(const std::string& level);
/// Writes what is left.
void EndLog();

/// Lines that anybody may cause: so many in each second, and how many were left out.
class LineLimit {
 public:
  static constexpr int kPerSecond = 10;
  /// Whether one more may be written at this Clock time. Else it counts as left out.
  bool Take(int64_t now_ns);
  /// How many were left out since this was asked last.
  uint64_t TakeLeftOut();

 private:
  int64_t second_ = -1;
  int written_ = 0;  // in that second
  uint64_t left_out_ = 0;
};

/// One line for a completion that ended: who, how much, how long, why it was not faster, and for
/// whom its prefix was given up. The prompt's text only if the options say so.
void LogRequest(const OpenCompletion& completion, const UsageCount& usage, double seconds,
                const TenantNames& names);
/// One line for a request that was refused, if `limit` has one left: never its body, nor the
/// error's message, which may name what it held.
void LogRefusal(LineLimit* limit, int64_t now_ns, const ApiError& error, const ApiReply& reply);
/// A line for those that LogRefusal left out, if there are any.
void LogLeftOut(LineLimit* limit);
/// One line for anything else.
void LogInfo(const std::string& line);
void LogWarning(const std::string& line);

}  // namespace kvasir
