#include "openai/json_text.h"

#include <gtest/gtest.h>

#include <string>

namespace kvasir {
namespace {

std::string Repeated(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

TEST(JsonText, DepthAndNumberOfValuesAreBounded) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(ParseJson(nested(kMostJsonDepth)).ok());
  EXPECT_FALSE(ParseJson(nested(kMostJsonDepth + 1)).ok());
  EXPECT_TRUE(ParseJson("[" + Repeated("1,", kMostJsonValues - 2) + "1]").ok());
  const auto many = ParseJson("[" + Repeated("1,", kMostJsonValues) + "1]");
  ASSERT_FALSE(many.ok());
  EXPECT_NE(many.error().message.find("1048576 values"), std::string::npos);
  // What stands in a string counts for nothing.
  EXPECT_TRUE(ParseJson("\"" + Repeated("[{,:", kMostJsonValues) + "\\\"[\"").ok());
}

TEST(JsonText, KeysAreBoundedInEachObjectAndInTheWorkOfAll) {
  const auto object = [](size_t keys, size_t bytes) {
    std::string out = "{";
    for (size_t i = 0; i < keys; ++i) {
      const std::string name = std::to_string(i);
      out += (i == 0 ? "\"" : ",\"") + std::string(bytes - name.size(), 'k') + name + "\":1";
    }
    return out + "}";
  };
  EXPECT_TRUE(ParseJson(object(kMostJsonKeys, 8)).ok());
  EXPECT_EQ(ParseJson(object(kMostJsonKeys + 1, 8)).error().message,
            "an object of the JSON has more than 4096 keys");
  // Objects beside and within one another have keys of their own.
  EXPECT_TRUE(ParseJson("[" + Repeated(object(2, 8) + ",", 10'000) + "1]").ok());
  EXPECT_TRUE(ParseJson("{\"a\":" + object(kMostJsonKeys, 8) + ",\"b\":2}").ok());
  for (const std::string& many :
       {"[" + Repeated(object(kMostJsonKeys, 8) + ",", 100) + "1]", object(kMostJsonKeys, 1000)}) {
    const auto slow = ParseJson(many);
    ASSERT_FALSE(slow.ok());
    EXPECT_NE(slow.error().message.find("fewer or shorter keys"), std::string::npos);
  }
  EXPECT_FALSE(ParseJson("]]:::").ok());
}

TEST(JsonText, AKeyThatAnObjectHasTwiceIsRefusedByName) {
  for (const char* text : {R"({"a":1,"b":2,"a":3})", R"([{"x":{"a":[{"b":1}],"\u0061":2}}])",
                           R"({"b":{"a":1},"a":"\"","a":1})"}) {
    const auto json = ParseJson(text);
    ASSERT_FALSE(json.ok()) << text;
    EXPECT_EQ(json.error().message,
              "an object of the JSON has the key \"a\" twice; leave one of the two out");
  }
  EXPECT_NE(ParseJson("{\"\\n\":1,\"\\n\":1}").error().message.find("\"\\n\" twice"),
            std::string::npos);
  // Within one another and beside one another they are others'.
  for (const char* text : {R"({"a":{"a":{"a":[{"a":1},{"a":2}]}},"b":1})", R"({"a":"b","b":"a"})",
                           R"({"":1,"\\":2,"\"":3})", R"([{"a":1},"a",{"a":1}])"})
    EXPECT_TRUE(ParseJson(text).ok()) << text;
  // What is no JSON at all says so.
  EXPECT_NE(ParseJson(R"({"a":1,"a":2)").error().message.find("wrong at byte"), std::string::npos);
  EXPECT_NE(ParseJson(R"({"a":1:2})").error().message.find("wrong at byte"), std::string::npos);
}

TEST(JsonText, WhatIsNoJsonIsAnErrorWithItsPlace) {
  EXPECT_EQ(ParseJson("{\"a\": tru}").error().message, "the JSON is wrong at byte 10");
  EXPECT_EQ(ParseJson("1e999").error().message, "the JSON has a number that is out of range");
  EXPECT_FALSE(ParseJson("\"\xff\"").ok());
}

}  // namespace
}  // namespace kvasir
