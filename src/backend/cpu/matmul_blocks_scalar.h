#pragma once

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The faster mode's arithmetic in plain C++, the same beside both others.
namespace kvasir::scalar {

/// What makes bytes of activations: d = max|x| / 127, and its inverse; 0 where all bytes are 0, for
/// x are zeros, or so small that the inverse overflows, or one is a NaN or an infinity, when d is
/// NaN.
struct ByteScale {
  float d, inverse;
};
ByteScale ByteScaleOf(const float* x, int64_t count);
/// Rounded to nearest even.
int32_t ToByte(float x, float inverse);

template <PackFormat F>
void BlockPanels(const PanelArgs& a);
void QuantizeBlocks(const float* x, InputPart part, int64_t row, const ByteBlocks& out);

}  // namespace kvasir::scalar
