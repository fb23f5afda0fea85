#pragma once

#include <string>
#include <string_view>

namespace kvasir {

/// Tells what a model thinks from what it answers, where it thinks between <think> and </think>
/// (DeepSeek R1, Qwen3 and others). Text comes in pieces cut anywhere; pieces that could be part of
/// a tag are held back until they are certain.
class ReasoningSplitter {
 public:
  /// Text that became certain.
  struct Piece {
    std::string reasoning, content;
  };

  /// `inside`: the prompt has opened the tag already, so that the text begins with thoughts.
  explicit ReasoningSplitter(bool inside) : state_(inside ? State::kInside : State::kBefore) {}

  Piece Push(std::string_view text);
  /// What was held back, at the end.
  Piece Finish();

 private:
  // Before: only white space so far, a tag may come. White space at the edges of thoughts and
  // before the answer belongs to neither.
  enum class State { kBefore, kInside, kAfter, kContent };
  void Advance(Piece* out, bool end);
  bool TakeOpening(Piece* out, bool end);

  State state_;
  bool begun_ = false;  // thoughts: something else than white space came
  std::string held_;
};

/// True if a chat template is one of a model that thinks in these tags.
bool ThinksInTags(std::string_view chat_template);
/// True if a rendered prompt ends with the opening tag.
bool EndsThinking(std::string_view prompt);

}  // namespace kvasir
