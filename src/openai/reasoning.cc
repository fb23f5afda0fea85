#include "openai/reasoning.h"

#include <algorithm>
#include <utility>

namespace kvasir {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
constexpr std::string_view kSpace = " \t\r\n";

/// Length of the longest end of `text` that is a beginning of `tag`.
size_t HeldBack(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == tag.substr(0, n)) return n;
  }
  return 0;
}

void TrimFront(std::string* text) { text->erase(0, text->find_first_not_of(kSpace)); }

/// Where the white space at the end begins.
size_t EndOfText(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? 0 : last + 1;
}

}  // namespace

/// True if the state went on.
bool ReasoningSplitter::TakeOpening(Piece* out, bool end) {
  const size_t begin = std::min(held_.find_first_not_of(kSpace), held_.size());
  const std::string_view rest = std::string_view(held_).substr(begin);
  if (rest.substr(0, kOpen.size()) == kOpen) {
    held_.erase(0, begin + kOpen.size());
    state_ = State::kInside;
    return true;
  }
  if (!end && rest.size() < kOpen.size() && kOpen.substr(0, rest.size()) == rest) return false;
  state_ = State::kContent;
  out->content += std::exchange(held_, {});
  return false;
}

void ReasoningSplitter::Advance(Piece* out, bool end) {
  if (state_ == State::kBefore && !TakeOpening(out, end)) return;
  if (state_ == State::kInside) {
    if (!begun_) TrimFront(&held_);
    begun_ = begun_ || !held_.empty();
    const size_t close = held_.find(kClose);
    if (close == std::string::npos) {
      // White space before the closing tag is not part of the thought, so it waits too.
      const size_t tag = held_.size() - (end ? 0 : HeldBack(held_, kClose));
      const size_t sure = end ? tag : EndOfText(std::string_view(held_).substr(0, tag));
      out->reasoning += held_.substr(0, sure);
      held_.erase(0, sure);
      return;
    }
    out->reasoning += held_.substr(0, EndOfText(std::string_view(held_).substr(0, close)));
    held_.erase(0, close + kClose.size());
    state_ = State::kAfter;
  }
  if (state_ == State::kAfter) {
    TrimFront(&held_);
    if (held_.empty()) return;
    state_ = State::kContent;
  }
  out->content += std::exchange(held_, {});
}

ReasoningSplitter::Piece ReasoningSplitter::Push(std::string_view text) {
  Piece out;
  if (state_ == State::kContent) {
    out.content = text;
    return out;
  }
  held_ += text;
  Advance(&out, false);
  return out;
}

ReasoningSplitter::Piece ReasoningSplitter::Finish() {
  Piece out;
  Advance(&out, true);
  return out;
}

bool ThinksInTags(std::string_view chat_template) {
  return chat_template.find(kOpen) != std::string_view::npos ||
         chat_template.find(kClose) != std::string_view::npos;
}

bool EndsThinking(std::string_view prompt) {
  prompt = prompt.substr(0, EndOfText(prompt));
  return prompt.size() >= kOpen.size() && prompt.substr(prompt.size() - kOpen.size()) == kOpen;
}

}  // namespace kvasir
