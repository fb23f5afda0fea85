#include "app/chat_history.h"

#include <utility>

#include "api/chat_prompt.h"

namespace kvasir {

bool ChatHistory::HasSystem() const {
  return !messages_.empty() && messages_[0]["role"] == "system";
}

std::string ChatHistory::System() const {
  return HasSystem() ? messages_[0]["content"].get<std::string>() : "";
}

/// A message that waits for its reply is none yet.
size_t ChatHistory::Turns() const { return (messages_.size() - (HasSystem() ? 1 : 0)) / 2; }

nlohmann::ordered_json ChatHistory::Messages(size_t left_out) const {
  nlohmann::ordered_json out = messages_;
  const auto first = out.begin() + (HasSystem() ? 1 : 0);
  out.erase(first, first + static_cast<ptrdiff_t>(2 * left_out));
  return out;
}

ChatHistory::ChatHistory(const LoadedModel* model) : model_(model) {
  SetSystem(kDefaultSystem);
  default_system_ = true;
}

void ChatHistory::Clear() {
  const bool was_default = default_system_;
  SetSystem(System());
  default_system_ = was_default;
}

void ChatHistory::SetSystem(const std::string& text) {
  default_system_ = false;
  messages_ = nlohmann::ordered_json::array();
  left_out_ = left_out_before_ = 0;
  text_.clear();
  tokens_.clear();
  if (!text.empty()) messages_.push_back({{"role", "system"}, {"content", text}});
}

Result<std::vector<int32_t>> ChatHistory::AddUser(const std::string& text, int64_t now,
                                                  int32_t most) {
  left_out_before_ = left_out_;
  messages_.push_back({{"role", "user"}, {"content", text}});
  Status made = MakePrompt(left_out_, now);
  if (!made.ok() && default_system_ && messages_.size() == 2) {
    messages_.erase(0);  // some templates refuse system messages
    default_system_ = false;
    made = MakePrompt(left_out_, now);
  }
  const auto too_long = [&] { return prompt_tokens_.size() > static_cast<size_t>(most); };
  // The fewest turns that make it short enough: with more, it is shorter. Halved, since each try
  // renders and tokenizes all of it.
  size_t fewest = left_out_, enough = Turns();
  if (made.ok() && too_long()) {
    while (made.ok() && fewest < enough) {
      const size_t middle = fewest + (enough - fewest) / 2;
      made = MakePrompt(middle, now);
      if (too_long()) {
        fewest = middle + 1;
      } else {
        enough = middle;
      }
    }
    left_out_ = enough;
    if (made.ok()) made = MakePrompt(left_out_, now);
  }
  if (!made.ok()) {
    DropUser();
    return made.error();
  }
  return prompt_tokens_;
}

Status ChatHistory::MakePrompt(size_t left_out, int64_t now) {
  KV_ASSIGN(prompt_text_, RenderChat(*model_, Messages(left_out), {}, now));
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
    // The template changed what came before (some cut out earlier thoughts), or turns were left
    // out: all of it anew.
    prompt_tokens_ = tokenizer.Encode(prompt_text_, options);
  }
  return {};
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

void ChatHistory::DropUser() {
  messages_.erase(messages_.size() - 1);
  left_out_ = left_out_before_;
}

}  // namespace kvasir
