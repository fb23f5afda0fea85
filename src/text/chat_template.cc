#include "text/chat_template.h"

#include <utility>

#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace kvasir {
namespace {

jinja::Value FromJson(const nlohmann::ordered_json& json, int depth) {
  using jinja::Value;
  if (depth > jinja::kMaxValueDepth) throw jinja::TemplateError("the messages are nested too deep");
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned: {
      const auto u = json.get<uint64_t>();
      if (u > INT64_MAX) return Value(jinja::Large{u});
      return Value(static_cast<int64_t>(u));
    }
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return Value::Str(json.get<std::string>());
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(FromJson(item, depth + 1));
      return Value::MakeList(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& [key, value] : json.items())
        items.emplace_back(Value::Str(key), FromJson(value, depth + 1));
      return Value::MakeDict(std::move(items));
    }
    default:
      return Value::MakeNone();
  }
}

}  // namespace

struct ChatTemplate::Impl {
  TemplateLimits limits;
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::Compile(std::string_view source, TemplateLimits limits) {
  if (source.size() > limits.max_source_bytes) {
    return MakeError(ErrorCode::kInvalid, "the chat template has {} bytes; at most {} are allowed",
                     source.size(), limits.max_source_bytes);
  }
  try {
    auto impl = std::make_unique<Impl>(Impl{limits, jinja::Parse(source, limits.max_depth)});
    return ChatTemplate(std::move(impl));
  } catch (const jinja::TemplateError& e) {
    return MakeError(ErrorCode::kUnsupported, "chat template: {}", e.what());
  }
}

Result<std::string> ChatTemplate::Render(const nlohmann::ordered_json& context, int64_t now) const {
  if (!context.is_object())
    return MakeError(ErrorCode::kInvalid, "the template's variables are no object");
  try {
    jinja::Interpreter interpreter(impl_->limits, now);
    return interpreter.Render(impl_->body, FromJson(context, 0));
  } catch (const jinja::TemplateError& e) {
    return MakeError(ErrorCode::kInvalid, "chat template: {}", e.what());
  }
}

}  // namespace kvasir
