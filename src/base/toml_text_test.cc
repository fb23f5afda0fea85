#include "base/toml_text.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

/// Whether the text gets as far as the parser.
bool Allowed(const char* text) {
  const auto table = ParseToml(text);
  return table.ok() || table.error().message.find("beyond ASCII") == std::string::npos;
}

TEST(TomlText, BeyondAsciiIsForStringsAndComments) {
  for (const char* fine : {"", "a = 1 # größe", "a = \"größe\"", "a = 'größe'\n",
                           "a = \"\"\"\ngröße\n\"\"\"", "a = '''x'' größe'''", "a = \"\\\"größe\"",
                           "\xef\xbb\xbf"
                           "a = 1",
                           "a = \"\"\"x\\\n   y größe\"\"\"", "a = [[\"ö\"],\"ö\", {b = 'ö'}]",
                           "a='x'", "a = \"unfinished größe\nb = 1"})
    EXPECT_TRUE(Allowed(fine)) << fine;
  for (const char* wrong :
       {"größe = 1", "a = 1 \xcf\xbf", "[a\xc2\xa0]", "a = \"x\" ö", "a = \"\"\"x\\\n  ö\"\"\"",
        "a = \"\\ö\"", "\xff", "a = [[1t'''ö", "a = 'x''ö'", "a = 1[='ö'"})
    EXPECT_FALSE(Allowed(wrong)) << wrong;
}

TEST(TomlText, GivesTheTableOrNamesTheLine) {
  const auto table = ParseToml("a = 1\n[b]\nc = \"größe\"");
  ASSERT_TRUE(table.ok());
  EXPECT_EQ((*table)["b"]["c"].value_or<std::string>(""), "größe");
  for (const char* wrong : {"a = 1\nb = 2\n\xc3\xb6", "a = 1\nb = 2\nc = ", "a = 1\n\na = 2"}) {
    const auto result = ParseToml(wrong);
    ASSERT_FALSE(result.ok()) << wrong;
    EXPECT_EQ(result.error().message.rfind("line 3: ", 0), 0u) << result.error().message;
  }
}

}  // namespace
}  // namespace kvasir
