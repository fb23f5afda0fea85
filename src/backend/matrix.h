#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"
#include "tensor/dtype.h"

namespace kvasir {

/// A weight matrix in a backend's own packed order; `rows` outputs, `cols` inputs. Made by
/// Backend::Pack; owns its bytes.
struct Matrix {
  DType source = DType::kF32;  ///< its format in the file
  int64_t rows = 0;            ///< n: output features
  int64_t cols = 0;            ///< k: input features
  int32_t format = 0;          ///< the backend's own number of the packed format
  AlignedBuffer data;

  size_t bytes() const { return data.size(); }
};

}  // namespace kvasir
