#pragma once

#include <string>

#include "sim/simulation.h"

namespace kvasir {

/// Writes an SVG with waiting and running sequences, used and idle blocks, and the hit rate over
/// time.
Status WriteSimulationPlot(const std::string& path, const SimulationResult& result);

}  // namespace kvasir
