#pragma once

#include <functional>
#include <string>
#include <vector>

#include "openai/completion_request.h"

namespace kvasir {

/// One line of an OpenAI batch file.
struct BatchLine {
  std::string custom_id;
  ParsedCompletion request = ApiError();
};

struct BatchSummary {
  size_t requests = 0;  ///< answered in this run
  size_t failed = 0;    ///< of them, with an error
  size_t skipped = 0;   ///< answered by an earlier run
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double seconds = 0;
  bool interrupted = false;
};

/// Answers an OpenAI batch file: reads `in`, appends a line for each answer to `out`, in the order
/// in which they finish. Lines whose custom_id `out` already has are skipped, and half a last line
/// of `out` (from a run that was killed) is cut off, so that a run can be repeated until it is
/// done; an `out` of anything else, or of another run that still writes, is an Error. Requests go
/// in the order of their tokens, so that equal beginnings meet in the cache. `progress` gets (done,
/// all). A line that a server would refuse, another model's say, is answered with that, and is
/// done. An Error names the line of `in` that is not one of a batch file.
Result<BatchSummary> RunBatch(LoadedModel* model, const std::string& in, const std::string& out,
                              const std::string& model_name,
                              const std::function<void(size_t done, size_t all)>& progress);

}  // namespace kvasir
