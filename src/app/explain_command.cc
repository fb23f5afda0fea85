#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "app/commands.h"
#include "app/explain_measure.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/prompt.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct ExplainFlags {
  ModelFlags model;
  std::optional<std::string> prompt;
  std::string file;
  int32_t step = 50;
  std::optional<int32_t> upto;
  bool json = false;
};

/// 1, 10, 50, 100, 200, 400, 800, ... up to `upto`, which is the last one.
std::vector<int32_t> TableSteps(int32_t upto) {
  std::vector<int32_t> out;
  for (const int32_t s : {1, 10, 50}) {
    if (s <= upto) out.push_back(s);
  }
  for (int64_t s = 100; s <= upto; s *= 2) out.push_back(static_cast<int32_t>(s));
  if (upto > 0 && out.back() != upto) out.push_back(upto);
  return out;
}

nlohmann::ordered_json CostJson(const ExplainCost& c) {
  return {{"projections", c.counters.projections},
          {"attention_ops", c.counters.attention_ops},
          {"flops", c.flops()},
          {"bytes_read", c.bytes_read()},
          {"weight_bytes", c.counters.weight_bytes},
          {"kv_bytes_read", c.counters.kv_bytes_read},
          {"kv_bytes_written", c.counters.kv_bytes_written},
          {"flop_per_byte", c.flop_per_byte()},
          {"ms", c.ms}};
}

nlohmann::ordered_json StepJson(const ExplainStep& s) {
  return {{"step", s.step},
          {"logits_equal", s.logits_equal},
          {"with_cache", CostJson(s.with_cache)},
          {"without_cache", CostJson(s.without_cache)}};
}

/// What binds a phase: the time that its bytes need at the machine's bandwidth, or its FLOPs at the
/// machine's peak.
std::string_view Bound(const ExplainCost& c, const ExplainPhases& p) {
  const double memory = static_cast<double>(c.bytes_read()) / (p.bandwidth_gb_s * 1e9);
  const double compute = static_cast<double>(c.flops()) / (p.compute_gflop_s * 1e9);
  return memory > compute ? "memory" : "compute";
}

nlohmann::ordered_json PhasesJson(const ExplainPhases& p) {
  nlohmann::ordered_json prefill = CostJson(p.prefill), decode = CostJson(p.decode);
  prefill["bound_by"] = Bound(p.prefill, p);
  decode["bound_by"] = Bound(p.decode, p);
  return {{"tokens", p.tokens},
          {"prefill", prefill},
          {"decode", decode},
          {"last_layer_flops_skipped", p.last_layer_flops_skipped},
          {"bandwidth_gb_s", p.bandwidth_gb_s},
          {"compute_gflop_s", p.compute_gflop_s}};
}

std::string StepText(const ExplainStep& s, const ModelConfig& c, const std::string& token) {
  const auto row = [](std::string_view name, const std::string& with, const std::string& without) {
    return fmt::format("  {:<24} {:>14} {:>14}\n", name, with, without);
  };
  const auto both = [&](std::string_view name, auto f) {
    return row(name, f(s.with_cache), f(s.without_cache));
  };
  std::string out =
      fmt::format("Step {}: the logits after token {} of the text, {}\n\n", s.step, s.step, token);
  out += fmt::format(
      "With the cache, Q, K and V are computed for this token alone in each of {} layers; the K "
      "and V\n"
      "of the {} before it are read. Without it, those of all {} are computed again.\n\n",
      c.layers, s.step - 1, s.step);
  out += row("", "with cache", "without");
  out += both("tokens computed", [&](const ExplainCost& x) {
    return std::to_string(&x == &s.with_cache ? 1 : s.step);
  });
  out += both("K/V read from cache", [&](const ExplainCost& x) {
    return &x == &s.with_cache ? std::to_string(s.step - 1) : std::string("0");
  });
  out += both("projections", [](const ExplainCost& x) {
    return HumanCount(static_cast<double>(x.counters.projections));
  });
  out += both("attention scores", [](const ExplainCost& x) {
    return HumanCount(static_cast<double>(x.counters.attention_ops));
  });
  out += both("FLOPs",
              [](const ExplainCost& x) { return HumanCount(static_cast<double>(x.flops())); });
  out += both("bytes read", [](const ExplainCost& x) { return HumanBytes(x.bytes_read()); });
  out += both("of them K and V",
              [](const ExplainCost& x) { return HumanBytes(x.counters.kv_bytes_read); });
  out += both("time", [](const ExplainCost& x) { return fmt::format("{:.2f} ms", x.ms); });
  out += fmt::format("\n  logits equal, bit for bit: {}\n", s.logits_equal ? "yes" : "NO");
  return out;
}

std::string TableText(const std::vector<ExplainStep>& steps) {
  std::string out =
      "\n  step   FLOPs with   without   ratio     ms with   without   ratio   equal\n";
  for (const ExplainStep& s : steps) {
    const auto with = static_cast<double>(s.with_cache.flops()),
               without = static_cast<double>(s.without_cache.flops());
    out += fmt::format("{:>6} {:>12} {:>9} {:>7.1f} {:>11.2f} {:>9.2f} {:>7.1f}   {}\n", s.step,
                       HumanCount(with), HumanCount(without), without / with, s.with_cache.ms,
                       s.without_cache.ms, s.without_cache.ms / s.with_cache.ms,
                       s.logits_equal ? "yes" : "NO");
  }
  return out;
}

std::string Bar(double value, double most, std::string_view cell) {
  constexpr double kWidth = 56;
  std::string out;
  const auto cells = static_cast<int>(std::lround(value / most * kWidth));
  for (int i = 0; i < std::max(cells, 1); ++i) out += cell;
  return out;
}

/// The cost of each step, and of all steps up to it (by trapezoids between the steps measured).
std::string PlotText(const std::vector<ExplainStep>& steps) {
  std::string out = "\nFLOPs of a step: flat with the cache, growing without\n";
  double most = 1;
  for (const ExplainStep& s : steps)
    most = std::max(most, static_cast<double>(s.without_cache.flops()));
  for (const ExplainStep& s : steps) {
    out += fmt::format("{:>6} with    {}\n", s.step,
                       Bar(static_cast<double>(s.with_cache.flops()), most, "█"));
    out += fmt::format("       without {}\n",
                       Bar(static_cast<double>(s.without_cache.flops()), most, "▒"));
  }
  out += "\nFLOPs of all steps up to it: linear with the cache, quadratic without\n";
  double with = 0, without = 0;
  std::vector<std::pair<double, double>> sums;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto w = static_cast<double>(steps[i].with_cache.flops()),
               wo = static_cast<double>(steps[i].without_cache.flops());
    const double width = i == 0 ? steps[0].step : steps[i].step - steps[i - 1].step;
    const double before_w = i == 0 ? w : static_cast<double>(steps[i - 1].with_cache.flops());
    const double before_wo = i == 0 ? wo : static_cast<double>(steps[i - 1].without_cache.flops());
    with += width * (w + before_w) / 2;
    without += width * (wo + before_wo) / 2;
    sums.emplace_back(with, without);
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    out += fmt::format("{:>6} with    {} {}\n", steps[i].step, Bar(sums[i].first, without, "█"),
                       HumanCount(sums[i].first));
    out += fmt::format("       without {} {}\n", Bar(sums[i].second, without, "▒"),
                       HumanCount(sums[i].second));
  }
  return out;
}

std::string PhasesText(const ExplainPhases& p, const ModelConfig& c) {
  const auto row = [](std::string_view name, const std::string& prefill,
                      const std::string& decode) {
    return fmt::format("  {:<24} {:>16} {:>16}\n", name, prefill, decode);
  };
  const auto both = [&](std::string_view name, auto f) {
    return row(name, f(p.prefill), f(p.decode));
  };
  std::string out = fmt::format("\nTwo ways to compute the {} tokens of this text\n\n", p.tokens);
  out += row("", "prefill", "decoding");
  out += row("", "Cache = Dec_kv(x)", "token by token");
  out += row("steps", "all at once", std::to_string(p.tokens));
  out += both("FLOPs",
              [](const ExplainCost& x) { return HumanCount(static_cast<double>(x.flops())); });
  out += both("bytes read", [](const ExplainCost& x) { return HumanBytes(x.bytes_read()); });
  out += both("FLOP per byte",
              [](const ExplainCost& x) { return fmt::format("{:.1f}", x.flop_per_byte()); });
  out += both("time", [](const ExplainCost& x) { return fmt::format("{:.1f} ms", x.ms); });
  out += both("tokens/s",
              [&](const ExplainCost& x) { return fmt::format("{:.0f}", p.tokens / x.ms * 1e3); });
  out += both("bound by", [&](const ExplainCost& x) { return std::string(Bound(x, p)); });
  out += fmt::format(
      "\nPrefill's output is K and V: in the last of {} layers only these two are computed for all "
      "tokens but\n"
      "the last, which saves {} FLOPs. Each weight is read once and used for all tokens. Decoding "
      "reads all\n"
      "weights for every token.\nThis machine reads {:.1f} GB/s and computes {:.0f} GFLOP/s with "
      "these weights, so work below {:.0f} FLOP per\n"
      "byte waits for memory.\n",
      c.layers, HumanCount(static_cast<double>(p.last_layer_flops_skipped)), p.bandwidth_gb_s,
      p.compute_gflop_s, p.compute_gflop_s / p.bandwidth_gb_s);
  return out;
}

Result<int> Explain(ExplainFlags flags) {
  if (flags.step < 1) return FlagError("--step is {}; steps are counted from 1", flags.step);
  if (flags.upto && *flags.upto < 0)
    return FlagError("--upto is {}; it must be 0 or more", *flags.upto);
  KV_ASSIGN(LoadOptions load, ToLoadOptions(flags.model, 1));
  KV_ASSIGN(const OpenedModel opened, OpenModel(load.path));
  const int64_t context = flags.model.context > 0 ? flags.model.context : opened.config.context;
  if (flags.step > context) {
    return FlagError("--step is {}, beyond the context of {} tokens", flags.step, context);
  }
  if (flags.upto && *flags.upto > context)
    return FlagError("--upto is {}, beyond the context of {} tokens", *flags.upto, context);
  constexpr int64_t kUsualTable = 100;
  const auto upto = flags.upto.value_or(static_cast<int32_t>(std::min(kUsualTable, context)));
  const int32_t longest = std::max(flags.step, upto);
  if (load.memory.context == 0) {
    // Room for the steps asked for, but no less than is allowed.
    load.memory.context = static_cast<int32_t>(
        std::max<int64_t>(longest, std::min<int64_t>(kLeastContext, opened.config.context)));
  }
  KV_ASSIGN(const std::optional<std::string> text, ReadPrompt(flags.prompt, flags.file));
  if (!text) return FlagError("{}", kNoPrompt);
  KV_ASSIGN(const std::unique_ptr<LoadedModel> model, LoadWithProgress(load));
  std::vector<int32_t> tokens =
      model->tokenizer().Encode(*text, {.add_special = true, .parse_special = true});
  if (tokens.empty()) return MakeError(ErrorCode::kInvalid, "the prompt has no tokens");
  const auto prompt_tokens = static_cast<int32_t>(tokens.size());
  const std::vector<int32_t> steps = TableSteps(upto);
  const int32_t phase_tokens = std::min(prompt_tokens, longest);
  int64_t all = Explainer::ExtendTokens(std::max(0, longest - prompt_tokens)) +
                Explainer::StepTokens(flags.step) + Explainer::PhasesTokens(phase_tokens);
  for (const int32_t s : steps) all += Explainer::StepTokens(s);
  ProgressBar bar("measuring");
  int64_t computed = 0;
  Explainer explainer(model.get(), std::move(tokens), &SteadyClock(), [&](int32_t count) {
    computed += count;
    bar.Update(static_cast<uint64_t>(computed), static_cast<uint64_t>(all));
  });
  KV_RETURN_IF_ERROR(explainer.Extend(longest));
  KV_ASSIGN(const ExplainStep step, explainer.Step(flags.step));
  std::vector<ExplainStep> table;
  for (const int32_t s : steps) {
    KV_ASSIGN(const ExplainStep row, explainer.Step(s));
    table.push_back(row);
  }
  KV_ASSIGN(const ExplainPhases phases, explainer.Phases(phase_tokens));
  bar.Clear();
  if (flags.json) {
    nlohmann::ordered_json out = StepJson(step);
    out["prompt_tokens"] = prompt_tokens;
    out["table"] = nlohmann::ordered_json::array();
    for (const ExplainStep& s : table) out["table"].push_back(StepJson(s));
    out["phases"] = PhasesJson(phases);
    PrintJson(out);
    return kExitOk;
  }
  const std::string token =
      nlohmann::json(model->tokenizer().TokenBytes(explainer.tokens()[flags.step - 1], true))
          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out = StepText(step, model->config(), token) + TableText(table);
  if (!table.empty()) out += PlotText(table);
  out += PhasesText(phases, model->config());
  WriteOut(StdoutIsTerminal() ? SafeForTerminal(out) : out);
  return kExitOk;
}

}  // namespace

Command AddExplainCommand(CLI::App* root) {
  auto flags = std::make_shared<ExplainFlags>();
  CLI::App* app = root->add_subcommand(
      "explain",
      "One step with and without the cache: what is computed, what is read, what it costs");
  AddComputeFlags(app, &flags->model);
  app->add_option("-p,--prompt", flags->prompt, "the text; cut or continued to the step's length")
      ->type_name("TEXT");
  app->add_option("-f,--file", flags->file, "the text from a file; -: stdin")
      ->type_name("FILE")
      ->configurable(false);
  app->add_option("--step", flags->step,
                  "position to compute, counted from 1, prompt included (default: 50)")
      ->type_name("I");
  app->add_option("--upto", flags->upto,
                  "last step of the table; 0: no table (default: 100, or the context)")
      ->type_name("N");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return Explain(*flags); };
}

}  // namespace kvasir
