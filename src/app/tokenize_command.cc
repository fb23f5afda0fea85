#include <fmt/format.h>

#include <optional>

#include "app/commands.h"
#include "app/flags.h"
#include "app/input.h"
#include "app/json_output.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

struct TokenizeFlags {
  ModelFlags model;
  std::optional<std::string> prompt;
  std::string file;
  std::vector<int32_t> decode;
  bool no_special = false, no_bos = false, ids_only = false, json = false;
};

/// A token's text on one line.
std::string Quoted(const std::string& bytes) {
  return nlohmann::json(bytes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<int> Decode(const TokenizeFlags& flags, const Tokenizer& tokenizer) {
  for (const int32_t id : flags.decode) {
    if (id < 0 || id >= tokenizer.vocab_size()) {
      return FlagError("token {} is not in the vocabulary of {}", id, tokenizer.vocab_size());
    }
  }
  const std::string text = tokenizer.Decode(flags.decode, !flags.no_special);
  if (flags.json) {
    PrintJson({{"text", text}});
  } else {
    WriteOut(StdoutIsTerminal() ? SafeForTerminal(text) + "\n" : text);
  }
  return kExitOk;
}

Result<int> Tokenize(const TokenizeFlags& flags) {
  KV_ASSIGN(const LoadOptions options, ToLoadOptions(flags.model, 1));
  KV_ASSIGN(const OpenedModel model, OpenModel(options.path));
  const Tokenizer& tokenizer = *model.tokenizer;
  if (!flags.decode.empty()) return Decode(flags, tokenizer);
  std::string text;
  if (flags.prompt) {
    text = *flags.prompt;
  } else {
    KV_ASSIGN(text, ReadTextFile(flags.file.empty() ? "-" : flags.file, kMaxInputBytes));
  }
  const std::vector<TokenId> ids = tokenizer.Encode(
      text,
      {.add_special = !flags.no_bos, .add_eos = !flags.no_bos, .parse_special = !flags.no_special});
  if (flags.json) {
    nlohmann::ordered_json pieces = nlohmann::ordered_json::array();
    for (const TokenId id : ids) pieces.push_back(tokenizer.TokenBytes(id, true));
    PrintJson({{"tokens", ids}, {"pieces", pieces}, {"count", ids.size()}});
    return kExitOk;
  }
  std::string out;
  for (const TokenId id : ids) {
    out += flags.ids_only ? fmt::format("{}\n", id)
                          : fmt::format("{:>7}  {}\n", id, Quoted(tokenizer.TokenBytes(id, true)));
  }
  WriteOut(StdoutIsTerminal() ? SafeForTerminal(out) : out);
  if (!flags.ids_only) WriteErr(fmt::format("{} tokens, {} bytes\n", ids.size(), text.size()));
  return kExitOk;
}

}  // namespace

Command AddTokenizeCommand(CLI::App* root) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* app = root->add_subcommand("tokenize", "The tokens of a text, or the text of tokens");
  AddModelFlag(app, &flags->model);
  app->add_option("-p,--prompt", flags->prompt, "the text (default: a file, or stdin)")
      ->type_name("TEXT");
  app->add_option("-f,--file", flags->file, "a file with the text; -: stdin")
      ->type_name("FILE")
      ->configurable(false);
  app->add_option("--decode", flags->decode, "ids to turn into text instead")
      ->type_name("ID")
      ->delimiter(',')
      ->configurable(false);  // it would count more than a text on the command line
  app->add_flag("--no-special", flags->no_special, "take <|...|> in the text as plain text");
  app->add_flag("--no-bos", flags->no_bos, "do not add BOS and EOS where the model wants them");
  app->add_flag("--ids", flags->ids_only, "only the ids, one a line");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return Tokenize(*flags); };
}

}  // namespace kvasir
