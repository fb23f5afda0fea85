// A chat template and the data that it is rendered with.
#include "fuzz_input.h"
#include "openai/json_text.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  FuzzInput in(data, size);
  const std::string_view all = in.Rest();
  // The source, a zero byte, and JSON; without one a context that templates expect.
  const size_t cut = all.find('\0');
  const std::string_view source = all.substr(0, cut);
  const auto tmpl = ChatTemplate::Compile(
      source, {.max_source_bytes = 1 << 16, .max_steps = 20'000, .max_output_bytes = 1 << 20});
  if (!tmpl.ok()) {
    CheckMessage(tmpl.error().message);
    return 0;
  }
  nlohmann::ordered_json context = {
      {"messages",
       {{{"role", "system"}, {"content", "s"}}, {{"role", "user"}, {"content", "a<b> \"c\"\n"}}}},
      {"add_generation_prompt", true},
      {"bos_token", "<s>"},
      {"tools", nullptr},
      {"n", 3}};
  if (cut != std::string_view::npos) {
    auto json = ParseJson(all.substr(cut + 1));
    if (!json.ok() || !json->is_object()) return 0;
    context = std::move(*json);
  }
  const auto text = tmpl->Render(context, 1'700'000'000);
  if (!text.ok()) CheckMessage(text.error().message);
  return 0;
}
