#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "base/result.h"

namespace kvasir {

/// Tells in the help which environment variable sets an option. Not before parsing: CLI11 would
/// take each variable for every subcommand, and one may not fit another's option of the same name.
void NameVariables(CLI::App* root);

/// The variable or the file that set an option; of those that neither the environment nor a file
/// set, nothing.
using SettingOrigins = std::map<const CLI::Option*, std::string>;

/// Sets the options of the subcommand that was called from the environment, where the command line
/// did not: --kv-dtype from KVASIR_KV_DTYPE. An Error names the variable. What Kubernetes sets for
/// a service of our name is left out, and that is said.
Status ApplyEnvironment(CLI::App* root, SettingOrigins* origins);

/// A line on stderr about variables that look like settings and are none: misspelled ones.
void WarnOfUnknownVariables(CLI::App* root);

/// Sets the options that neither the command line nor the environment set from a TOML file: keys
/// are the options' long names, at the top for all subcommands or in a table of a subcommand's
/// name: [serve], [bench.batch]. `path` empty: the config folder's config.toml, if there is one. An
/// unknown key, or a value that does not fit, is an Error that names it; so is a folder that may
/// not be searched.
Status ApplyConfigFile(CLI::App* root, const std::string& path, SettingOrigins* origins);

/// One line, with its newline: the options of the subcommand that was called that have values, and
/// where from. Empty if all have their defaults.
std::string SettingsLine(CLI::App* root, const SettingOrigins& origins);

/// Where `kvasir key` writes and `kvasir serve` looks: keys.toml in the config folder.
std::string DefaultKeyFile();

}  // namespace kvasir
