#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "app/settings.h"
#include "base/result.h"

namespace kvasir {

// Exit codes, as documented in the README.
inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;          ///< the work could not be done; one line says why
inline constexpr int kExitUsage = 2;          ///< wrong flags or settings
inline constexpr int kExitInterrupted = 130;  ///< Ctrl-C

/// What a subcommand does once its flags are read: an exit code, or an error to print.
using Command = std::function<Result<int>()>;

// Each adds one subcommand with its flags to `root` and gives what it does.
Command AddRunCommand(CLI::App* root);
Command AddExplainCommand(CLI::App* root);
Command AddBenchCommand(CLI::App* root);
Command AddBatchCommand(CLI::App* root);
Command AddServeCommand(CLI::App* root, const SettingOrigins* origins);
Command AddKeyCommand(CLI::App* root);
Command AddSimulateCommand(CLI::App* root);
Command AddShowCommand(CLI::App* root);
Command AddTokenizeCommand(CLI::App* root);
Command AddPlanCommand(CLI::App* root);
Command AddDoctorCommand(CLI::App* root);
Command AddPerplexityCommand(CLI::App* root);
Command AddCompletionCommand(CLI::App* root);

}  // namespace kvasir
