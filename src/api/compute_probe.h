#pragma once

#include "api/loaded_model.h"
#include "base/clock.h"

namespace kvasir {

/// GFLOP/s that the model's own first up-projection reaches with as many rows as a step takes: what
/// matrix work can reach here, in the arithmetic that prefill uses. 0 when there is no memory for
/// it.
double ComputeProbe(LoadedModel* model, const Clock* clock);

}  // namespace kvasir
