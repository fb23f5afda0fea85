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
  ChoiceText(const Tokenizer& tokenizer, const StopRules& stop, bool special)
      : detokenizer_(tokenizer, special), matcher_(stop.strings) {}

  /// The text that becomes certain with the next token. True if a stop string was completed.
  bool Push(int32_t token, std::string* text) {
    StopMatcher::Output out = matcher_.Push(detokenizer_.Push(token));
    *text = std::move(out.text);
    stopped_ = out.stopped;
    return stopped_;
  }

  /// What was still held back, at the end.
  std::string Rest() {
    if (stopped_) return {};
    StopMatcher::Output out = matcher_.Push(detokenizer_.Finish());
    return out.stopped ? out.text : out.text + matcher_.Finish();
  }

 private:
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  bool stopped_ = false;
};

}  // namespace kvasir
