#include "base/toml_text.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(TomlText, BeyondAsciiIsForStringsAndComments) {
  for (const char* fine : {"", "a = 1 # größe", "a = \"größe\"", "a = 'größe'\n",
                           "a = \"\"\"\ngröße\n\"\"\"", "a = '''x'' größe'''", "a = \"\\\"größe\"",
                           "\xef\xbb\xbf"
                           "a = 1",
                           "a = \"\"\"x\\\n   y größe\"\"\"", "a = \"unfinished größe\nb = 1"})
    EXPECT_TRUE(CheckTomlText(fine).ok()) << fine;
  for (const char* wrong : {"größe = 1", "a = 1 \xcf\xbf", "[a\xc2\xa0]", "a = \"x\" ö",
                            "a = \"\"\"x\\\n  ö\"\"\"", "a = \"\\ö\"", "\xff"})
    EXPECT_FALSE(CheckTomlText(wrong).ok()) << wrong;
  EXPECT_NE(CheckTomlText("a = 1\nb = 2\n\xc3\xb6").error().message.find("line 3"),
            std::string::npos);
}

}  // namespace
}  // namespace kvasir
