#include <fmt/format.h>

#include <filesystem>

#include "app/bench_batch.h"
#include "app/bench_kernel.h"
#include "app/bench_serve.h"
#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/output_file.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct BenchBatchFlags {
  ModelFlags model;
  BatchBenchOptions bench;
  std::string profile;
  bool breakdown = false, json = false;
};

Status WriteProfile(OutputFile* file, const std::string& model_path, LoadedModel* model) {
  KV_ASSIGN(const MachineProfile profile, MeasureProfile(model));
  const ModelConfig& c = model->config();
  const ModelShape shape{.windows = c.window, .kv_heads = c.kv_heads, .head_dim = c.head_dim};
  const std::string about = fmt::format(
      "{}, {} threads", std::filesystem::path(model_path).filename().string(), model->threads());
  return file->Write(ProfileJson(profile, shape, about).dump(2) + "\n");
}

std::string TableHead() {
  return fmt::format("{:>6} {:>6} {:>4} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}\n",
                     "PP", "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s",
                     "S t/s", "PP lim%", "TG lim%");
}

std::string TableRow(const BatchBenchRow& r) {
  const double all = static_cast<double>(r.batch) * (r.pp + r.tg);
  std::string out = fmt::format(
      "{:>6} {:>6} {:>4} {:>8} {:>9.3f} {:>9.1f} {:>9.3f} {:>9.1f} {:>9.3f} {:>9.1f} {:>8.1f} "
      "{:>8.1f}\n",
      r.pp, r.tg, r.batch, r.kv_tokens, r.pp_s, r.pp_tok_s, r.tg_s, r.tg_tok_s, r.pp_s + r.tg_s,
      all / (r.pp_s + r.tg_s), r.pp_limit_pct, r.tg_limit_pct);
  if (r.again_s > 0) out += fmt::format("the same prompts again: {:.1f} ms\n", 1000 * r.again_s);
  return out;
}

/// Seconds of the steps of a phase by op; what is left is sampling and the plan.
std::vector<std::pair<std::string, double>> Breakdown(const OpCounters& work, double seconds) {
  std::vector<std::pair<std::string, double>> out;
  double left = seconds;
  for (int op = 0; op < kOps; ++op) {
    const double s = static_cast<double>(work.op_ns[op]) * 1e-9;
    out.emplace_back(NameOf(static_cast<Op>(op)), s);
    left -= s;
  }
  out.emplace_back("sampling, rest", left);
  return out;
}

std::string BreakdownText(const BatchBenchRow& r) {
  std::string out =
      fmt::format("\nPP {} TG {} B {:<14} prefill            decode\n", r.pp, r.tg, r.batch);
  const auto p = Breakdown(r.pp_work, r.pp_s), d = Breakdown(r.tg_work, r.tg_s);
  for (size_t i = 0; i < p.size(); ++i) {
    out +=
        fmt::format("{:<16} {:>9.3f} s {:>5.1f}% {:>9.3f} s {:>5.1f}%\n", p[i].first, p[i].second,
                    100 * p[i].second / r.pp_s, d[i].second, 100 * d[i].second / r.tg_s);
  }
  const auto rates = [](const OpCounters& w, double s) {
    return fmt::format(
        "{:.0f} GFLOP/s in matmul, {:.0f} in attention; {:.1f} GB/s of weights and K, V",
        static_cast<double>(w.matmul_flops) /
            std::max<double>(1, static_cast<double>(w.op_ns[static_cast<int>(Op::kMatMul)])),
        static_cast<double>(w.attention_flops) /
            std::max<double>(1, static_cast<double>(w.op_ns[static_cast<int>(Op::kAttention)])),
        static_cast<double>(w.weight_bytes + w.kv_bytes_read) / s * 1e-9);
  };
  return out + "prefill: " + rates(r.pp_work, r.pp_s) + "\ndecode: " + rates(r.tg_work, r.tg_s) +
         "\n";
}

nlohmann::ordered_json BreakdownJson(const OpCounters& work, double seconds) {
  nlohmann::ordered_json out;
  for (const auto& [name, s] : Breakdown(work, seconds)) out[name] = s;
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
                   {"tg_limit_pct", r.tg_limit_pct},
                   {"again_s", r.again_s},
                   {"pp_breakdown_s", BreakdownJson(r.pp_work, r.pp_s)},
                   {"tg_breakdown_s", BreakdownJson(r.tg_work, r.tg_s)}});
  }
  return out;
}

Result<int> BenchBatch(BenchBatchFlags flags) {
  BatchBenchOptions& b = flags.bench;
  int32_t widest = 1;
  for (const int32_t batch : b.batches) {
    if (batch < 1 || batch > 4096)
      return FlagError("--batch has {}; it must be from 1 to 4096", batch);
    widest = std::max(widest, batch);
  }
  if (b.pp < 1 || b.tg < 1 || b.pp > 16'000'000 || b.tg > 16'000'000)
    return FlagError("--pp is {} and --tg {}; they must be 1 or more", b.pp, b.tg);
  KV_ASSIGN(LoadOptions load, ToLoadOptions(flags.model, widest));
  // Room for the largest batch, if nothing else was asked for.
  if (load.memory.context == 0) load.memory.context = std::max(b.pp + b.tg + 1, kLeastContext);
  if (load.memory.kv_bytes == 0) {
    KV_ASSIGN(const OpenedModel model, OpenModel(load.path));
    KV_ASSIGN(const std::unique_ptr<Backend> backend, MakeCpuBackend(load.cpu));
    KV_ASSIGN(const MemoryPlan one,
              PlanMemory(model.file, model.config, *backend, ReadMemoryLimits(), load.memory));
    load.memory.kv_bytes = one.kv_bytes * static_cast<uint64_t>(widest);
  }
  KV_ASSIGN(OutputFile profile, OutputFile::Open(flags.profile));
  KV_ASSIGN(const std::unique_ptr<LoadedModel> model, LoadWithProgress(load));
  // A row may take minutes: what is there is shown.
  if (!flags.json) WriteOut(TableHead());
  KV_ASSIGN(const std::vector<BatchBenchRow> rows,
            RunBatchBench(model.get(), b, [&](const BatchBenchRow& row) {
              if (!flags.json) WriteOut(TableRow(row));
            }));
  if (!flags.profile.empty()) KV_RETURN_IF_ERROR(WriteProfile(&profile, load.path, model.get()));
  if (flags.json) {
    PrintJson({{"rows", RowsJson(rows)},
               {"threads", model->threads()},
               {"kv_dtype", flags.model.kv_dtype}});
  } else if (flags.breakdown) {
    for (const BatchBenchRow& row : rows) WriteOut(BreakdownText(row));
  }
  return kExitOk;
}

struct BenchKernelFlags {
  KernelBenchOptions bench;
  std::vector<std::string> formats, kv_dtypes;
  bool json = false;
};

std::string KernelText(const KernelBench& b) {
  std::string out = fmt::format(
      "{}: reads {:.1f} GB/s, int8 {:.0f} GOP/s, f32 {:.0f} GFLOP/s{}\n\n{:<19} {:<20} {:>5} "
      "{:>11} {:>9} {:>8} {:>7}\n",
      b.backend, b.bandwidth_gb_s, b.peak.int8_gops, b.peak.float_gops,
      b.peak.bf16_gops > 0 ? fmt::format(", bf16 {:.0f} GFLOP/s", b.peak.bf16_gops) : "", "op",
      "of", "rows", "us", "GOP/s", "GB/s", "limit%");
  for (const KernelBenchRow& r : b.rows) {
    out += fmt::format("{:<19} {:<20} {:>5} {:>11.1f} {:>9.1f} {:>8.1f} {:>7.1f}\n", r.op, r.what,
                       r.rows, r.us, r.gops, r.gb_s, r.limit_pct);
  }
  return out;
}

nlohmann::ordered_json KernelJson(const KernelBench& b) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const KernelBenchRow& r : b.rows) {
    rows.push_back({{"op", r.op},
                    {"of", r.what},
                    {"rows", r.rows},
                    {"us", r.us},
                    {"gops", r.gops},
                    {"gb_s", r.gb_s},
                    {"limit_pct", r.limit_pct}});
  }
  return {{"backend", b.backend},
          {"bandwidth_gb_s", b.bandwidth_gb_s},
          {"int8_gops", b.peak.int8_gops},
          {"float_gflops", b.peak.float_gops},
          {"bf16_gflops", b.peak.bf16_gops},
          {"rows", std::move(rows)}};
}

/// A weight format by its name, as `show` prints it.
Result<DType> ParseWeightFormat(const std::string& name) {
  for (uint32_t number = 0; number < 64; ++number) {
    const auto info = FindDType(number);
    if (info && info->name == name) return info->dtype;
  }
  return FlagError("the weight format {} is not known; use Q4_0, Q8_0, BF16 ...", name);
}

Result<int> BenchKernel(BenchKernelFlags flags) {
  KernelBenchOptions& o = flags.bench;
  const auto within = [](const char* name, int64_t value, int64_t least, int64_t most) -> Status {
    if (value >= least && value <= most) return {};
    return FlagError("{} is {}; use {} to {}", name, value, least, most);
  };
  KV_RETURN_IF_ERROR(within("--inputs", o.inputs, 256, 1 << 16));
  KV_RETURN_IF_ERROR(within("--outputs", o.outputs, 16, 1 << 18));
  if (o.inputs % 256 != 0) return FlagError("--inputs is {}; use a multiple of 256", o.inputs);
  for (const int32_t rows : o.rows) KV_RETURN_IF_ERROR(within("--rows", rows, 1, 4096));
  for (const int32_t context : o.contexts)
    KV_RETURN_IF_ERROR(within("--context", context, 1, 1 << 17));
  if (!flags.formats.empty()) o.formats.clear();
  for (const std::string& name : flags.formats) {
    KV_ASSIGN(const DType format, ParseWeightFormat(name));
    o.formats.push_back(format);
  }
  if (!flags.kv_dtypes.empty()) o.kv_dtypes.clear();
  for (const std::string& name : flags.kv_dtypes) {
    KV_ASSIGN(const KvDType dtype, InFlags(ParseKvDType(name)));
    o.kv_dtypes.push_back(dtype);
  }
  WriteErr(ThreadsWarning(o.threads));
  KV_ASSIGN(const KernelBench bench, RunKernelBench(o));
  if (flags.json) {
    PrintJson(KernelJson(bench));
  } else {
    WriteOut(KernelText(bench));
  }
  return kExitOk;
}

Command AddBenchKernel(CLI::App* bench) {
  auto flags = std::make_shared<BenchKernelFlags>();
  CLI::App* app = bench->add_subcommand(
      "kernel", "Each operation of the forward pass, as a share of this machine's limits");
  app->add_flag("--fast", flags->bench.fast, "the faster mode's products");
  app->add_option("-t,--threads", flags->bench.threads, "0: one for each physical core")
      ->type_name("N");
  app->add_option("--inputs", flags->bench.inputs, "of the products (default: 2048)")
      ->type_name("K");
  app->add_option("--outputs", flags->bench.outputs, "of the products (default: 8192)")
      ->type_name("N");
  app->add_option("--rows", flags->bench.rows,
                  "rows of a step; a list gives a line each (default: 1,8,32,128,512,2048)")
      ->delimiter(',')
      ->type_name("R[,R]");
  app->add_option("--format", flags->formats, "weight formats, such as Q4_0,BF16")
      ->delimiter(',')
      ->type_name("F[,F]");
  app->add_option("--kv-dtype", flags->kv_dtypes, "of the attention: bf16, f16, f32, int8")
      ->delimiter(',')
      ->type_name("T[,T]");
  app->add_option("--context", flags->bench.contexts, "tokens before those that attend")
      ->delimiter(',')
      ->type_name("N[,N]");
  app->add_flag("--probes", flags->bench.probes_only, "the machine's limits only");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return BenchKernel(*flags); };
}

}  // namespace

Command AddBenchCommand(CLI::App* root) {
  CLI::App* bench = root->add_subcommand("bench", "Measure: batch, kernel, serve");
  bench->require_subcommand(1);
  auto flags = std::make_shared<BenchBatchFlags>();
  CLI::App* batch = bench->add_subcommand(
      "batch", "Prefill and decode of several sequences at once, as llama-batched-bench");
  AddComputeFlags(batch, &flags->model);
  batch->add_option("--pp", flags->bench.pp, "prompt tokens of each sequence (default: 512)")
      ->type_name("N");
  batch->add_option("--tg", flags->bench.tg, "tokens of output of each (default: 128)")
      ->type_name("N");
  batch
      ->add_option("-b,--batch", flags->bench.batches,
                   "sequences at once; a list gives a row each (default: 1)")
      ->delimiter(',')
      ->type_name("B[,B]");
  batch->add_flag("--shared", flags->bench.shared_prompt, "all have the same prompt");
  batch->add_flag("--again", flags->bench.again, "then the same prompts again, to the first token");
  batch->add_flag("--breakdown", flags->breakdown, "also where the time of the steps went");
  // Written: not the file that KVASIR_PROFILE says to simulate, which reads it.
  batch->add_option("--profile", flags->profile, "also writes what steps cost here, for simulate")
      ->type_name("FILE")
      ->configurable(false);
  batch->add_flag("--json", flags->json, "one JSON object on stdout");
  const Command run_kernel = AddBenchKernel(bench);
  const Command run_serve = AddBenchServe(bench);
  return [flags, bench, batch, run_kernel, run_serve] {
    if (batch->parsed()) return BenchBatch(*flags);
    return bench->got_subcommand("kernel") ? run_kernel() : run_serve();
  };
}

}  // namespace kvasir
