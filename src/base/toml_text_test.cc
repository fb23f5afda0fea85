#include "base/toml_text.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(TomlText, BeyondAsciiIsForStringsAndComments) {
  for (const char* fine : {"", "a = 1 # größe", "a = \"größe\"", "a = 'größe'\n",
                           "a = \"\"\"\ngröße\n\"\"\"", "a = '''x'' größe'''", "a = \"\\\"größe\"",
                           "\xef\xbb\xbf"
                           "a = 1",
                           "a = \"\"\"x\\\n   y größe\"\"\"", "a = [[\"ö\"],\"ö\", {b = 'ö'}]",
                           "a='x'", "a = \"unfinished größe\nb = 1"})
    EXPECT_TRUE(CheckTomlText(fine).ok()) << fine;
  for (const char* wrong :
       {"größe = 1", "a = 1 \xcf\xbf", "[a\xc2\xa0]", "a = \"x\" ö", "a = \"\"\"x\\\n  ö\"\"\"",
        "a = \"\\ö\"", "\xff", "a = [[1t'''ö", "a = 'x''ö'", "a = 1[='ö'"})
    EXPECT_FALSE(CheckTomlText(wrong).ok()) << wrong;
  EXPECT_NE(CheckTomlText("a = 1\nb = 2\n\xc3\xb6").error().message.find("line 3"),
            std::string::npos);
}

}  // namespace
}  // namespace kvasir
