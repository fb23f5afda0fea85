#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "sample/stop.h"
#include "text/detokenizer.h"

namespace kvasir {

/// The text of one choice, and when it ends.
class ChoiceText {
 public:
  /// `min_tokens`: no stop string that is completed by so many first tokens counts.
  ChoiceText(const Tokenizer& tokenizer, const StopRules& stop, bool special, int32_t min_tokens)
      : detokenizer_(tokenizer, special), matcher_(stop.strings), not_yet_(min_tokens) {}

  /// The text that becomes certain with the next token. True if a stop string was completed.
  bool Push(int32_t token, std::string* text) {
    const bool may_stop = not_yet_ == 0;
    if (!may_stop) --not_yet_;
    StopMatcher::Output out = matcher_.Push(detokenizer_.Push(token), may_stop);
    *text = std::move(out.text);
    stopped_ = out.stopped;
    return stopped_;
  }

  /// What was still held back, at the end.
  std::string Rest() { return stopped_ ? std::string() : matcher_.Finish(); }

 private:
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  int32_t not_yet_;  // tokens that no stop string may end
  bool stopped_ = false;
};

}  // namespace kvasir
