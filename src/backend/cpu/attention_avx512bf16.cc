#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "base/exp_constants.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx512bf16 {
namespace {

#include "backend/cpu/attention_avx512bf16-inl.h"

}  // namespace

const AttentionKernels kAttention = {
    {{}, {}, {Bf16Queries, Bf16Split}, {avx512::Int8Queries, avx512::Int8Split}}};

}  // namespace kvasir::avx512bf16
