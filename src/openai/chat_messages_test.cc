#include "openai/chat_messages.h"

#include <gtest/gtest.h>

#include <string>

#include "text/chat_template.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

std::string ContentOf(const std::string& content) {
  const Json body = Json::parse(R"({"messages":[{"role":"user","content":)" + content + "}]}");
  FieldReader fields(body);
  const Json messages = ReadMessages(&fields);
  EXPECT_FALSE(fields.error()) << fields.error()->message;
  return messages[0]["content"];
}

TEST(ChatMessages, PartsOfAContentAreLinesOfTheirOwn) {
  EXPECT_EQ(ContentOf(R"([{"type":"text","text":"alpha"},{"type":"text","text":"beta"}])"),
            "alpha\nbeta");
  EXPECT_EQ(ContentOf(R"([{"type":"text","text":"alpha"}])"), ContentOf(R"("alpha")"));
  EXPECT_EQ(ContentOf("[]"), "");
}

TEST(ChatMessages, PartsMayBeStringsAndRefusals) {
  EXPECT_EQ(ContentOf(R"(["alpha",{"type":"refusal","refusal":"beta"},"gamma"])"),
            "alpha\nbeta\ngamma");
  for (const char* content :
       {R"([5])", R"([{"type":"refusal","text":"a"}])", R"([{"type":5,"5":"a"}])",
        R"([{"type":"image_url","image_url":"a"}])", R"({"type":"text","text":"a"})"}) {
    const Json body = {{"messages", {{{"role", "user"}, {"content", Json::parse(content)}}}}};
    FieldReader fields(body);
    ReadMessages(&fields);
    ASSERT_TRUE(fields.error()) << content;
    EXPECT_EQ(fields.error()->param, "messages[0].content");
  }
}

TEST(ChatMessages, CallsOfToolsAndTheirResultsAreRefused) {
  const auto param = [](const char* message) {
    const Json body =
        Json::parse(std::string(R"({"messages":[{"role":"user","content":"a"},)") + message + "]}");
    FieldReader fields(body);
    ReadMessages(&fields);
    return fields.error() ? fields.error()->param : "";
  };
  EXPECT_EQ(param(R"({"role":"assistant","tool_calls":[{"id":"1","type":"function",
                      "function":{"name":"f","arguments":"{}"}}]})"),
            "messages[1].tool_calls");
  EXPECT_EQ(param(R"({"role":"tool","tool_call_id":"1","content":"b"})"), "messages[1].role");
}

TEST(ChatMessages, AnAnswerThatIsSentBackWithNullsIsTheOneWithoutThem) {
  const auto of_template = ChatTemplate::Compile(
      "{% for m in messages %}{% if 'tool_calls' in m %}call {% endif %}"
      "{{ m | tojson }}{% endfor %}");
  ASSERT_TRUE(of_template.ok());
  const auto rendered = [&](const char* message) {
    const Json body = Json::parse(std::string(R"({"messages":[)") + message + "]}");
    FieldReader fields(body);
    const auto text = of_template->Render({{"messages", ReadMessages(&fields)}}, 0);
    EXPECT_TRUE(text.ok() && !fields.error());
    return text.ok() ? *text : "";
  };
  const char* kPlain = R"({"role":"assistant","content":"Hi"})";
  EXPECT_EQ(rendered(R"({"role":"assistant","refusal":null,"content":"Hi","audio":null,
                         "function_call":null,"tool_calls":null})"),
            rendered(kPlain));
  EXPECT_EQ(rendered(R"({"role":"assistant","content":"Hi","tool_calls":[]})"), rendered(kPlain));
}

TEST(ChatMessages, ATemplateHasItsArgumentsAndNoOtherMessages) {
  const auto arguments = [](const char* text) {
    const Json body = Json::parse(text);
    FieldReader fields(body);
    Json out = ReadTemplateArguments(&fields);
    if (fields.error()) return Json(fields.error()->param);
    return out;
  };
  EXPECT_EQ(arguments("{}"), Json({{"add_generation_prompt", true}}));
  EXPECT_EQ(arguments(R"({"add_generation_prompt":false,
                          "chat_template_kwargs":{"enable_thinking":false,"messages":[1]}})"),
            Json({{"enable_thinking", false}, {"add_generation_prompt", false}}));
  EXPECT_EQ(arguments(R"({"chat_template_kwargs":{"add_generation_prompt":false}})"),
            Json({{"add_generation_prompt", false}}));
  EXPECT_EQ(arguments(R"({"add_generation_prompt":true,
                          "chat_template_kwargs":{"add_generation_prompt":false}})"),
            Json({{"add_generation_prompt", true}}));
  EXPECT_EQ(arguments(R"({"chat_template_kwargs":5})"), "chat_template_kwargs");
}

}  // namespace
}  // namespace kvasir
