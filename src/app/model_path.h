#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace kvasir {

/// The model that is used when none is named.
inline constexpr std::string_view kDefaultModel = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// $XDG_CACHE_HOME/kvasir/models, or ~/.cache/kvasir/models.
std::string ModelFolder();
/// $XDG_CONFIG_HOME/kvasir, or ~/.config/kvasir.
std::string ConfigFolder();
/// $XDG_STATE_HOME/kvasir, or ~/.local/state/kvasir.
std::string StateFolder();

/// The file that `name` means: a path, or a name in the model folder with or without .gguf; the
/// default model when empty. An Error says where was looked, and what is there.
Result<std::string> FindModel(const std::string& name);

}  // namespace kvasir
