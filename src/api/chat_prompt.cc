#include "api/chat_prompt.h"

#include <utility>

namespace kvasir {

nlohmann::ordered_json TemplateContext(const Tokenizer& tokenizer, nlohmann::ordered_json messages,
                                       const nlohmann::ordered_json& extra) {
  const auto text = [&](std::optional<TokenId> id) {
    return id ? tokenizer.data().tokens[*id] : std::string();
  };
  nlohmann::ordered_json out = {{"messages", std::move(messages)},
                                {"tools", nullptr},  // as `transformers` always gives them
                                {"documents", nullptr},
                                {"add_generation_prompt", true},
                                {"bos_token", text(tokenizer.data().bos)},
                                {"eos_token", text(tokenizer.data().eos)}};
  if (tokenizer.data().unk) out["unk_token"] = text(tokenizer.data().unk);
  if (tokenizer.data().pad) out["pad_token"] = text(tokenizer.data().pad);
  if (extra.is_object()) out.update(extra);
  return out;
}

Result<std::string> RenderChat(const LoadedModel& model, nlohmann::ordered_json messages,
                               const nlohmann::ordered_json& extra, int64_t now, bool keep_bos) {
  if (model.chat_template() == nullptr)
    return MakeError(ErrorCode::kUnsupported, "{}", model.chat_template_error());
  const Tokenizer& tokenizer = model.tokenizer();
  KV_ASSIGN(std::string text, model.chat_template()->Render(
                                  TemplateContext(tokenizer, std::move(messages), extra), now));
  // Templates that write BOS themselves would else have it twice.
  if (!keep_bos && tokenizer.add_bos()) {
    const std::string& bos = tokenizer.data().tokens[*tokenizer.data().bos];
    if (!bos.empty() && text.starts_with(bos)) text.erase(0, bos.size());
  }
  return text;
}

}  // namespace kvasir
