#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "api/loaded_model.h"

namespace kvasir {

/// The variables that a chat template is rendered with: the messages, the model's own tokens (BOS
/// and EOS always, unknown and padding where the file has them), and the members of `extra` (an
/// object; tools, enable_thinking, ...). tools and documents are none without it, not undefined.
nlohmann::ordered_json TemplateContext(const Tokenizer& tokenizer, nlohmann::ordered_json messages,
                                       const nlohmann::ordered_json& extra = {});

/// The prompt of a chat, without the BOS that the tokenizer adds itself. An Error when the model
/// has no usable template, or the template refuses. `now`: Unix time, for templates that show it.
/// `keep_bos`: with the BOS that the template writes, for who has the tokenizer add none.
Result<std::string> RenderChat(const LoadedModel& model, nlohmann::ordered_json messages,
                               const nlohmann::ordered_json& extra, int64_t now,
                               bool keep_bos = false);

}  // namespace kvasir
