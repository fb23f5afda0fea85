#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/emulated_kernels.h"
#include "base/exp_constants.h"

// AMX's attention with plain C++ for the tile instructions and AVX-512, so that machines without
// either test it too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/emulated_avx512-inl.h"
#include "backend/cpu/emulated_tiles-inl.h"

namespace bf16 {
#include "backend/cpu/attention_steps-inl.h"

#include "backend/cpu/attention_bf16-inl.h"

#include "backend/cpu/attention_bf16_amx-inl.h"
}  // namespace bf16

namespace int8 {
#include "backend/cpu/attention_steps-inl.h"

#include "backend/cpu/attention_int8-inl.h"

#include "backend/cpu/attention_int8_amx-inl.h"

void Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  PackQueries(q, rows, head_dim_padded, to, 0);
}
}  // namespace int8

}  // namespace

const AttentionKernels kTileAttention = {
    {{}, {}, {bf16::Bf16Queries, bf16::Bf16Split}, {int8::Queries, int8::Split8}}};

}  // namespace kvasir::emulated
