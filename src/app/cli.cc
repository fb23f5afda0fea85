#include "app/cli.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <new>
#include <sstream>
#include <string>
#include <system_error>

#include "app/commands.h"
#include "app/flag_errors.h"
#include "app/settings.h"
#include "app/terminal.h"
#include "base/mapped_file.h"
#include "base/memory_limits.h"

namespace kvasir {
namespace {

constexpr char kAbout[] =
    "Kvasir runs language models on this machine, around an exact KV cache.\n"
    "Try: kvasir run, kvasir run -p \"Why is the sky blue?\", kvasir explain -p \"Hello\" --step "
    "50";
constexpr char kFooter[] =
    "Options can be set by environment variables (--kv-dtype: KVASIR_KV_DTYPE; each help names "
    "its own)\n"
    "and in a TOML file (--config, or kvasir/config.toml in the config folder). Flags count over\n"
    "environment over file. Exit codes: 0 done, 1 an error, 2 wrong flags or settings, 130 "
    "interrupted.";

/// Where a value in the message is from, if not from the command line: " (--ctx is from
/// KVASIR_CTX)".
std::string OriginOf(const std::string& message, const SettingOrigins& origins) {
  for (const auto& [option, from] : origins) {
    for (const std::string& name : option->get_lnames()) {
      const size_t at = message.find("--" + name);
      if (at == std::string::npos) continue;
      const char after = message.c_str()[at + 2 + name.size()];
      if (after != '-' && std::isalnum(static_cast<unsigned char>(after)) == 0)
        return fmt::format(" (--{} is from {})", name, from);
    }
  }
  return "";
}

int Fail(const Error& error, const SettingOrigins& origins) {
  PrintError(error.in_flags ? error.message + OriginOf(error.message, origins) : error.message);
  if (error.in_flags) return kExitUsage;
  return error.code == ErrorCode::kCancelled ? kExitInterrupted : kExitError;
}

/// The option of the subcommand that was called whose value did not fit, and that value.
std::string ConversionText(CLI::App* app, const CLI::ParseError& error) {
  const std::string what = error.what();
  for (CLI::Option* option : app->get_options()) {
    const std::string before = "Could not convert: " + option->get_name() + " = ";
    if (what.starts_with(before)) return WhyNotTaken(option, what.substr(before.size()));
  }
  return what;
}

/// What is wrong with the command line, and where to read on. CLI11 says "A subcommand is required"
/// of `kvasir foo` too.
std::string UsageText(CLI::App* root, const CLI::ParseError& error,
                      const std::vector<std::string>& arguments) {
  std::string name = "kvasir";
  CLI::App* app = root;
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands()[0];
    name += " " + app->get_name();
  }
  const std::vector<std::string> unknown = root->remaining(true);
  const bool has_subcommands = !app->get_subcommands([](const CLI::App*) { return true; }).empty();
  std::string what = ForeignFlagHint(arguments);
  if (what.empty()) {
    what = has_subcommands && !unknown.empty()
               ? fmt::format("{} has no subcommand or option {}", name, unknown[0])
               : ConversionText(app, error);
  }
  if (name == "kvasir run" && !unknown.empty() && !unknown[0].starts_with('-'))
    what += "; a prompt goes after -p";
  return fmt::format("{}; see {} --help", what, name);
}

/// `kvasir help run` as `kvasir run --help`.
std::vector<std::string> WithoutHelp(std::vector<std::string> arguments) {
  if (arguments.empty() || arguments[0] != "help") return arguments;
  arguments.erase(arguments.begin());
  arguments.push_back("--help");
  return arguments;
}

/// The subcommand that was called: `batch` of `bench batch`.
CLI::App* Called(CLI::App* root) {
  while (!root->get_subcommands().empty()) root = root->get_subcommands()[0];
  return root;
}

Status CheckNumbers(CLI::App* root) {
  for (CLI::Option* option : Called(root)->get_options()) {
    const std::string wrong = ReadAsAnother(option);
    if (!wrong.empty()) return FlagError("{}", wrong);
  }
  return {};
}

int Run(const std::vector<std::string>& arguments) {
  CLI::App root(kAbout, "kvasir");
  root.footer(kFooter);
  root.set_version_flag("--version", "kvasir " KVASIR_VERSION);
  root.require_subcommand(1);
  root.fallthrough();
  root.get_formatter()->column_width(34);
  std::string config;
  root.add_option("--config", config, "TOML file of options")
      ->type_name("FILE")
      ->envname("KVASIR_CONFIG");
  SettingOrigins origins;
  std::map<std::string, Command> commands;
  commands["run"] = AddRunCommand(&root);
  commands["explain"] = AddExplainCommand(&root);
  commands["plan"] = AddPlanCommand(&root);
  commands["bench"] = AddBenchCommand(&root);
  commands["batch"] = AddBatchCommand(&root);
  commands["serve"] = AddServeCommand(&root, &origins);
  commands["key"] = AddKeyCommand(&root);
  commands["simulate"] = AddSimulateCommand(&root);
  commands["show"] = AddShowCommand(&root);
  commands["tokenize"] = AddTokenizeCommand(&root);
  commands["perplexity"] = AddPerplexityCommand(&root);
  commands["doctor"] = AddDoctorCommand(&root);
  commands["completion"] = AddCompletionCommand(&root);
  try {
    std::vector<std::string> last_first(arguments.rbegin(), arguments.rend());
    root.parse(last_first);
  } catch (const CLI::Success& asked) {  // --help, --version
    NameVariables(&root);
    std::ostringstream text;
    const int code = root.exit(asked, text, text);
    WriteOut(text.str());
    return code;
  } catch (const CLI::ParseError& error) {
    PrintError(UsageText(&root, error, arguments));
    return kExitUsage;
  }
  Status status = ApplyEnvironment(&root, &origins);
  if (status.ok()) status = ApplyConfigFile(&root, config, &origins);
  if (!status.ok()) {
    PrintError(status.error().message);
    return kExitUsage;
  }
  status = CheckNumbers(&root);
  if (!status.ok()) return Fail(status.error(), origins);
  WarnOfUnknownVariables(&root);
  const Result<int> result = commands.at(root.get_subcommands()[0]->get_name())();
  return result.ok() ? *result : Fail(result.error(), origins);
}

/// Of stdin, stdout and stderr. What is opened next would take the place of one that is closed, and
/// be written to for it. To read from and to write to them is an error as before.
void FillClosedDescriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) == -1 && errno == EBADF)
      open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace

int RunCommandLine(int argc, char** argv) {
  FillClosedDescriptors();
  signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write
  MappedFile::EndProcessWhereLost();
  ShareHeapWhereAddressesAreLimited();
  try {
    const int code = Run(WithoutHelp({argv + 1, argv + argc}));
    if (OutputError() == 0 || code == kExitError) return code;  // one line says why
    PrintError(fmt::format("cannot write to standard output: {}", std::strerror(OutputError())));
  } catch (const std::bad_alloc&) {
    PrintError("out of memory; lower --ctx, or see kvasir plan");
  } catch (const std::system_error& error) {
    PrintError(
        fmt::format("the system gave no thread ({}); raise the limit on memory or processes "
                    "(ulimit -v, ulimit -u), or lower --threads",
                    error.code().message()));
  }
  return kExitError;
}

}  // namespace kvasir
