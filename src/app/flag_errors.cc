#include "app/flag_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kvasir {
namespace {

/// Whether the option takes the text as a value. What it is set to does not matter any more.
bool Takes(CLI::Option* option, const std::string& text) {
  try {
    option->clear();
    option->add_result(text);
    option->run_callback();
    return true;
  } catch (const CLI::Error&) {
    return false;
  }
}

constexpr std::string_view kWholeNumber = "a whole number",
                           kNotBelowZero = "a whole number, 0 or more";

/// CLI11 knows an option's type, but does not tell it: numbers that it takes or not do.
std::string WhatItTakes(CLI::Option* option) {
  if (option->get_expected_max() == 0) return "true or false";
  if (Takes(option, "0.5")) return "a number";
  if (!Takes(option, "1")) return "another value";
  const bool is_signed = Takes(option, "-2147483648") && !Takes(option, "18446744073709551615");
  if (!Takes(option, "2147483648")) return "a whole number from -2147483648 to 2147483647";
  return std::string(is_signed ? kWholeNumber : kNotBelowZero);
}

}  // namespace

std::string WhyNotTaken(CLI::Option* option, const std::string& value) {
  const std::string name = option->get_name();
  const std::string what = WhatItTakes(option);
  return fmt::format("{} is {}; it must be {}", name, value.empty() ? "empty" : value, what);
}

std::string ReadAsAnother(CLI::Option* option) {
  const auto minus = [](const std::string& text) { return text.starts_with('-'); };
  const auto leading_zero = [&](const std::string& text) {
    const size_t at = minus(text) ? 1 : 0;
    return text.size() > at + 1 && text[at] == '0';
  };
  if (option->get_expected_max() == 0) return "";
  const std::vector<std::string> given = option->results();
  for (const std::string& text : given) {
    if (!minus(text) && !leading_zero(text)) continue;
    const std::string takes = WhatItTakes(option);
    option->clear();
    for (const std::string& again : given) option->add_result(again);
    option->run_callback();
    if (!takes.starts_with(kWholeNumber)) return "";
    if (leading_zero(text)) {
      return fmt::format("{} is {}; write a decimal number without 0 in front", option->get_name(),
                         text);
    }
    if (takes == kNotBelowZero)
      return fmt::format("{} is {}; it must be {}", option->get_name(), text, takes);
  }
  return "";
}

std::string ForeignFlagHint(const std::vector<std::string>& arguments) {
  constexpr std::pair<std::string_view, std::string_view> kForeign[] = {
      {"-ngl", "there is no GPU to give layers to; leave it out"},
      {"--n-gpu-layers", "there is no GPU to give layers to; leave it out"},
      {"--gpu-layers", "there is no GPU to give layers to; leave it out"},
      {"-fa", "attention has one way to be computed; leave it out"},
      {"-np", "use --max-sequences"},
      {"--parallel", "use --max-sequences"},
      {"-ub", "use --step-tokens"},
      {"--ubatch-size", "use --step-tokens"},
      {"-ctk", "use --kv-dtype, for K and V"},
      {"-ctv", "use --kv-dtype, for K and V"},
      {"--cache-type-k", "use --kv-dtype, for K and V"},
      {"--cache-type-v", "use --kv-dtype, for K and V"},
      {"-cnv", "kvasir run without a prompt is a chat"},
      {"-hf", "fetch the GGUF file, and name it"}};
  for (const auto& [flag, hint] : kForeign) {
    if (std::find(arguments.begin(), arguments.end(), flag) != arguments.end())
      return fmt::format("there is no {}: {}", flag, hint);
  }
  return "";
}

}  // namespace kvasir
