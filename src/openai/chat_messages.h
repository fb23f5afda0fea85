#pragma once

#include <nlohmann/json.hpp>

#include "openai/field_reader.h"

namespace kvasir {

/// The field `messages` of a chat, as templates take it: each an object with a role and a text for
/// content, whatever form it came in. What is wrong is an error of the reader; so are calls of
/// tools and their results, as `tools` are.
nlohmann::ordered_json ReadMessages(FieldReader* fields);

/// What a chat's template is rendered with beside the messages: the fields `chat_template_kwargs`
/// and `add_generation_prompt`.
nlohmann::ordered_json ReadTemplateArguments(FieldReader* fields);

}  // namespace kvasir
