#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace kvasir {
namespace {

// As Python has it: bytes.decode("utf-8", "replace"). Most are the tables of Unicode, section 3.9.
TEST(Utf8, OneReplacementStandsForAMaximalSubpart) {
  const std::pair<std::string, std::string> cases[] = {
      {"a\xf0\x9f\x98", "a?"},                                // cut
      {"\xf0\x9f\x98z", "?z"},                                // and something follows
      {"\xe2\x82\xe2\x82\xac", "?\xe2\x82\xac"},              // a whole one follows
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A"},      // 3-11
      {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A"},  // 3-8: overlong
      {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "????????A"},  // 3-9: surrogates
      {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "?????A??B"},  // 3-10: beyond U+10FFFF
      {"\xc3", "?"},
      {"", ""},
  };
  for (const auto& [bytes, shown] : cases) {
    std::string expected;
    for (const char c : shown) expected += c == '?' ? "\xef\xbf\xbd" : std::string(1, c);
    EXPECT_EQ(ReplaceInvalidUtf8(bytes), expected);
    EXPECT_TRUE(IsValidUtf8(expected));
  }
}

TEST(Utf8, TokenizersReadEachInvalidByteAsOne) {
  EXPECT_EQ(ReplaceInvalidBytes("\xf0\x9f\x98z"), "\uFFFD\uFFFD\uFFFDz");
}

}  // namespace
}  // namespace kvasir
