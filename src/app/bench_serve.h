#pragma once

#include "app/commands.h"

namespace kvasir {

/// Adds `bench serve` to `bench`, and gives what it does.
Command AddBenchServe(CLI::App* bench);

}  // namespace kvasir
