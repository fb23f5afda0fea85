#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/tiles.h"
#include "base/exp_constants.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::amx {
namespace {

#include "backend/cpu/attention_steps-inl.h"

#include "backend/cpu/attention_bf16-inl.h"

#include "backend/cpu/attention_bf16_amx-inl.h"

}  // namespace

const AttentionKernels kTileAttention = {
    {{}, {}, {Bf16Queries, Bf16Split}, {Int8Queries, Int8Split}}};

}  // namespace kvasir::amx
