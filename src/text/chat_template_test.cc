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
      "{{ 1e22 | int }}",
      "{{ '99999999999999999999' | int }}",
      "{{ strftime_now('%Y' * 1000) }}",
      "{{ ('%9999d' * 100000) % ((1,) * 100000) }}",
      "{% set ns = namespace(v=[1] * 1000) %}{% for i in range(150) %}{% set ns.v = [ns.v] %}{% "
      "endfor %}{{ ns.v | tojson(indent=1000) }}",
      "{% for i in range(99999) %}{% for j in range(4) %}{% macro m() %}{% endmacro %}{% endfor %}"
      "{% endfor %}",
      "{% set ns = namespace(v=[]) %}{% for i in range(300) %}{% for j in range(300) %}"
      "{% for k in [1] %}{% set ns.v = [loop, ns.v][:1] %}{% endfor %}{% endfor %}{% endfor %}",
  };
  for (const char* source : kHungry) EXPECT_NE(RenderError(source), "") << source;
  // Long work that needs little memory is bounded by steps.
  EXPECT_NE(RenderError("{% set l = range(100) %}{% for a in l %}{% for b in l %}{% for c in l %}"
                        "{% for d in l %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}")
                .find("steps"),
            std::string::npos);
}

TEST(ChatTemplate, LoopsThatHaveEndedAndSlicesOfTextTakeNoMemory) {
  const char* kFrugal[] = {
      "{% for i in range(300) %}{% for j in range(400) %}{% for k in [1] %}{% endfor %}{% endfor %}"
      "{% endfor %}",
      "{% set s = 'x' * 1000000 %}{% for i in range(20) %}{% if s[i:] == s[:i] %}{% endif %}"
      "{% endfor %}",
  };
  for (const char* source : kFrugal) EXPECT_EQ(RenderError(source), "") << source;
}

// Evaluating these takes less than 2,000 steps; it is the walks that do not fit.
TEST(ChatTemplate, WalkingOverTextTakesSteps) {
  const auto takes_steps = [](const std::string& source) {
    return RenderError(source, {.max_steps = 200'000}).find("steps") != std::string::npos;
  };
  // Searches that compare much at each place.
  const std::string near = "{% set s = 'a' * 4000000 %}{% set w = 'a' * 1000000 ~ 'b' %}";
  for (const char* search :
       {"w in s", "w is in s", "s.find(w)", "s.count(w)", "s.split(w)", "s.partition(w)",
        "s.rfind('a' * 400000 ~ 'b' ~ 'a' * 400000)", "s | replace(w, '')"}) {
    EXPECT_TRUE(takes_steps(near + "{{ " + search + " }}")) << search;
  }
  // Passes over a long text, without end.
  const std::string many =
      "{% set s = 'x' * 16000000 %}{% set t = 'x' * 15999999 ~ 'x' %}{% set d = {t: 1} %}"
      "{% for i in range(100) %}{% if ";
  for (const char* pass : {"s|length",
                           "s == t",
                           "s < t",
                           "s is lower",
                           "s is upper",
                           "s.isdigit()",
                           "s.find('y')",
                           "s.rfind('y')",
                           "'y' in s",
                           "s.count('y')",
                           "s.strip()[0]",
                           "s.strip(s)",
                           "[s] == [t]",
                           "s in [t]",
                           "s in d",
                           "d.get(s)",
                           "[s] | select('eq', t) | list",
                           "s is filter",
                           "loop.changed(s) or loop.changed(t)",
                           "[s, t] | sort(case_sensitive=true) | length",
                           "[] | join(s)"}) {
    EXPECT_TRUE(takes_steps(many + pass + " %}{% endif %}{% endfor %}")) << pass;
  }
  // Lists that hold one another many times.
  const std::string tree =
      "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(19) %}{% set ns.a = [ns.a, ns.a] %}"
      "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{% for i in range(100) %}{% if ";
  for (const char* pass : {"ns.a == ns.b", "ns.a is filter", "[] | join(ns.a)"}) {
    EXPECT_TRUE(takes_steps(tree + pass + " %}{% endif %}{% endfor %}")) << pass;
  }
}

TEST(ChatTemplate, WhatIsLinearElsewhereIsLinear) {
  // Each ends at once; with a search for each character or key they take minutes.
  EXPECT_EQ(RenderError("{{ ('x' * 1000000).strip('y' * 1000000) }}"), "");
  std::string keys;
  for (int i = 0; i < 120'000; ++i) keys += std::to_string(i) + ":0,";
  EXPECT_EQ(RenderError("{{ {" + keys + "} | length }}"), "");
  // A name that is not there is not kept whole in each place.
  EXPECT_EQ(RenderError("{{ ([" + std::string(500'000, 'a') + "] * 100000) | length }}"), "");
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

TEST(ChatTemplate, AFilterOrTestThatIsNotThereIsRefusedWhereItIsAppliedAndNamed) {
  EXPECT_EQ(RenderError("{% if false %}{{ x | glimmer }}{{ x is shiny }}{% endif %}"), "");
  EXPECT_NE(RenderError("a\n{{ x | glimmer }}").find("line 2: the filter glimmer is not supported"),
            std::string::npos);
  EXPECT_NE(RenderError("a\n{{ x is shiny }}").find("line 2: the test shiny is not supported"),
            std::string::npos);
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
