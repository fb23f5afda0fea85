#include <fmt/format.h>

#include <map>

#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct PlanFlags {
  ModelFlags model;
  int32_t sequences = 1;
  bool json = false;
};

std::string PlanText(const MemoryPlan& p, const ModelConfig& c) {
  std::string out;
  const auto row = [&](std::string_view name, uint64_t bytes, const std::string& what) {
    out += fmt::format("{:<12} {:>11}  {}\n", name, HumanBytes(bytes), what);
  };
  row("weights", p.weights_bytes, "packed once, kept");
  if (p.mapped_bytes > 0)
    row("(mapped)", p.mapped_bytes, "read from the file as needed; the system may take it back");
  row("scratch", p.scratch_bytes, "activations and logits of one step");
  row("text", p.text_bytes, "vocabulary and merges");
  row("program", p.program_bytes, "binary, libraries, threads");
  row("KV pool", p.kv_bytes,
      fmt::format("{} blocks of {} tokens, {} bytes a token, for a context of {}", p.kv_blocks,
                  p.layout.block_tokens, static_cast<int64_t>(p.kv_bytes_per_token), p.context));
  row("total", p.total_bytes(), "");
  row("available", p.limits.available_bytes, "limited by " + p.limits.limited_by);
  out += fmt::format("\n{} tokens of K and V would fit: {} full contexts of {} tokens\n",
                     p.kv_capacity_tokens, p.kv_capacity_tokens / std::max<int64_t>(1, c.context),
                     c.context);
  out += fmt::format(
      "K and V take as much as the weights at {} tokens\n",
      static_cast<int64_t>(static_cast<double>(p.weights_bytes) / p.kv_bytes_per_token));
  std::map<int32_t, size_t> layers;  // groups of one window may be several
  for (const KvGroup& g : p.layout.groups) layers[g.window] += g.layers.size();
  for (const auto& [window, count] : layers) {
    out += window == 0 ? fmt::format("{} layers keep all tokens\n", count)
                       : fmt::format("{} layers keep the last {} tokens\n", count, window);
  }
  return out;
}

Result<int> Plan(const PlanFlags& flags) {
  if (flags.sequences < 1 || flags.sequences > 4096) {
    return FlagError("--sequences is {}; it must be from 1 to 4096", flags.sequences);
  }
  KV_ASSIGN(const LoadOptions options, ToLoadOptions(flags.model, flags.sequences));
  KV_ASSIGN(const OpenedModel model, OpenModel(options.path));
  KV_ASSIGN(const std::unique_ptr<Backend> backend, MakeCpuBackend(options.cpu));
  KV_ASSIGN(const MemoryPlan p,
            PlanMemory(model.file, model.config, *backend, ReadMemoryLimits(), options.memory));
  WriteErr(ContextWarning(p.context, model.config));
  if (!flags.json) {
    WriteOut(PlanText(p, model.config));
    return kExitOk;
  }
  nlohmann::ordered_json windows = nlohmann::ordered_json::array();
  for (const KvGroup& g : p.layout.groups)
    windows.push_back({{"window", g.window}, {"layers", g.layers.size()}});
  PrintJson({{"weights_bytes", p.weights_bytes},
             {"kv_bytes_per_token", p.kv_bytes_per_token},
             {"kv_capacity_tokens", p.kv_capacity_tokens},
             {"scratch_bytes", p.scratch_bytes},
             {"text_bytes", p.text_bytes},
             {"program_bytes", p.program_bytes},
             {"mapped_bytes", p.mapped_bytes},
             {"kv_bytes", p.kv_bytes},
             {"kv_blocks", p.kv_blocks},
             {"block_tokens", p.layout.block_tokens},
             {"kv_dtype", NameOf(p.layout.dtype)},
             {"context", p.context},
             {"total_bytes", p.total_bytes()},
             {"available_bytes", p.limits.available_bytes},
             {"limited_by", p.limits.limited_by},
             {"groups", windows}});
  return kExitOk;
}

}  // namespace

Command AddPlanCommand(CLI::App* root) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* app = root->add_subcommand(
      "plan", "What a model needs in memory, and how many tokens fit; loads nothing");
  AddComputeFlags(app, &flags->model);
  app->add_option("--sequences", flags->sequences, "sequences computed at once")->type_name("N");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return Plan(*flags); };
}

}  // namespace kvasir
