#pragma once

#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace kvasir {

/// Widens `out.size()` consecutive elements of any format to f32; `out.size()` is a multiple of the
/// format's block. This is the meaning of each format, bit for bit what the `gguf` package gives;
/// the kernels' packed weights are made from the same block structures (tensor/blocks.h).
void Dequantize(DType dtype, const uint8_t* data, std::span<float> out);

}  // namespace kvasir
