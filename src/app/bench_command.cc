#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "app/bench_batch.h"
#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct BenchBatchFlags {
  ModelFlags model;
  BatchBenchOptions bench;
  std::string profile;
  bool json = false;
};

Status WriteProfile(const std::string& path, const std::string& model_path, LoadedModel* model) {
  KV_ASSIGN(const MachineProfile profile, MeasureProfile(model));
  const ModelConfig& c = model->config();
  const ModelShape shape{.windows = c.window, .kv_heads = c.kv_heads, .head_dim = c.head_dim};
  const std::string about = fmt::format(
      "{}, {} threads", std::filesystem::path(model_path).filename().string(), model->threads());
  std::ofstream out(path);
  out << ProfileJson(profile, shape, about).dump(2) << "\n";
  out.close();
  if (!out) return MakeError(ErrorCode::kIo, "cannot write {}", path);
  return {};
}

std::string Table(const std::vector<BatchBenchRow>& rows) {
  std::string out = fmt::format(
      "{:>6} {:>6} {:>4} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}\n", "PP", "TG", "B",
      "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s", "PP lim%", "TG lim%");
  for (const BatchBenchRow& r : rows) {
    const double all = static_cast<double>(r.batch) * (r.pp + r.tg);
    out += fmt::format(
        "{:>6} {:>6} {:>4} {:>8} {:>9.3f} {:>9.1f} {:>9.3f} {:>9.1f} {:>9.3f} {:>9.1f} {:>8.1f} "
        "{:>8.1f}\n",
        r.pp, r.tg, r.batch, r.kv_tokens, r.pp_s, r.pp_tok_s, r.tg_s, r.tg_tok_s, r.pp_s + r.tg_s,
        all / (r.pp_s + r.tg_s), r.pp_limit_pct, r.tg_limit_pct);
  }
  return out;
}

nlohmann::ordered_json RowsJson(const std::vector<BatchBenchRow>& rows) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const BatchBenchRow& r : rows) {
    out.push_back({{"pp", r.pp},
                   {"tg", r.tg},
                   {"batch", r.batch},
                   {"n_kv", r.kv_tokens},
                   {"pp_s", r.pp_s},
                   {"pp_tok_s", r.pp_tok_s},
                   {"tg_s", r.tg_s},
                   {"tg_tok_s", r.tg_tok_s},
                   {"pp_limit_pct", r.pp_limit_pct},
                   {"tg_limit_pct", r.tg_limit_pct}});
  }
  return out;
}

Result<int> BenchBatch(BenchBatchFlags flags) {
  BatchBenchOptions& b = flags.bench;
  int32_t widest = 1;
  for (const int32_t batch : b.batches) {
    if (batch < 1 || batch > 4096)
      return MakeError(ErrorCode::kInvalid, "--batch has {}; it must be from 1 to 4096", batch);
    widest = std::max(widest, batch);
  }
  if (b.pp < 1 || b.tg < 1 || b.pp > 16'000'000 || b.tg > 16'000'000)
    return MakeError(ErrorCode::kInvalid, "--pp is {} and --tg {}; they must be 1 or more", b.pp,
                     b.tg);
  KV_ASSIGN(LoadOptions load, ToLoadOptions(flags.model, widest));
  // Room for the largest batch, if nothing else was asked for.
  if (load.memory.context == 0) load.memory.context = b.pp + b.tg + 1;
  if (load.memory.kv_bytes == 0) {
    KV_ASSIGN(const OpenedModel model, OpenModel(load.path));
    KV_ASSIGN(const std::unique_ptr<Backend> backend, MakeCpuBackend(load.cpu));
    KV_ASSIGN(const MemoryPlan one,
              PlanMemory(model.file, model.config, *backend, ReadMemoryLimits(), load.memory));
    load.memory.kv_bytes = one.kv_bytes * static_cast<uint64_t>(widest);
  }
  ProgressBar bar("loading");
  load.progress = [&](uint64_t done, uint64_t total) { bar.Update(done, total); };
  KV_ASSIGN(const std::unique_ptr<LoadedModel> model, LoadedModel::Load(load));
  bar.Clear();
  KV_ASSIGN(const std::vector<BatchBenchRow> rows, RunBatchBench(model.get(), b));
  if (!flags.profile.empty())
    KV_RETURN_IF_ERROR(WriteProfile(flags.profile, load.path, model.get()));
  if (flags.json) {
    PrintJson({{"rows", RowsJson(rows)},
               {"threads", model->threads()},
               {"kv_dtype", flags.model.kv_dtype}});
  } else {
    WriteOut(Table(rows));
  }
  return kExitOk;
}

}  // namespace

Command AddBenchCommand(CLI::App* root) {
  CLI::App* bench = root->add_subcommand("bench", "Measure: batch");
  bench->require_subcommand(1);
  auto flags = std::make_shared<BenchBatchFlags>();
  CLI::App* batch = bench->add_subcommand(
      "batch", "Prefill and decode of several sequences at once, as llama-batched-bench");
  AddComputeFlags(batch, &flags->model);
  batch->add_option("--pp", flags->bench.pp, "prompt tokens of each sequence")->type_name("N");
  batch->add_option("--tg", flags->bench.tg, "tokens of output of each")->type_name("N");
  batch
      ->add_option("-b,--batch", flags->bench.batches, "sequences at once; a list gives a row each")
      ->delimiter(',')
      ->type_name("B[,B]");
  batch->add_flag("--shared", flags->bench.shared_prompt, "all have the same prompt");
  batch->add_option("--profile", flags->profile, "also writes what steps cost here, for simulate")
      ->type_name("FILE");
  batch->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return BenchBatch(*flags); };
}

}  // namespace kvasir
