#pragma once

#include <memory>
#include <string>

#include "api/loaded_model.h"

namespace kvasir {

/// Loads with a progress bar on a terminal, and says on stderr when more context was asked for than
/// the model was trained for, or more threads than there are processors. The options' `planned` is
/// called too, their `progress` is not.
Result<std::unique_ptr<LoadedModel>> LoadWithProgress(LoadOptions options);

/// The line that LoadWithProgress says where --threads is more than the processors that there are.
std::string ThreadsWarning(int threads);

/// The line that LoadWithProgress says, with its newline; empty where there is nothing to say.
std::string ContextWarning(int32_t context, const ModelConfig& config);

}  // namespace kvasir
