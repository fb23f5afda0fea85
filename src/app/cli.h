#pragma once

namespace kvasir {

/// The whole program: reads flags, environment and config file, runs the subcommand. Returns the
/// exit code.
int RunCommandLine(int argc, char** argv);

}  // namespace kvasir
