#include <fmt/format.h>

#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/output_file.h"
#include "app/simulate_plot.h"
#include "app/terminal.h"
#include "sim/simulation.h"
#include "sim/synthetic.h"

namespace kvasir {
namespace {

struct SimulateFlags {
  std::string trace, csv, plot, kv_memory, profile, kv_dtype = "bf16", policy = "worth";
  std::optional<std::string> workload;
  SyntheticOptions synthetic;
  std::optional<double> prefill_tok_s, step_ms;
  std::optional<int32_t> layers, kv_heads, head_dim;
  int32_t windowed_layers = 0, window = 0;
  size_t requests = 0;
  std::optional<int64_t> pool_blocks;
  std::optional<double> pool_pct;
  double itl_target_ms = 0;
  SimulationOptions options;
  bool baselines = false, json = false;
};

constexpr const char* kMissNames[] = {"none", "never_seen", "diverged", "evicted", "window"};

nlohmann::ordered_json Percentiles(const std::vector<float>& seconds) {
  return {{"p50", Percentile(seconds, 50) * 1e3},
          {"p90", Percentile(seconds, 90) * 1e3},
          {"p99", Percentile(seconds, 99) * 1e3}};
}

std::vector<float> Ttfts(const SimulationResult& r) {
  std::vector<float> out;
  for (const SimulatedRequest& q : r.requests) {
    if (!q.refused) out.push_back(static_cast<float>(q.ttft_s()));
  }
  return out;
}

/// Where the requests' time went, on the average.
nlohmann::ordered_json CausesJson(const SimulationResult& r) {
  SequenceTimes sum;
  double count = 0;
  for (const SimulatedRequest& q : r.requests) {
    if (q.refused) continue;
    ++count;
    sum.queue += q.times.queue;
    sum.prefix += q.times.prefix;
    sum.prefill += q.times.prefill;
    sum.others += q.times.others;
    sum.preempted += q.times.preempted;
    sum.decode += q.times.decode;
  }
  count = std::max(count, 1.0);
  return {{"queue", sum.queue / count},         {"waiting_for_shared_prefix", sum.prefix / count},
          {"prefill", sum.prefill / count},     {"others_prefill", sum.others / count},
          {"preempted", sum.preempted / count}, {"decode", sum.decode / count}};
}

nlohmann::ordered_json ResultJson(const SimulationResult& r) {
  nlohmann::ordered_json misses;
  for (int i = 0; i < 5; ++i) misses[kMissNames[i]] = r.misses[i];
  return {{"requests", r.requests.size()},    {"refused", r.refused},
          {"prompt_tokens", r.prompt_tokens}, {"cached_tokens", r.cached_tokens},
          {"hit_rate", r.hit_rate()},         {"kv_waste_pct", r.kv_waste_pct},
          {"preemptions", r.preemptions},     {"evicted_blocks", r.evicted_blocks},
          {"pool_blocks", r.pool_blocks},     {"misses", misses},
          {"ttft_ms", Percentiles(Ttfts(r))}, {"itl_ms", Percentiles(r.itl_s)},
          {"mean_seconds", CausesJson(r)},    {"steps", r.steps},
          {"virtual_seconds", r.seconds},     {"scheduler_us_per_step", r.scheduler_us_per_step}};
}

std::string Csv(const SimulationResult& r) {
  std::string out =
      "arrival_s,first_token_s,finished_s,prompt_tokens,cached_tokens,output_tokens,preemptions,"
      "miss,refused,tenant,ttft_s,itl_mean_s,itl_max_s\n";
  for (const SimulatedRequest& q : r.requests) {
    out += fmt::format("{:.4f},{:.4f},{:.4f},{},{},{},{},{},{},{},{:.4f},{:.4f},{:.4f}\n",
                       q.arrival_s, q.first_token_s, q.finished_s, q.prompt_tokens, q.cached_tokens,
                       q.output_tokens, q.preemptions, kMissNames[static_cast<int>(q.miss)],
                       q.refused ? 1 : 0, q.tenant, q.refused ? 0 : q.ttft_s(), q.mean_itl_s(),
                       q.longest_itl_s);
  }
  return out;
}

std::string Row(const std::string& name, const SimulationResult& r) {
  const std::vector<float> ttft = Ttfts(r);
  return fmt::format(
      "{:<22} {:>7.2f}% {:>10} {:>9} {:>10.0f} {:>10.0f} {:>8.1f} {:>8.1f} {:>8.2f}%\n", name,
      r.hit_rate() * 100, r.preemptions, r.refused, Percentile(ttft, 50) * 1e3,
      Percentile(ttft, 99) * 1e3, Percentile(r.itl_s, 50) * 1e3, Percentile(r.itl_s, 99) * 1e3,
      r.kv_waste_pct);
}

/// The same trace without one mechanism at a time.
Result<std::vector<std::pair<std::string, SimulationResult>>> Baselines(
    const std::vector<TraceRequest>& trace, const SimulationOptions& ours) {
  std::vector<std::pair<std::string, SimulationOptions>> variants;
  const auto add = [&](const std::string& name, auto change) {
    SimulationOptions o = ours;
    change(o);
    variants.emplace_back(name, o);
  };
  add("slots of full length", [&trace](SimulationOptions& o) {
    for (const TraceRequest& r : trace)
      o.slot_tokens = std::max(o.slot_tokens, r.input_tokens + r.output_tokens);
  });
  add("LRU eviction", [](SimulationOptions& o) { o.kv.eviction = EvictionPolicy::kLru; });
  add("no in-flight reuse", [](SimulationOptions& o) { o.kv.share_in_flight = false; });
  add("no sharing", [](SimulationOptions& o) { o.kv.share_prefixes = false; });
  add("whole-prompt prefill", [](SimulationOptions& o) { o.scheduler.chunked_prefill = false; });
  std::vector<std::pair<std::string, SimulationResult>> out;
  for (const auto& [name, options] : variants) {
    KV_ASSIGN(SimulationResult r, Simulate(trace, options, {}));
    out.emplace_back(name, std::move(r));
  }
  return out;
}

/// Belady's bound on the requests that were not refused, as a part of their prompts' tokens.
double BeladyHitRate(const std::vector<TraceRequest>& trace, const SimulationResult& r,
                     int64_t pool_tokens) {
  std::vector<TraceRequest> served;
  for (size_t i = 0; i < trace.size(); ++i) {
    if (!r.requests[i].refused) served.push_back(trace[i]);
  }
  return static_cast<double>(BeladyHits(served, pool_tokens)) /
         static_cast<double>(std::max<uint64_t>(1, r.prompt_tokens));
}

Result<std::vector<TraceRequest>> TraceOf(SimulateFlags& flags) {
  if (flags.workload) {
    if (!flags.trace.empty())
      return FlagError("a TRACE and --workload {}; only one can be run", *flags.workload);
    flags.synthetic.kind = *flags.workload;
    if (flags.requests > 0) flags.synthetic.requests = flags.requests;
    return InFlags(MakeSynthetic(flags.synthetic));
  }
  if (flags.trace.empty()) return FlagError("name a TRACE, or a --workload");
  return ReadTrace(flags.trace, flags.requests);
}

template <typename T>
Status Within(const char* flag, const std::optional<T>& value, T least, T most) {
  if (!value || (*value >= least && *value <= most)) return {};
  return FlagError("{} is {}; it must be from {} to {}", flag, *value, least, most);
}

/// What would be taken for something else, or not looked at at all.
Status CheckFlags(const SimulateFlags& f) {
  constexpr int32_t kMostLayers = 4096, kMostHeads = 4096, kMostTokens = 1 << 30;
  KV_RETURN_IF_ERROR(Within<int32_t>("--layers", f.layers, 1, kMostLayers));
  KV_RETURN_IF_ERROR(Within<int32_t>("--kv-heads", f.kv_heads, 1, kMostHeads));
  KV_RETURN_IF_ERROR(Within<int32_t>("--head-dim", f.head_dim, 1, 1 << 16));
  KV_RETURN_IF_ERROR(
      Within<int32_t>("--windowed-layers", std::optional(f.windowed_layers), 0, kMostLayers));
  KV_RETURN_IF_ERROR(Within<int32_t>("--window", std::optional(f.window), 0, kMostTokens));
  KV_RETURN_IF_ERROR(Within<int64_t>("--pool", f.pool_blocks, 0, INT32_MAX));
  KV_RETURN_IF_ERROR(Within<double>("--pool-pct", f.pool_pct, 1e-6, 1e6));
  KV_RETURN_IF_ERROR(Within<double>("--prefill-tok-s", f.prefill_tok_s, 1e-3, 1e12));
  KV_RETURN_IF_ERROR(Within<double>("--step-ms", f.step_ms, 0, 1e6));
  KV_RETURN_IF_ERROR(Within<double>("--itl-target", std::optional(f.itl_target_ms), 0, 1e6));
  KV_RETURN_IF_ERROR(Within<double>("--rate", std::optional(f.synthetic.per_second), 1e-6, 1e6));
  KV_RETURN_IF_ERROR(Within<int32_t>(
      "--step-tokens", std::optional(f.options.scheduler.max_step_tokens), 1, kMostTokens));
  KV_RETURN_IF_ERROR(Within<int32_t>(
      "--max-sequences", std::optional(f.options.scheduler.max_sequences), 1, kMostTokens));
  if (!IsBlockSize(f.options.block_tokens)) {
    return FlagError("--block-tokens is {}; it must be 16, 32, 64, 128, 256 or 512",
                     f.options.block_tokens);
  }
  if (f.policy != "worth" && f.policy != "lru")
    return FlagError("--policy is {}; worth and lru are known", f.policy);
  const Result<KvDType> dtype = ParseKvDType(f.kv_dtype);
  if (!dtype.ok()) return FlagError("--kv-dtype: {}", dtype.error().message);
  if (f.pool_blocks.has_value() + f.pool_pct.has_value() + !f.kv_memory.empty() > 1)
    return FlagError("--pool, --pool-pct and --kv-memory each size the pool; use one of them");
  if (IsOneFile(f.csv, f.plot)) return FlagError("{} is both --csv and --plot; name two", f.csv);
  return {};
}

/// The model's shape and the machine: from a profile, with flags over it.
Status ReadMachine(const SimulateFlags& flags, SimulationOptions* o) {
  if (!flags.profile.empty())
    KV_RETURN_IF_ERROR(ReadProfile(flags.profile, &o->machine, &o->shape));
  if (flags.prefill_tok_s) o->machine.prefill_tokens_per_s = *flags.prefill_tok_s;
  if (flags.step_ms) o->machine.step_s = *flags.step_ms / 1e3;
  if (flags.kv_heads) o->shape.kv_heads = *flags.kv_heads;
  if (flags.head_dim) o->shape.head_dim = *flags.head_dim;
  if (flags.layers) o->shape.windows.assign(static_cast<size_t>(*flags.layers), 0);
  if (flags.windowed_layers > static_cast<int32_t>(o->shape.windows.size()) ||
      (flags.windowed_layers > 0) != (flags.window > 0))
    return FlagError("--windowed-layers {} and --window {} do not fit {} layers",
                     flags.windowed_layers, flags.window, o->shape.windows.size());
  for (int32_t i = 0; i < flags.windowed_layers; ++i) o->shape.windows[i] = flags.window;
  return {};
}

/// How many blocks of the shape fit into --kv-memory.
Result<int64_t> BlocksIn(const SimulateFlags& flags, const SimulationOptions& o) {
  KV_ASSIGN(const uint64_t bytes, ParseBytes("--kv-memory", flags.kv_memory));
  KV_ASSIGN(const KvDType dtype, InFlags(ParseKvDType(flags.kv_dtype)));
  KV_ASSIGN(const KvLayout layout, KvLayout::Create({.window = o.shape.windows,
                                                     .kv_heads = o.shape.kv_heads,
                                                     .head_dim = o.shape.head_dim,
                                                     .block_tokens = o.block_tokens,
                                                     .dtype = dtype}));
  const auto blocks = static_cast<int64_t>(bytes / layout.block_bytes);
  if (blocks < 1)
    return FlagError("--kv-memory {} holds no block of {} bytes", flags.kv_memory,
                     layout.block_bytes);
  return blocks;
}

Result<int> RunSimulate(SimulateFlags flags) {
  SimulationOptions& o = flags.options;
  KV_RETURN_IF_ERROR(CheckFlags(flags));
  KV_RETURN_IF_ERROR(ReadMachine(flags, &o));
  if (flags.policy == "lru") o.kv.eviction = EvictionPolicy::kLru;
  o.scheduler.itl_target_s = flags.itl_target_ms / 1e3;
  KV_ASSIGN(const std::vector<TraceRequest> trace, TraceOf(flags));
  o.pool_blocks = flags.pool_blocks.value_or(0);
  if (!flags.kv_memory.empty()) {
    KV_ASSIGN(o.pool_blocks, BlocksIn(flags, o));
  }
  if (flags.pool_pct) {
    o.pool_blocks = std::max<int64_t>(
        1, static_cast<int64_t>(*flags.pool_pct / 100 *
                                static_cast<double>(DistinctBlocks(trace, o.block_tokens))));
  }
  KV_ASSIGN(OutputFile csv, OutputFile::Open(flags.csv));
  KV_ASSIGN(OutputFile plot, OutputFile::Open(flags.plot));
  ProgressBar bar("simulating");
  KV_ASSIGN(const SimulationResult r,
            InFlags(Simulate(trace, o, [&](size_t done) { bar.Update(done, trace.size()); })));
  bar.Clear();
  if (!flags.csv.empty()) KV_RETURN_IF_ERROR(csv.Write(Csv(r)));
  if (!flags.plot.empty()) KV_RETURN_IF_ERROR(plot.Write(SimulationPlot(r)));
  std::vector<std::pair<std::string, SimulationResult>> others;
  if (flags.baselines) {
    KV_ASSIGN(others, Baselines(trace, o));
  }
  const int64_t pool_tokens = r.pool_blocks * o.block_tokens;
  if (flags.json) {
    nlohmann::ordered_json json = ResultJson(r);
    if (flags.baselines) {
      for (const auto& [name, other] : others) json["baselines"][name] = ResultJson(other);
      json["belady_hit_rate"] = BeladyHitRate(trace, r, pool_tokens);
    }
    PrintJson(json);
    return kExitOk;
  }
  std::string out = fmt::format(
      "{} requests, {} prompt tokens, {} of them from the cache, {} steps, {:.0f} s of the trace's "
      "time; scheduling {:.1f} us a step\n\n",
      r.requests.size(), r.prompt_tokens, r.cached_tokens, r.steps, r.seconds,
      r.scheduler_us_per_step);
  out += fmt::format("{:<22} {:>8} {:>10} {:>9} {:>10} {:>10} {:>8} {:>8} {:>9}\n", "", "hits",
                     "preempted", "refused", "TTFT p50", "p99 ms", "ITL p50", "p99 ms", "waste");
  out += Row("Kvasir", r);
  for (const auto& [name, other] : others) out += Row(name, other);
  if (flags.baselines) {
    out += fmt::format(
        "{:<22} {:>7.2f}%   the most that any eviction could, one request after the other\n",
        "Belady's bound", 100 * BeladyHitRate(trace, r, pool_tokens));
  }
  WriteOut(out);
  return kExitOk;
}

}  // namespace

Command AddSimulateCommand(CLI::App* root) {
  auto flags = std::make_shared<SimulateFlags>();
  SimulationOptions& o = flags->options;
  CLI::App* app = root->add_subcommand(
      "simulate", "The real scheduler and KV manager on a request trace, under a virtual clock");
  app->add_option("trace", flags->trace, "JSON lines as Mooncake's, or CSV as Azure's")
      ->type_name("TRACE");
  app->add_option("--workload", flags->workload,
                  "instead of a trace: shared, chats, documents or flood")
      ->type_name("NAME");
  app->add_option("--rate", flags->synthetic.per_second,
                  "arrivals a second of a workload (default: 2)")
      ->type_name("N");
  app->add_option("--seed", flags->synthetic.seed, "of a workload")->type_name("N");
  app->add_option("--requests", flags->requests, "only the first N; 0: all")->type_name("N");
  app->add_flag("--sequential", o.sequential, "one request after the other");
  app->add_option("--block-tokens", o.block_tokens, "tokens of a KV block")->type_name("N");
  app->add_option("--pool", flags->pool_blocks,
                  "blocks of the pool; 0: as many as the trace could need")
      ->type_name("N");
  app->add_option("--pool-pct", flags->pool_pct,
                  "the pool in percent of the trace's distinct blocks")
      ->type_name("P");
  app->add_option("--max-sequences", o.scheduler.max_sequences, "running at once at most")
      ->type_name("N");
  app->add_option("--step-tokens", o.scheduler.max_step_tokens, "tokens of a step at most")
      ->type_name("N");
  app->add_option("--itl-target", flags->itl_target_ms,
                  "a step with decoding takes no longer, in ms; 0: off")
      ->type_name("MS");
  app->add_option("--profile", flags->profile,
                  "a measured machine and model, from kvasir bench batch --profile")
      ->type_name("FILE");
  app->add_option("--prefill-tok-s", flags->prefill_tok_s, "the machine's prefill speed")
      ->type_name("N");
  app->add_option("--step-ms", flags->step_ms, "fixed time of a step: reading the weights")
      ->type_name("MS");
  app->add_option("--layers", flags->layers, "of the model (default: the 1B shape, 16)")
      ->type_name("N");
  app->add_option("--kv-heads", flags->kv_heads, "of the model (default: 8)")->type_name("N");
  app->add_option("--head-dim", flags->head_dim, "of the model (default: 64)")->type_name("N");
  app->add_option("--windowed-layers", flags->windowed_layers,
                  "layers that keep only a window of tokens")
      ->type_name("N");
  // Not the window that KVASIR_WINDOW says to perplexity.
  app->add_option("--window", flags->window, "their window")->type_name("N")->configurable(false);
  // One of three ways to size the pool: not the pool that KVASIR_KV_MEMORY gives a model.
  app->add_option("--kv-memory", flags->kv_memory, "size of the pool, e.g. 2G, instead of --pool")
      ->type_name("SIZE")
      ->configurable(false);
  app->add_option("--kv-dtype", flags->kv_dtype, "for --kv-memory: bf16, f16, f32 or int8")
      ->type_name("TYPE");
  app->add_option("--policy", flags->policy, "eviction: worth or lru")->type_name("NAME");
  app->add_flag("--baselines", flags->baselines, "also without each mechanism, and Belady's bound");
  app->add_option("--csv", flags->csv, "writes a line for each request")->type_name("FILE");
  app->add_option("--plot", flags->plot,
                  "writes an SVG of queue, running, KV by owner, hit rate and latency over time")
      ->type_name("FILE");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return RunSimulate(*flags); };
}

}  // namespace kvasir
