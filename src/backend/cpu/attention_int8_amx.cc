#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/tiles.h"
#include "base/exp_constants.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::amx {
namespace {

#include "backend/cpu/attention_steps-inl.h"

#include "backend/cpu/attention_int8-inl.h"

#include "backend/cpu/attention_int8_amx-inl.h"

}  // namespace

void Int8Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  PackQueries(q, rows, head_dim_padded, to, 0);
}

void Int8Split(const SplitArgs& a) { Split8(a); }

}  // namespace kvasir::amx
