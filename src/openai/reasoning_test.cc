#include "openai/reasoning.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

struct Whole {
  std::string reasoning, content;
};

Whole Split(std::string_view text, size_t step, bool inside) {
  ReasoningSplitter splitter(inside);
  Whole out;
  const auto add = [&](const ReasoningSplitter::Piece& piece) {
    // Thoughts come before the answer: never back again.
    if (!out.content.empty()) {
      EXPECT_EQ(piece.reasoning, "");
    }
    out.reasoning += piece.reasoning;
    out.content += piece.content;
  };
  for (size_t at = 0; at < text.size(); at += step) add(splitter.Push(text.substr(at, step)));
  add(splitter.Finish());
  return out;
}

void ExpectSplit(std::string_view text, bool inside, std::string_view reasoning,
                 std::string_view content) {
  for (size_t step = 1; step <= text.size() + 1; ++step) {
    const Whole got = Split(text, step, inside);
    EXPECT_EQ(got.reasoning, reasoning) << text << " in pieces of " << step;
    EXPECT_EQ(got.content, content) << text << " in pieces of " << step;
  }
}

TEST(Reasoning, ThoughtsAreToldFromTheAnswerHoweverTheTextIsCut) {
  ExpectSplit("<think>\nA < b, </thin\n king.\n</think>\n\nYes </think>.", false,
              "A < b, </thin\n king.", "Yes </think>.");
  ExpectSplit("\n<think>a</think>b", false, "a", "b");
  ExpectSplit("a\n\nb</think>c\n", true, "a\n\nb", "c\n");
  ExpectSplit("<think>\n\n</think>\n\nshort", false, "", "short");
}

TEST(Reasoning, TextWithoutTagsIsTheAnswerUnchanged) {
  ExpectSplit("  plain <think> later </think>", false, "", "  plain <think> later </think>");
  ExpectSplit("<thinking>", false, "", "<thinking>");
  ExpectSplit("<thi", false, "", "<thi");
  ExpectSplit(" \n", false, "", " \n");
}

TEST(Reasoning, AThoughtThatIsCutOffIsAThought) {
  ExpectSplit("<think>one two", false, "one two", "");
  ExpectSplit("one </thi", true, "one </thi", "");
}

TEST(Reasoning, ThePromptTellsWhetherThinkingHasBegun) {
  EXPECT_TRUE(EndsThinking("<|assistant|><think>\n"));
  EXPECT_FALSE(EndsThinking("<|assistant|><think></think>"));
  EXPECT_FALSE(EndsThinking(""));
  EXPECT_TRUE(ThinksInTags("{{ '<think>' }}"));
  EXPECT_FALSE(ThinksInTags("{{ messages }}"));
}

}  // namespace
}  // namespace kvasir
