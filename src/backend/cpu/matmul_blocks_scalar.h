#pragma once

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The faster mode's arithmetic in plain C++, the same beside both others.
namespace kvasir::scalar {

template <PackFormat F>
void BlockPanels(const PanelArgs& a);
void QuantizeBlocks(const float* x, int64_t k, int64_t row, const ByteBlocks& out);

}  // namespace kvasir::scalar
