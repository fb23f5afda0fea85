#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "base/exp_constants.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx512 {
namespace {

#include "backend/cpu/attention_int8_avx512-inl.h"

}  // namespace

void Int8Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  ByteQueries(q, rows, head_dim_padded, to);
}

void Int8Split(const SplitArgs& a) { ByteSplit(a); }

const AttentionKernels kAttention = {{{}, {}, {}, {Int8Queries, Int8Split}}};

}  // namespace kvasir::avx512
