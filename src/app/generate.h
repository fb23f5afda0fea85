#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "api/loaded_model.h"

namespace kvasir {

/// What one request gave.
struct Reply {
  std::string text;
  std::vector<SampledToken> tokens;  ///< all that were generated, an end token included
  FinishReason reason = FinishReason::kStop;
  RequestStats stats;
  /// Ctrl-C ended it: a reply that nobody listens to any more is cancelled too.
  bool interrupted = false;

  std::vector<int32_t> ids() const;
};

/// Runs one request on the engine to its end. `on_text` gets text as it becomes certain; when it
/// gives false (nobody listens any more) the request is cancelled. `on_prefill` gets the progress
/// of the prompt. Ctrl-C, while an InterruptScope lives, cancels. An Error when the request was
/// refused or failed.
Result<Reply> Generate(Engine* engine, Request request,
                       const std::function<bool(std::string_view)>& on_text,
                       const std::function<void(int32_t done, int32_t total)>& on_prefill);

}  // namespace kvasir
