#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "app/commands.h"
#include "app/flags.h"
#include "app/input.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/perplexity.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct PerplexityFlags {
  ModelFlags model;
  std::string file;
  int32_t window = 1024;
  bool bos = false, json = false;
};

Result<int> RunPerplexity(PerplexityFlags flags) {
  if (flags.file.empty()) return FlagError("a text is needed: -f FILE, or -f - for stdin");
  if (flags.window < 2) return FlagError("--window is {}; it must be 2 or more", flags.window);
  // Every row's logits are wanted, so that fewer rows a step need less memory.
  constexpr int32_t kRows = 128;
  const int32_t rows = std::min(flags.model.step_tokens.value_or(kRows), kRows);
  flags.model.step_tokens = rows;
  if (flags.model.context == 0) flags.model.context = std::max(flags.window, kLeastContext);
  KV_ASSIGN(const LoadOptions options, ToLoadOptions(flags.model, rows));
  KV_ASSIGN(const std::string text, ReadTextFile(flags.file, kMaxInputBytes));
  {
    KV_ASSIGN(const auto model, LoadWithProgress(options));
    std::vector<int32_t> tokens =
        model->tokenizer().Encode(text, {.add_special = false, .parse_special = false});
    if (flags.bos) {
      // Also of a model whose prompts have none: it was asked for.
      const std::optional<TokenId> bos = model->tokenizer().data().bos;
      if (!bos) return FlagError("--bos: {} has no BOS token; leave it out", options.path);
      tokens.insert(tokens.begin(), *bos);
    }
    ProgressBar progress("scoring");
    const int64_t start = SteadyClock().NowNs();
    KV_ASSIGN(const PerplexityResult r,
              Perplexity(model.get(), tokens, flags.window,
                         [&](uint64_t done, uint64_t total) { progress.Update(done, total); }));
    progress.Clear();
    const int64_t left_out = static_cast<int64_t>(tokens.size()) - r.computed;
    const double seconds = SecondsBetween(start, SteadyClock().NowNs());
    if (flags.json) {
      PrintJson({{"perplexity", r.perplexity()},
                 {"mean_nll", r.mean_nll()},
                 {"tokens", tokens.size()},
                 {"scored", r.scored},
                 {"windows", r.windows},
                 {"window", r.window},
                 {"left_out", left_out},
                 {"seconds", seconds}});
    } else {
      WriteOut(fmt::format(
          "perplexity {:.4f} ({} of {} tokens scored in {} windows of {}, {:.1f} s, {:.0f} "
          "tokens/s)\n",
          r.perplexity(), r.scored, tokens.size(), r.windows, r.window, seconds,
          static_cast<double>(r.computed) / seconds));
      WriteErr(fmt::format(
          "the first token of each window is not scored{}\n",
          left_out == 0 ? ""
                        : fmt::format(", nor are the last {}, too few for a window", left_out)));
    }
  }
  return kExitOk;
}

}  // namespace

Command AddPerplexityCommand(CLI::App* root) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* app = root->add_subcommand(
      "perplexity", "How well a model predicts a text, in windows without overlap");
  AddComputeFlags(app, &flags->model);
  app->add_option("-f,--file", flags->file, "the text; -: stdin")
      ->type_name("FILE")
      ->configurable(false);
  app->add_option("--window", flags->window,
                  "tokens of a window; all but the first are scored (default: 1024)")
      ->type_name("N");
  app->add_flag("--bos", flags->bos, "start the text with BOS");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return RunPerplexity(*flags); };
}

}  // namespace kvasir
