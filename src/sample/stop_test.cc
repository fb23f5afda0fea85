#include "sample/stop.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvasir {
namespace {

/// What the definition says: the text before the stop string that ends first, the longest of those
/// that end there; and whether there is one.
std::pair<std::string, bool> Reference(const std::string& text,
                                       const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& s : stops) {
      if (end >= s.size() && text.compare(end - s.size(), s.size(), s) == 0)
        longest = std::max(longest, s.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, AgreesWithItsDefinitionHoweverTheTextIsCut) {
  uint32_t state = 7;
  const auto next = [&] { return (state = state * 1664525u + 1013904223u) >> 16; };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + next() % 4);
    for (std::string& s : stops) {
      for (uint32_t i = 0; i <= next() % 4; ++i) s += static_cast<char>('a' + next() % 2);
    }
    std::string text;
    for (uint32_t i = 0; i < next() % 24; ++i) text += static_cast<char>('a' + next() % 3);
    const auto [expected, stopped] = Reference(text, stops);
    StopMatcher matcher(stops);
    std::string shown;
    bool found = false;
    for (size_t at = 0; at < text.size() && !found;) {
      const size_t n = 1 + next() % 4;
      const StopMatcher::Output out = matcher.Push(std::string_view(text).substr(at, n));
      shown += out.text;
      found = out.stopped;
      at += n;
      // Nothing is ever shown that the definition would hold back.
      ASSERT_TRUE(expected.starts_with(shown)) << text;
    }
    if (!found) shown += matcher.Finish();
    EXPECT_EQ(found, stopped);
    EXPECT_EQ(shown, expected);
  }
}

TEST(StopMatcher, HoldsBackNoMoreThanItMust) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("the E").text, "the ");
  EXPECT_EQ(matcher.Push("N").text, "");
  EXPECT_EQ(matcher.Push("T").text, "ENT");
  EXPECT_EQ(matcher.Push("EN").text, "");
  EXPECT_EQ(matcher.Finish(), "EN");
}

TEST(StopMatcher, WhatIsCompletedTooEarlyIsTextAndWhatIsCompletedLaterCounts) {
  StopMatcher matcher({"END", "DOT"});
  StopMatcher::Output early = matcher.Push("anENDEN", false);
  EXPECT_FALSE(early.stopped);
  EXPECT_EQ(early.text, "anEND");
  const StopMatcher::Output late = matcher.Push("D.");
  EXPECT_TRUE(late.stopped);
  EXPECT_EQ(late.text, "");
  // The end of one that did not count may begin one that does.
  StopMatcher other({"END", "DOT"});
  early = other.Push("END", false);
  EXPECT_EQ(early.text + other.Push("OT").text, "EN");
}

TEST(StopMatcher, WithoutStringsAllIsShownAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

}  // namespace
}  // namespace kvasir
