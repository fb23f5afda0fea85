#include <fmt/format.h>

#include <filesystem>

#include "app/batch_job.h"
#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/output_file.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct BatchFlags {
  ModelFlags model;
  std::vector<std::string> files;
  std::string alias;
  int32_t max_sequences = 32;
  bool json = false;
};

Result<int> RunBatchCommand(BatchFlags flags) {
  if (flags.files.size() == 3) {
    const std::string wrong = NotEmpty(flags.files[0]);
    if (!wrong.empty()) return FlagError("MODEL {}", wrong);
    flags.model.model = flags.files[0];
    flags.files.erase(flags.files.begin());
  }
  const std::string &in = flags.files[0], &out = flags.files[1];
  if (IsOneFile(in, out)) return FlagError("{} is both IN and OUT; name another OUT", in);
  if (flags.max_sequences < 1 || flags.max_sequences > 4096)
    return FlagError("--max-sequences is {}; it must be from 1 to 4096", flags.max_sequences);
  KV_ASSIGN(LoadOptions load, ToLoadOptions(flags.model, flags.max_sequences));
  KV_ASSIGN(const std::unique_ptr<LoadedModel> model, LoadWithProgress(load));
  ProgressBar requests("requests");
  const std::string name =
      flags.alias.empty() ? std::filesystem::path(load.path).stem().string() : flags.alias;
  KV_ASSIGN(const BatchSummary s,
            RunBatch(model.get(), in, out, name,
                     [&](size_t done, size_t all) { requests.Update(done, all); }));
  requests.Clear();
  const double rate =
      s.seconds > 0 ? static_cast<double>(s.prompt_tokens + s.output_tokens) / s.seconds : 0;
  if (flags.json) {
    PrintJson({{"requests", s.requests},
               {"failed", s.failed},
               {"skipped", s.skipped},
               {"prompt_tokens", s.prompt_tokens},
               {"cached_tokens", s.cached_tokens},
               {"output_tokens", s.output_tokens},
               {"seconds", s.seconds},
               {"tok_s", rate},
               {"interrupted", s.interrupted}});
  } else {
    WriteErr(
        fmt::format("{} answered ({} with an error), {} were there before; {} prompt tokens, {} "
                    "of them from the cache, {} output tokens, {:.1f} s, {:.0f} tokens/s\n",
                    s.requests, s.failed, s.skipped, s.prompt_tokens, s.cached_tokens,
                    s.output_tokens, s.seconds, rate));
  }
  if (s.interrupted) WriteErr("interrupted; the same command goes on where it stopped\n");
  return s.interrupted ? kExitInterrupted : kExitOk;
}

}  // namespace

Command AddBatchCommand(CLI::App* root) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* app = root->add_subcommand(
      "batch", "Answer an OpenAI batch file offline; run again, it goes on where it stopped");
  app->add_option("files", flags->files,
                  "[MODEL] IN.jsonl OUT.jsonl; what OUT has with an error is answered too")
      ->required()
      ->expected(2, 3)
      ->type_name("FILES");
  app->add_option("-m,--model", flags->model.model, "the same as MODEL, which counts more")
      ->check(NotEmpty)
      ->type_name("MODEL");
  AddComputeOptions(app, &flags->model);
  app->add_option("--alias", flags->alias, "the model's name in requests (default: the file's)")
      ->type_name("NAME");
  app->add_option("--max-sequences", flags->max_sequences, "sequences computed at once")
      ->type_name("N");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return RunBatchCommand(*flags); };
}

}  // namespace kvasir
