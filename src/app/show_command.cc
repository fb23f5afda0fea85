#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct ShowFlags {
  ModelFlags model;
  bool json = false, tensors = false, metadata = false;
};

constexpr size_t kShownItems = 4;

template <typename T>
nlohmann::ordered_json ArrayJson(const std::vector<T>& items) {
  nlohmann::ordered_json out = {{"length", items.size()}};
  nlohmann::ordered_json first = nlohmann::ordered_json::array();
  for (size_t i = 0; i < std::min(items.size(), kShownItems); ++i) first.push_back(T(items[i]));
  out["first"] = first;
  return out;
}

/// Long arrays (vocabularies) are shown by their length and first items.
nlohmann::ordered_json ValueJson(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> nlohmann::ordered_json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string_view>) {
          return v;
        } else {
          return ArrayJson(v);
        }
      },
      value);
}

nlohmann::ordered_json TensorJson(const GgufTensor& t) {
  std::vector<int64_t> shape(t.ne, t.ne + t.dims);
  return {{"name", t.name}, {"type", NameOf(t.dtype)}, {"shape", shape}, {"bytes", t.bytes}};
}

std::string Shape(const GgufTensor& t) {
  std::string out;
  for (int i = 0; i < t.dims; ++i) out += (i == 0 ? "" : " x ") + std::to_string(t.ne[i]);
  return out;
}

struct TypeCount {
  size_t tensors = 0;
  uint64_t bytes = 0;
};

std::map<std::string, TypeCount> CountTypes(const GgufFile& file) {
  std::map<std::string, TypeCount> out;
  for (const GgufTensor& t : file.tensors()) {
    TypeCount& count = out[std::string(NameOf(t.dtype))];
    ++count.tensors;
    count.bytes += t.bytes;
  }
  return out;
}

std::string Windows(const ModelConfig& c) {
  std::map<int32_t, int> count;
  for (const int32_t w : c.window) ++count[w];
  std::string out;
  for (const auto& [window, layers] : count) {
    if (!out.empty()) out += ", ";
    out += window == 0 ? fmt::format("{} layers attend to all tokens", layers)
                       : fmt::format("{} layers to the last {}", layers, window);
  }
  return out;
}

nlohmann::ordered_json ShowJson(const OpenedModel& m, const ShowFlags& flags) {
  const ModelConfig& c = m.config;
  nlohmann::ordered_json types = nlohmann::ordered_json::object();
  for (const auto& [name, count] : CountTypes(m.file))
    types[name] = {{"tensors", count.tensors}, {"bytes", count.bytes}};
  nlohmann::ordered_json out = {{"path", m.file.path()},
                                {"gguf_version", m.file.version()},
                                {"files", m.file.files().size()},
                                {"file_bytes", m.file.total_bytes()},
                                {"architecture", c.architecture},
                                {"name", c.name},
                                {"parameters", c.parameters},
                                {"layers", c.layers},
                                {"dim", c.dim},
                                {"ffn_dim", c.ffn_dim},
                                {"heads", c.heads},
                                {"kv_heads", c.kv_heads},
                                {"head_dim", c.head_dim},
                                {"vocab", c.vocab},
                                {"context", c.context},
                                {"tied_head", c.tied_head},
                                {"windows", c.window},
                                {"tokenizer", m.tokenizer->data().model},
                                {"pre_tokenizer", m.tokenizer->data().pre},
                                {"chat_template", m.chat_template.has_value()},
                                {"types", types}};
  if (flags.metadata) {
    for (const auto& [key, value] : m.file.metadata())
      out["metadata"][std::string(key)] = ValueJson(value);
  }
  if (flags.tensors) {
    for (const GgufTensor& t : m.file.tensors()) out["tensors"].push_back(TensorJson(t));
  }
  return out;
}

std::string ShowText(const OpenedModel& m, const ShowFlags& flags) {
  const ModelConfig& c = m.config;
  const VocabData& v = m.tokenizer->data();
  std::string out;
  const auto row = [&](std::string_view name, const std::string& value) {
    out += fmt::format("{:<14} {}\n", name, value);
  };
  row("file",
      fmt::format("{} ({}, GGUF v{}, {} tensors)", m.file.path(), HumanBytes(m.file.total_bytes()),
                  m.file.version(), m.file.tensors().size()));
  row("model", fmt::format("{} ({}), {} parameters", c.name.empty() ? "unnamed" : c.name,
                           c.architecture, HumanCount(static_cast<double>(c.parameters))));
  row("shape", fmt::format("{} layers, width {}, feed-forward {}, {} heads of {} ({} for K and V)",
                           c.layers, c.dim, c.ffn_dim, c.heads, c.head_dim, c.kv_heads));
  row("attention", Windows(c));
  row("context", fmt::format("{} tokens", c.context));
  row("vocabulary", fmt::format("{} tokens, {} {}, embedding {} with the output head", c.vocab,
                                v.model, v.pre, c.tied_head ? "shared" : "not shared"));
  row("chat template", m.chat_template ? "yes" : "no");
  for (const auto& [name, count] : CountTypes(m.file))
    row("weights",
        fmt::format("{:>5} tensors in {:<6} {:>10}", count.tensors, name, HumanBytes(count.bytes)));
  if (flags.metadata) {
    for (const auto& [key, value] : m.file.metadata())
      out += fmt::format(
          "{} = {}\n", key,
          ValueJson(value).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  }
  if (flags.tensors) {
    for (const GgufTensor& t : m.file.tensors())
      out += fmt::format("{:<40} {:<6} {:<20} {}\n", t.name, NameOf(t.dtype), Shape(t),
                         HumanBytes(t.bytes));
  }
  return out;
}

Result<int> Show(const ShowFlags& flags) {
  KV_ASSIGN(const LoadOptions options, ToLoadOptions(flags.model, 1));
  KV_ASSIGN(const OpenedModel model, OpenModel(options.path));
  if (flags.json) {
    PrintJson(ShowJson(model, flags));
  } else {
    const std::string text = ShowText(model, flags);
    WriteOut(StdoutIsTerminal() ? SafeForTerminal(text) : text);
  }
  return kExitOk;
}

}  // namespace

Command AddShowCommand(CLI::App* root) {
  auto flags = std::make_shared<ShowFlags>();
  CLI::App* app = root->add_subcommand("show", "What a model file holds");
  AddModelFlag(app, &flags->model);
  app->add_flag("--metadata", flags->metadata, "all metadata fields");
  app->add_flag("--tensors", flags->tensors, "all tensors");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return Show(*flags); };
}

}  // namespace kvasir
