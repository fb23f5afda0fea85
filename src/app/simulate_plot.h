#pragma once

#include <string>

#include "sim/simulation.h"

namespace kvasir {

/// Writes an SVG with waiting and running sequences, KV blocks by owner (tenants and the cache),
/// the hit rate, and the latencies' p50 and p99 over time.
Status WriteSimulationPlot(const std::string& path, const SimulationResult& result);

}  // namespace kvasir
