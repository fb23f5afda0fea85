#include <fmt/format.h>

#include <string_view>
#include <utility>
#include <vector>

#include "app/commands.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

std::vector<CLI::App*> Subcommands(CLI::App* app) {
  return app->get_subcommands([](CLI::App*) { return true; });
}

std::string Join(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : " ") + item;
  return out;
}

std::vector<std::string> SubcommandNames(CLI::App* app) {
  std::vector<std::string> out;
  for (const CLI::App* sub : Subcommands(app)) out.push_back(sub->get_name());
  return out;
}

/// Those that are not only positional.
std::vector<const CLI::Option*> NamedOptions(const CLI::App* app) {
  std::vector<const CLI::Option*> out;
  for (const CLI::Option* option : app->get_options()) {
    if (!option->get_lnames().empty()) out.push_back(option);
  }
  return out;
}

bool TakesValue(const CLI::Option* option) { return option->get_expected_max() > 0; }

/// What may stand for a value.
enum class Kind { kWords, kFile, kModel, kOther };
struct Values {
  Kind kind = Kind::kOther;
  std::string_view words = {};
};

/// By name for those of a few words, which mean the same in every subcommand, else by the name that
/// the type has in --help.
Values ValuesOf(const CLI::Option* option) {
  constexpr std::pair<std::string_view, std::string_view> kWords[] = {
      {"kv-dtype", "bf16 f16 f32 int8"},
      {"block-tokens", "16 32 64 128 256 512"},
      {"log-level", "trace debug info warn error critical off"},
      {"workload", "chats shared documents flood"},
      {"policy", "worth lru"},
      {"endpoint", "chat completions"},
      {"role", "user operator"},
      {"shell", "bash zsh fish"}};
  const std::string& name = option->get_single_name();
  for (const auto& [known, words] : kWords) {
    if (name == known) return {.kind = Kind::kWords, .words = words};
  }
  const std::string type = option->get_type_name();
  if (type == "FILE" || type == "FILES" || type == "PATH") return {.kind = Kind::kFile};
  if (type == "MODEL") return {.kind = Kind::kModel};
  return {};
}

/// Models of the model folder.
constexpr char kModels[] = "$(ls \"${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models\" 2>/dev/null)";

/// What fills COMPREPLY with values.
std::string BashReply(const Values& values) {
  const auto words = [](std::string_view list) {
    return fmt::format("COMPREPLY=($(compgen -W \"{}\" -- \"$word\"))", list);
  };
  switch (values.kind) {
    case Kind::kWords:
      return words(values.words);
    case Kind::kFile:
      return "COMPREPLY=($(compgen -f -- \"$word\"))";
    case Kind::kModel:
      return words(kModels) + "; COMPREPLY+=($(compgen -f -- \"$word\"))";
    case Kind::kOther:
      break;
  }
  return "COMPREPLY=()";
}

/// The arms of the three `case` of Bash, for a subcommand and those below it.
struct BashArms {
  std::string subcommands;  // "/bench/batch": which words lead to a subcommand
  std::string values;       // "/bench/batch --kv-dtype": what may come after an option
  std::string words;        // "/bench/batch": options, and what may stand alone
};

void AddBashArms(CLI::App* app, const CLI::App* root, const std::string& name, BashArms* out) {
  std::vector<std::string> options;
  Values positional;
  const auto add_values = [&](const CLI::Option* option) {
    std::string patterns;
    for (const std::string& l : option->get_lnames())
      patterns += fmt::format("{}'{} --{}'", patterns.empty() ? "" : "|", name, l);
    for (const std::string& s : option->get_snames()) patterns += fmt::format("|'{} -{}'", name, s);
    out->values += fmt::format("    {}) {}; return ;;\n", patterns, BashReply(ValuesOf(option)));
  };
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_positional() && positional.kind == Kind::kOther) positional = ValuesOf(option);
  }
  for (const CLI::Option* option : NamedOptions(app)) {
    options.push_back("--" + option->get_lnames()[0]);
    if (TakesValue(option)) add_values(option);
  }
  if (app != root) {  // options of the root may stand behind a subcommand too
    options.push_back("--config");
    add_values(root->get_option("--config"));
  }
  const std::vector<std::string> below = SubcommandNames(app);
  const std::string alone = below.empty() ? BashReply(positional)
                                          : BashReply({.kind = Kind::kWords, .words = Join(below)});
  out->words += fmt::format("    '{}') options=\"{}\"; [[ $word == -* ]] || {{ {}; return; }} ;;\n",
                            name, Join(options), alone);
  for (CLI::App* sub : Subcommands(app)) {
    const std::string sub_name = name + "/" + sub->get_name();
    out->subcommands += (out->subcommands.empty() ? "" : "|") + sub_name;
    AddBashArms(sub, root, sub_name, out);
  }
}

/// "--flag=val" comes as three words in bash, which takes '=' for the end of one.
std::string Bash(CLI::App* root) {
  BashArms arms;
  AddBashArms(root, root, "", &arms);
  return fmt::format(
      "_kvasir() {{\n"
      "  local word=\"${{COMP_WORDS[COMP_CWORD]}}\" before=\"\" called=\"\" options=\"\" i\n"
      "  [ \"$COMP_CWORD\" -gt 0 ] && before=\"${{COMP_WORDS[COMP_CWORD-1]}}\"\n"
      "  if [ \"$word\" = \"=\" ]; then\n"
      "    word=\"\"\n"
      "  elif [ \"$before\" = \"=\" ] && [ \"$COMP_CWORD\" -gt 1 ]; then\n"
      "    before=\"${{COMP_WORDS[COMP_CWORD-2]}}\"\n"
      "  fi\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case \"$called/${{COMP_WORDS[i]}}\" in\n"
      "    {}) called=\"$called/${{COMP_WORDS[i]}}\" ;;\n"
      "    esac\n"
      "  done\n"
      "  case \"$called $before\" in\n{}  esac\n"
      "  case \"$called\" in\n{}  esac\n"
      "  COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
      "}}\n"
      "complete -o filenames -F _kvasir kvasir\n",
      arms.subcommands, arms.values, arms.words);
}

std::string Zsh(CLI::App* root) {
  return "#compdef kvasir\nautoload -U +X bashcompinit && bashcompinit\n" + Bash(root);
}

std::string FishQuote(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return "'" + out + "'";
}

/// -r: a value must follow; -x: one that is no file; -F: one that is.
std::string FishValues(const CLI::Option* option) {
  if (!TakesValue(option)) return "";
  const Values values = ValuesOf(option);
  switch (values.kind) {
    case Kind::kWords:
      return " -x -a " + FishQuote(std::string(values.words));
    case Kind::kFile:
    case Kind::kModel:
      return " -r -F";
    case Kind::kOther:
      break;
  }
  return " -x";
}

/// `called`: the names that lead to `app`, such as "bench batch".
void AddFish(CLI::App* app, const std::string& called, std::string* out) {
  const auto line = [&](const char* when, const std::string& what) {
    *out += fmt::format("complete -c kvasir -n '{} {}' {}\n", when, called, what);
  };
  for (const CLI::Option* option : app->get_options()) {
    const Values values = ValuesOf(option);
    if (option->get_positional() && values.kind == Kind::kWords)
      line("__kvasir_has", "-f -a " + FishQuote(std::string(values.words)));
  }
  for (const CLI::Option* option : NamedOptions(app)) {
    line("__kvasir_has", fmt::format("-l {} -d {}{}", option->get_lnames()[0],
                                     FishQuote(option->get_description()), FishValues(option)));
  }
  for (CLI::App* sub : Subcommands(app)) {
    line("__kvasir_is",
         fmt::format("-f -a {} -d {}", sub->get_name(), FishQuote(sub->get_description())));
    AddFish(sub, called.empty() ? sub->get_name() : called + " " + sub->get_name(), out);
  }
}

std::string Fish(CLI::App* root) {
  std::string out =
      "# Whether the words before the cursor begin with these, or are these.\n"
      "function __kvasir_has\n"
      "  set -l words (commandline -opc)\n"
      "  set -e words[1]\n"
      "  test (count $words) -ge (count $argv)\n"
      "  and test \"$words[1..(count $argv)]\" = \"$argv\" -o (count $argv) -eq 0\n"
      "end\n"
      "function __kvasir_is\n"
      "  test (count (commandline -opc)) -eq (math (count $argv) + 1)\n"
      "  and __kvasir_has $argv\n"
      "end\n";
  AddFish(root, "", &out);
  return out;
}

}  // namespace

Command AddCompletionCommand(CLI::App* root) {
  auto shell = std::make_shared<std::string>();
  CLI::App* app = root->add_subcommand("completion",
                                       "Shell completion; bash: source <(kvasir completion bash)");
  app->add_option("shell", *shell, "bash, zsh or fish")->required()->type_name("SHELL");
  return [root, shell]() -> Result<int> {
    if (*shell == "bash")
      WriteOut(Bash(root));
    else if (*shell == "zsh")
      WriteOut(Zsh(root));
    else if (*shell == "fish")
      WriteOut(Fish(root));
    else
      return FlagError("there is no completion for {}; use bash, zsh or fish", *shell);
    return kExitOk;
  };
}

}  // namespace kvasir
