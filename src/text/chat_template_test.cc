#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

// Made by tools/make_template_golden.py with jinja2, set up as `transformers` does it.
TEST(ChatTemplate, OutputIsJinja2sAndWhatItRefusesIsRefused) {
  std::ifstream in(KVASIR_SOURCE_DIR "/tests/data/templates.json");
  ASSERT_TRUE(in.is_open());
  const Json golden = Json::parse(in);
  int rendered = 0, refused = 0;
  for (const Json& entry : golden["entries"]) {
    SCOPED_TRACE(entry["name"].get<std::string>() + ": " +
                 entry["template"].get<std::string>().substr(0, 300));
    const auto compiled = ChatTemplate::Compile(entry["template"].get<std::string>());
    if (!entry.contains("output")) {
      ++refused;
      if (compiled.ok()) {
        EXPECT_FALSE(compiled->Render(entry["context"], golden["now"]).ok()) << entry["refused"];
      }
      continue;
    }
    ++rendered;
    EXPECT_TRUE(compiled.ok()) << compiled.error().message;
    if (!compiled.ok()) continue;
    const Result<std::string> output = compiled->Render(entry["context"], golden["now"]);
    EXPECT_TRUE(output.ok()) << output.error().message;
    if (!output.ok()) continue;
    EXPECT_EQ(*output, entry["output"].get<std::string>());
  }
  EXPECT_GE(rendered, 150);
  EXPECT_GE(refused, 25);
}

std::string RenderError(const std::string& source, TemplateLimits limits = {}) {
  const auto compiled = ChatTemplate::Compile(source, limits);
  if (!compiled.ok()) return compiled.error().message;
  const auto output = compiled->Render(Json::object(), 0);
  return output.ok() ? "" : output.error().message;
}

TEST(ChatTemplate, WhatATemplateMayUseIsBounded) {
  const char* kHungry[] = {
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% "
      "endfor %}",
      "{{ 'x' * 99999999999 }}",
      "{{ [1] * 99999999999 }}",
      "{% set s = 'x' * 9999999 %}{% set l = [s, s, s, s, s, s, s, s, s] %}{{ [l, l, l, l, l, l, "
      "l, l] | string }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(v=[]) %}{% for i in range(9999) %}{% set ns.v = [ns.v] %}{% endfor "
      "%}{{ ns.v }}",
      "{{ 'a' | indent(999999999) }}",
      "{{ 'a' | center(999999999) }}",
      "{{ ('x' * 9999999) | replace('x', 'y' * 999999) }}",
      "{{ range(999999999) | list }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 3 ** 999 }}",
      "{{ strftime_now('%Y' * 1000) }}",
  };
  for (const char* source : kHungry) EXPECT_NE(RenderError(source), "") << source;
  // Long work that needs little memory is bounded by steps.
  EXPECT_NE(RenderError("{% set l = range(100) %}{% for a in l %}{% for b in l %}{% for c in l %}"
                        "{% for d in l %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}")
                .find("steps"),
            std::string::npos);
}

TEST(ChatTemplate, DeepNestingIsRefusedWithoutUsingTheStackUp) {
  const auto repeat = [](const std::string& s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  constexpr int kMany = 100'000;
  EXPECT_NE(RenderError("{{ " + repeat("(", kMany) + "1" + repeat(")", kMany) + " }}"), "");
  EXPECT_NE(RenderError("{{ x" + repeat(".a", kMany) + " }}"), "");
  EXPECT_NE(RenderError("{{ " + repeat("not ", kMany) + "1 }}"), "");
  EXPECT_NE(RenderError("{{ " + repeat("-", kMany) + "1 }}"), "");
  EXPECT_NE(RenderError("{{ 1" + repeat("|abs", kMany) + " }}"), "");
  EXPECT_NE(RenderError("{{ 1" + repeat("+1", kMany) + " }}"), "");
  EXPECT_NE(RenderError(repeat("{% if 1 %}", kMany)), "");
  EXPECT_NE(RenderError("{{ " + repeat("[", kMany)), "");
  EXPECT_NE(RenderError("{{ 1 if 1 else " + repeat("1 if 1 else ", kMany) + "1 }}"), "");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  EXPECT_NE(RenderError("a\n{% if %}").find("line 2"), std::string::npos);
  EXPECT_NE(RenderError("a\nb\n{{ x.y.z }}").find("line 3"), std::string::npos);
  EXPECT_NE(RenderError("{{ raise_exception('no tools') }}").find("no tools"), std::string::npos);
}

TEST(ChatTemplate, ObjectsThatHoldOneAnotherAreFreed) {
  // Found by a leak checker where one runs.
  EXPECT_EQ(
      RenderError(
          "{% set ns = namespace() %}{% set ns.self = ns %}{% macro m() %}{{ ns }}{% endmacro %}"
          "{% set ns.m = m %}{% set c = cycler(1, 2) %}{% set ns.c = c %}"),
      "");
}

}  // namespace
}  // namespace kvasir
