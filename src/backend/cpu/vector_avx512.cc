#define HWY_COMPILE_ONLY_STATIC
#include <hwy/highway.h>

#include "backend/cpu/vector_kernels.h"
#include "base/exp_constants.h"
#include "kv/layout.h"

namespace kvasir::avx512 {
namespace {

#include "backend/cpu/vector-inl.h"

}  // namespace

const VectorKernels kVector = {
    {Score<KvDType::kF32>, Score<KvDType::kF16>, Score<KvDType::kBF16>, Score<KvDType::kInt8>},
    {Value<KvDType::kF32>, Value<KvDType::kF16>, Value<KvDType::kBF16>, Value<KvDType::kInt8>},
    Softmax,
    Merge,
    Silu,
    Gelu,
    Rotate,
    ToBf16};

}  // namespace kvasir::avx512
