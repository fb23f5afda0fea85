#pragma once

#include <string>

#include "sim/simulation.h"

namespace kvasir {

/// An SVG with waiting and running sequences, KV blocks by owner (tenants and the cache),
/// the hit rate, and the latencies' p50 and p99 over time.
std::string SimulationPlot(const SimulationResult& result);

}  // namespace kvasir
