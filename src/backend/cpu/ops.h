#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/vector_kernels.h"

namespace kvasir {

/// Row-wise operations in plain C++, compiled for the baseline, and by vector kernels: no fused
/// multiply-add, fixed orders, so they have the same bits on every machine. They are a few percent
/// of a step.

/// As Backend::RmsNorm, for one row. The squares are added in 16 lanes (index % 16) of ascending
/// order, the lanes in halves; then out = (x * (1 / sqrt(mean + eps))) * weight.
void RmsNormRow(const float* x, int32_t dim, const float* weight, float eps, float* out, bool add);

/// As Backend::RopeAppend, for one row of one slice.
void RopeAppendRow(const RopeAppendArgs& args, int32_t slice, int32_t row,
                   const VectorKernels& kernels);

}  // namespace kvasir
