#include <fmt/format.h>

#include <map>
#include <optional>

#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/request_memory.h"
#include "app/terminal.h"
#include "kv/manager.h"

namespace kvasir {
namespace {

struct PlanFlags {
  ModelFlags model;
  std::optional<int32_t> sequences;
  bool json = false;
};

/// How many sequences of the plan's context have room at once.
struct SequenceCounts {
  int64_t in_pool = 0, in_memory = 0;
};

SequenceCounts CountSequences(const MemoryPlan& p, int32_t step_tokens) {
  const int64_t blocks = KvManager(p.layout, 0).BlocksFor(p.context, step_tokens);
  const double most = static_cast<double>(p.kv_capacity_tokens) * p.kv_bytes_per_token;
  return {p.kv_blocks / blocks,
          static_cast<int64_t>(most / static_cast<double>(p.layout.block_bytes)) / blocks};
}

std::string PlanText(const MemoryPlan& p, const SequenceCounts& sequences, uint64_t requests) {
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
      fmt::format("{} blocks of {} tokens, {} bytes a token, for {} {} of {}", p.kv_blocks,
                  p.layout.block_tokens, static_cast<int64_t>(p.kv_bytes_per_token),
                  sequences.in_pool, sequences.in_pool == 1 ? "context" : "contexts", p.context));
  if (requests > 0) row("(requests)", requests, "kept free for what clients send and get");
  row("total", p.total_bytes(), "");
  row("available", p.limits.available_bytes, "limited by " + p.limits.limited_by);
  out += fmt::format("\n{} tokens of K and V would fit: {} sequences of {} tokens\n",
                     p.kv_capacity_tokens, sequences.in_memory, p.context);
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
  const int32_t at_once = flags.sequences.value_or(1);
  if (at_once < 1 || at_once > 4096)
    return FlagError("--sequences is {}; it must be from 1 to 4096", at_once);
  KV_ASSIGN(LoadOptions options, ToLoadOptions(flags.model, at_once));
  const MemoryLimits limits = ReadMemoryLimits();
  if (flags.sequences) {  // as serve does
    options.memory.contexts = at_once;
    KV_ASSIGN(const RequestMemory requests, PlanRequests("", limits.available_bytes));
    options.memory.requests_bytes = requests.bytes;
  }
  KV_ASSIGN(const OpenedModel model, OpenModel(options.path));
  KV_ASSIGN(const std::unique_ptr<Backend> backend, MakeCpuBackend(options.cpu));
  KV_ASSIGN(const MemoryPlan p,
            PlanMemory(model.file, model.config, *backend, limits, options.memory));
  const SequenceCounts sequences = CountSequences(p, options.memory.max_step_tokens);
  WriteErr(ContextWarning(p.context, model.config));
  if (!flags.json) {
    WriteOut(PlanText(p, sequences, options.memory.requests_bytes));
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
             {"sequences_in_pool", sequences.in_pool},
             {"sequences_that_fit", sequences.in_memory},
             {"requests_bytes", options.memory.requests_bytes},
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
  app->add_option("--sequences", flags->sequences,
                  "of a server with --max-sequences N: sequences computed at once, a pool for as "
                  "many, room for requests (default: of run)")
      ->type_name("N");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return Plan(*flags); };
}

}  // namespace kvasir
