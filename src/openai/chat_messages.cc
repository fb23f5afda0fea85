#include "openai/chat_messages.h"

#include <fmt/format.h>

#include <iterator>

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// The text of a part of a content: a string, or an object of type "text", or "refusal", which
/// answers of OpenAI's models have. nullptr: it has none, and `wrong` may say why.
const std::string* TextOfPart(const Json& part, std::string* wrong) {
  if (part.is_string()) return &part.get_ref<const std::string&>();
  if (!part.is_object() || !part.contains("type")) return nullptr;
  const Json& type = part["type"];
  if (type != "text" && type != "refusal") {
    *wrong = "has a part of type " + type.dump() + "; only \"text\" is supported";
    return nullptr;
  }
  const auto text = part.find(type.get_ref<const std::string&>());
  if (text == part.end() || !text->is_string()) return nullptr;
  return &text->get_ref<const std::string&>();
}

/// A message's content: a string, or a list of parts, which are lines of their own (as in vLLM).
bool ReadContent(const Json& content, std::string* out, std::string* wrong) {
  if (content.is_string()) {
    *out = content.get<std::string>();
    return true;
  }
  if (content.is_null()) return true;
  *wrong = "must be a string or a list of {\"type\": \"text\", \"text\": ...}";
  if (!content.is_array()) return false;
  for (const Json& part : content) {
    const std::string* text = TextOfPart(part, wrong);
    if (text == nullptr) return false;
    if (&part != &content.front()) *out += '\n';
    *out += *text;
  }
  return true;
}

/// OpenAI's clients send an answer back with every field that it might have had, as null. Templates
/// ask whether `tool_calls` is there: a null, or a list of none, must not be.
void DropWhatSaysNothing(Json* message) {
  for (auto it = message->begin(); it != message->end();) {
    const bool nothing = it.key() != "content" && it->is_null();
    const bool no_calls = it.key() == "tool_calls" && it->is_array() && it->empty();
    it = nothing || no_calls ? message->erase(it) : std::next(it);
  }
}

}  // namespace

Json ReadTemplateArguments(FieldReader* f) {
  Json out = Json::object();
  f->Object("chat_template_kwargs");
  if (const Json* kwargs = f->Get("chat_template_kwargs"); kwargs != nullptr) {
    out = *kwargs;
    out.erase("messages");
  }
  bool generation = true;
  f->Bool("add_generation_prompt", &generation);
  if (f->Get("add_generation_prompt") != nullptr || !out.contains("add_generation_prompt"))
    out["add_generation_prompt"] = generation;
  return out;
}

Json ReadMessages(FieldReader* f) {
  Json out = Json::array();
  const Json* messages = f->Get("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    f->Fail("messages", "must be a list of at least one message");
    return out;
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    const Json& m = (*messages)[i];
    const std::string name = fmt::format("messages[{}]", i);
    if (!m.is_object() || !m.contains("role") || !m["role"].is_string()) {
      f->Fail(name, "must be an object with a role");
      return out;
    }
    std::string text, wrong;
    if (!ReadContent(m.value("content", Json()), &text, &wrong)) {
      f->Fail(name + ".content", wrong);
      return out;
    }
    Json message = m;  // name, reasoning_content and the like are the template's
    DropWhatSaysNothing(&message);
    // Templates want them in forms that differ: half of them would be rendered wrongly, and unseen.
    if (message.contains("tool_calls")) {
      f->Fail(name + ".tool_calls", "are not supported yet; leave them out");
      return out;
    }
    if (message["role"] == "tool" || message["role"] == "function") {
      f->Fail(name + ".role", "is " + message["role"].dump() +
                                  "; results of tools are not supported yet: leave them out");
      return out;
    }
    // The API's newer name for it; templates know the old one.
    if (message["role"] == "developer") message["role"] = "system";
    message["content"] = text;
    out.push_back(std::move(message));
  }
  return out;
}

}  // namespace kvasir
