#include <fmt/format.h>

#include <algorithm>

#include "app/commands.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

std::vector<CLI::App*> Subcommands(CLI::App* root) {
  return root->get_subcommands([](CLI::App*) { return true; });
}

std::vector<std::string> LongOptions(const CLI::App* app) {
  std::vector<std::string> out;
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) out.push_back("--" + name);
  }
  return out;
}

std::string Join(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : " ") + item;
  return out;
}

std::string Names(CLI::App* root) {
  std::vector<std::string> names;
  for (const CLI::App* app : Subcommands(root)) names.push_back(app->get_name());
  return Join(names);
}

/// Models of the model folder, and files.
constexpr char kModels[] = "$(ls \"${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models\" 2>/dev/null)";

std::string Bash(CLI::App* root) {
  std::string cases;
  for (const CLI::App* app : Subcommands(root)) {
    cases += fmt::format("    {}) words=\"{}\" ;;\n", app->get_name(), Join(LongOptions(app)));
  }
  return fmt::format(
      "_kvasir() {{\n"
      "  local word=\"${{COMP_WORDS[COMP_CWORD]}}\" words\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case \"${{COMP_WORDS[1]}}\" in\n{}"
      "  esac\n"
      "  case \"$word\" in\n"
      "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$word\")) ;;\n"
      "    *) COMPREPLY=($(compgen -W \"{}\" -- \"$word\") $(compgen -f -- \"$word\")) ;;\n"
      "  esac\n"
      "}}\n"
      "complete -o filenames -F _kvasir kvasir\n",
      Names(root), cases, kModels);
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

std::string Fish(CLI::App* root) {
  std::string out;
  for (const CLI::App* app : Subcommands(root)) {
    out += fmt::format("complete -c kvasir -n __fish_use_subcommand -f -a {} -d {}\n",
                       app->get_name(), FishQuote(app->get_description()));
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        out += fmt::format("complete -c kvasir -n '__fish_seen_subcommand_from {}' -l {} -d {}{}\n",
                           app->get_name(), name, FishQuote(option->get_description()),
                           option->get_type_size() == 0 ? "" : " -r");
      }
    }
  }
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
