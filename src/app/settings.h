#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"

namespace kvasir {

/// Lets every option be set by an environment variable: --kv-dtype by KVASIR_KV_DTYPE.
void UseEnvironment(CLI::App* root);

/// Sets the options that neither the command line nor the environment set from a TOML file: keys
/// are the options' long names, at the top for all subcommands or in a table of a subcommand's
/// name. `path` empty: the config folder's config.toml, if there is one. An unknown key, or a value
/// that does not fit, is an Error that names it; so is a folder that may not be searched.
Status ApplyConfigFile(CLI::App* root, const std::string& path);

/// Where `kvasir key` writes and `kvasir serve` looks: keys.toml in the config folder.
std::string DefaultKeyFile();

}  // namespace kvasir
