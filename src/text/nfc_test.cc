#include "text/nfc.h"

#include <gtest/gtest.h>

#include <string>

namespace kvasir {
namespace {

TEST(Nfc, PiecesAreComposedInTheOrderOfTheirClasses) {
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},
      {"caf\u00E9 x", "caf\u00E9 x"},
      {"cafe\u0301 x", "caf\u00E9 x"},
      // Vietnamese: the dot below comes first in order, and composes first.
      {"Vie\u0323\u0302t Vie\u0302\u0323t", "Vi\u1EC7t Vi\u1EC7t"},
      {"Tie\u0302\u0301ng", "Ti\u1EBFng"},
      // Hangul of two and of three letters, of letters alone, and of a syllable and a final.
      {"\u1112\u1161\u11AB\u1100\u1173\u11AF", "\uD55C\uAE00"},
      {"\u1100\u1161\u1100", "\uAC00\u1100"},
      {"\uAC00\u11A8", "\uAC01"},
      {"\u30AB\u3099", "\u30AC"},
      // One character stands for another; some never compose.
      {"\u212B \u2126 \u2000", "\u00C5 \u03A9 \u2002"},
      {"\u0958", "\u0915\u093C"},
      // A mark without a letter; one that another of its class blocks.
      {"\u0301a", "\u0301a"},
      {"a\u0305\u0301", "a\u0305\u0301"},
      {"\u0E01\u0E33 \u0645\u0654", "\u0E01\u0E33 \u0645\u0654"},
  };
  for (const auto& [from, to] : cases) {
    EXPECT_EQ(ToNfc(from), to) << from;
    EXPECT_EQ(ToNfc(to), to) << to;
    if (IsPlainNfc(from)) {
      EXPECT_EQ(from, to);
    }
  }
  EXPECT_TRUE(IsPlainNfc("English, Việt aside: déjà vu, по-русски, 中文, かな, 한글"
                         " \xF0\x9F\x98\x80") == false);
  EXPECT_TRUE(IsPlainNfc("English: déjà vu, по-русски, 中文, かな, 한글 \xF0\x9F\x98\x80"));
}

TEST(Nfc, AMillionMarksOnOneLetterTakeNoQuadraticTime) {
  std::string text = "a";
  for (int i = 0; i < 500'000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";
  const std::string out = ToNfc(text);
  EXPECT_EQ(out.substr(0, 3), "\u1EA1");  // with the first dot below
  EXPECT_EQ(out.size(), 3 + 2 * 499'999u);
}

}  // namespace
}  // namespace kvasir
