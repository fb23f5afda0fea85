#include "web/web_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

namespace kvasir {
namespace {

TEST(WebFiles, AreTheFilesOfThePageByteForByte) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(KVASIR_SOURCE_DIR "/web")) {
    ++count;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    const auto name = entry.path().filename().string();
    bool found = false;
    for (const WebFile& file : WebFiles()) {
      if (file.path != name) continue;
      found = true;
      EXPECT_TRUE(file.body == text) << name;
    }
    EXPECT_TRUE(found) << name;
  }
  EXPECT_EQ(count, WebFiles().size());
}

TEST(WebFiles, HaveTypesAndTagsOfTheirOwn) {
  std::set<std::string_view> tags;
  for (const WebFile& file : WebFiles()) {
    const bool known = file.type == "text/html; charset=utf-8" ||
                       file.type == "text/css; charset=utf-8" ||
                       file.type == "text/javascript; charset=utf-8";
    EXPECT_TRUE(known) << file.path << ": " << file.type;
    EXPECT_TRUE(tags.insert(file.etag).second) << file.path;
    EXPECT_EQ(file.etag.front(), '"');
    EXPECT_EQ(file.etag.back(), '"');
  }
}

TEST(WebFiles, NeedNothingFromElsewhereAndMakeNoMarkupFromText) {
  const std::regex outside(R"((src|href)=["']https?:|@import|url\(|import .* from "https?:)");
  for (const WebFile& file : WebFiles()) {
    const std::string text(file.body);
    EXPECT_FALSE(std::regex_search(text, outside)) << file.path;
    for (const char* markup : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
                               "eval(", " style=\"", "onclick=\""})
      EXPECT_EQ(text.find(markup), std::string::npos) << file.path << " has " << markup;
  }
}

}  // namespace
}  // namespace kvasir
