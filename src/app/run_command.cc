#include <fmt/format.h>

#include <ctime>
#include <optional>

#include "app/chat.h"
#include "app/commands.h"
#include "app/flags.h"
#include "app/json_output.h"
#include "app/load.h"
#include "app/prompt.h"
#include "app/terminal.h"
#include "base/memory_limits.h"

namespace kvasir {
namespace {

struct RunFlags {
  ModelFlags model;
  SamplingFlags sampling;
  std::optional<std::string> prompt;
  std::string file;
  std::optional<std::string> system;
  int32_t max_tokens = -1;
  bool raw = false, special = false, quiet = false, json = false;
};

/// Refuses a text that no context holds before it is cut into tokens, which takes many times its
/// size.
Status CheckLength(const LoadedModel& model, const RunFlags& flags, const std::string& text) {
  const int64_t context = model.plan().context;
  const auto most = static_cast<uint64_t>(context) * model.tokenizer().longest_token();
  if (text.size() <= most) return {};
  const bool from_file = !flags.file.empty() && flags.file != "-";
  return MakeError(
      ErrorCode::kInvalid,
      "{} has {} bytes; the context of {} tokens holds {} at most; shorten it or raise "
      "--ctx",
      from_file ? flags.file : "the prompt", text.size(), context, most);
}

Result<std::vector<int32_t>> PromptTokens(const LoadedModel& model, const RunFlags& flags,
                                          const std::string& text) {
  if (flags.raw)
    return model.tokenizer().Encode(text, {.add_special = true, .parse_special = true});
  ChatHistory history(&model);
  if (flags.system) history.SetSystem(*flags.system);
  return history.AddUser(text, std::time(nullptr));
}

nlohmann::ordered_json LogprobsJson(const Reply& reply, const Tokenizer& tokenizer) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  const auto entry = [&](int32_t token, float logprob) {
    return nlohmann::ordered_json{
        {"token", token}, {"text", tokenizer.TokenBytes(token, true)}, {"logprob", logprob}};
  };
  for (const SampledToken& t : reply.tokens) {
    nlohmann::ordered_json item = entry(t.token, t.logprob);
    item["top"] = nlohmann::ordered_json::array();
    for (const TokenLogprob& other : t.top)
      item["top"].push_back(entry(other.token, other.logprob));
    out.push_back(std::move(item));
  }
  return out;
}

nlohmann::ordered_json ReplyJson(const Reply& reply, const LoadedModel& model,
                                 const Request& request) {
  const RequestStats& s = reply.stats;
  nlohmann::ordered_json out = {
      {"text", reply.text},
      {"tokens", reply.ids()},
      {"finish_reason", NameOf(reply.reason)},
      {"prompt_tokens", s.prompt_tokens},
      {"cached_tokens", s.cached_tokens},
      {"output_tokens", s.output_tokens},
      {"ttft_ms", s.ttft_seconds() * 1e3},
      {"decode_tok_s", s.decode_tokens_per_second()},
      {"prefill_tok_s",
       s.ttft_seconds() > 0 ? (s.prompt_tokens - s.cached_tokens) / s.ttft_seconds() : 0.0},
      {"seed", request.sampling.seed},
      {"resident_bytes", ResidentBytes()}};
  if (request.sampling.logprobs >= 0) out["logprobs"] = LogprobsJson(reply, model.tokenizer());
  return out;
}

Result<int> OneShot(LoadedModel* model, const RunFlags& flags, const std::string& text,
                    const ChatOptions& options) {
  KV_RETURN_IF_ERROR(CheckLength(*model, flags, text));
  KV_ASSIGN(std::vector<int32_t> prompt, PromptTokens(*model, flags, text));
  Request request{.prompt = std::move(prompt),
                  .max_tokens = flags.max_tokens,
                  .sampling = options.sampling,
                  .stop = options.stop,
                  .special = flags.special};
  const std::unique_ptr<Engine> engine = model->MakeEngine();
  if (!flags.json) {
    KV_ASSIGN(const Reply reply,
              StreamReply(model, engine.get(), std::move(request), flags.quiet, false));
    return reply.interrupted ? kExitInterrupted : kExitOk;
  }
  const InterruptScope interrupts;
  const auto ignore_text = [](std::string_view) { return true; };
  KV_ASSIGN(const Reply reply,
            Generate(engine.get(), request, ignore_text, [](int32_t, int32_t) {}));
  PrintJson(ReplyJson(reply, *model, request));
  return reply.interrupted ? kExitInterrupted : kExitOk;
}

Result<int> Run(const RunFlags& flags) {
  const bool interactive = !flags.prompt && flags.file.empty() && StdinIsTerminal();
  if (interactive && flags.json) return FlagError("--json: {}", kNoPrompt);
  if (interactive && flags.raw) return FlagError("--raw: {}", kNoPrompt);
  if (flags.max_tokens < -1 || flags.max_tokens == 0) {
    return FlagError("--max-tokens is {}; it must be 1 or more, or -1: until the context is full",
                     flags.max_tokens);
  }
  ChatOptions options{.system = flags.system,
                      .stop = ToStopRules(flags.sampling),
                      .max_tokens = flags.max_tokens,
                      .quiet = flags.quiet};
  KV_ASSIGN(options.sampling, ToSamplingParams(flags.sampling));
  KV_ASSIGN(LoadOptions load, ToLoadOptions(flags.model, 1));
  std::optional<std::string> text;
  if (!interactive) {
    KV_ASSIGN(text, ReadPrompt(flags.prompt, flags.file));
    if (!text) return FlagError("{}", kNoPrompt);
  }
  KV_ASSIGN(const std::unique_ptr<LoadedModel> model, LoadWithProgress(std::move(load)));
  KV_RETURN_IF_ERROR(TakeModelsSampling(model->file(), flags.sampling, &options.sampling));
  // Checked here, so that a chat does not begin that cannot go on.
  KV_RETURN_IF_ERROR(NamedByFlags(Validate(options.sampling, model->tokenizer().vocab_size())));
  KV_RETURN_IF_ERROR(NamedByFlags(Validate(options.stop, model->tokenizer().vocab_size())));
  if (!flags.raw && model->chat_template() == nullptr) {
    return MakeError(ErrorCode::kUnsupported, "{}; --raw -p TEXT continues a text without one",
                     model->chat_template_error());
  }
  if (interactive) return Chat(model.get(), options);
  return OneShot(model.get(), flags, *text, options);
}

}  // namespace

Command AddRunCommand(CLI::App* root) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* app =
      root->add_subcommand("run", "Talk to a model in the terminal, or answer one prompt");
  AddComputeFlags(app, &flags->model);
  app->add_option("-p,--prompt", flags->prompt, kPromptHelp)->type_name("TEXT");
  app->add_option("-f,--file", flags->file, "the same from a file; -: stdin; after -p, if both")
      ->type_name("FILE")
      ->configurable(false);
  app->add_option("-s,--system", flags->system,
                  "system message (default: \"" + std::string(kDefaultSystem) +
                      "\"; empty: the template's own)")
      ->type_name("TEXT");
  app->add_option("-n,--max-tokens,--n-predict", flags->max_tokens,
                  "tokens of a reply, at most; -1: until the context is full (default)")
      ->type_name("N");
  app->add_flag("--raw", flags->raw, "continue the prompt as it is, without the chat template");
  app->add_flag("--special", flags->special, "show control tokens");
  app->add_flag("-q,--quiet", flags->quiet, "no statistics");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  AddSamplingFlags(app, &flags->sampling);
  return [flags] { return Run(*flags); };
}

}  // namespace kvasir
