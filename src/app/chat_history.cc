#include "app/chat_history.h"

#include <utility>

#include "api/chat_prompt.h"

namespace kvasir {

namespace {

bool HasSystem(const nlohmann::ordered_json& messages) {
  return !messages.empty() && messages[0]["role"] == "system";
}

}  // namespace

ChatHistory::ChatHistory(const LoadedModel* model) : model_(model) {
  SetSystem(kDefaultSystem);
  default_system_ = true;
}

void ChatHistory::Clear() {
  const bool was_default = default_system_;
  SetSystem(HasSystem(messages_) ? messages_[0]["content"].get<std::string>() : "");
  default_system_ = was_default;
}

void ChatHistory::SetSystem(const std::string& text) {
  default_system_ = false;
  messages_ = nlohmann::ordered_json::array();
  text_.clear();
  tokens_.clear();
  if (!text.empty()) messages_.push_back({{"role", "system"}, {"content", text}});
}

Result<std::vector<int32_t>> ChatHistory::AddUser(const std::string& text, int64_t now) {
  messages_.push_back({{"role", "user"}, {"content", text}});
  Result<std::string> rendered = RenderChat(*model_, messages_, {}, now);
  if (!rendered.ok() && default_system_ && messages_.size() == 2) {
    messages_.erase(0);  // some templates refuse system messages
    default_system_ = false;
    rendered = RenderChat(*model_, messages_, {}, now);
  }
  if (!rendered.ok()) {
    DropUser();
    return rendered.error();
  }
  prompt_text_ = std::move(*rendered);
  const Tokenizer& tokenizer = model_->tokenizer();
  EncodeOptions options{.add_special = true, .parse_special = true};
  if (!tokens_.empty() && prompt_text_.starts_with(text_)) {
    options.add_special = false;
    options.continues = true;
    prompt_tokens_ = tokens_;
    const std::vector<TokenId> rest =
        tokenizer.Encode(std::string_view(prompt_text_).substr(text_.size()), options);
    prompt_tokens_.insert(prompt_tokens_.end(), rest.begin(), rest.end());
  } else {
    // The template changed what came before (some cut out earlier thoughts): all of it anew.
    prompt_tokens_ = tokenizer.Encode(prompt_text_, options);
  }
  return prompt_tokens_;
}

void ChatHistory::AddReply(const std::string& text, const std::vector<int32_t>& tokens) {
  messages_.push_back({{"role", "assistant"}, {"content", text}});
  text_.clear();
  tokens_.clear();
  if (tokens.empty()) return;
  text_ = prompt_text_ + text;
  tokens_ = prompt_tokens_;
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void ChatHistory::DropUser() { messages_.erase(messages_.size() - 1); }

}  // namespace kvasir
