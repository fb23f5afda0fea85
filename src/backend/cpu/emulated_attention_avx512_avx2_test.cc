#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/emulated_kernels.h"
#include "base/exp_constants.h"

// The attention of AVX-512, and of AVX512-BF16, with AVX2's instructions, so that machines without
// them test it too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/emulated_avx512-inl.h"

namespace bf16 {
#include "backend/cpu/attention_avx512bf16-inl.h"
}  // namespace bf16

namespace int8 {
#include "backend/cpu/attention_int8_avx512-inl.h"
}  // namespace int8

}  // namespace

const AttentionKernels kVnniAttention = {{{}, {}, {}, {int8::ByteQueries, int8::ByteSplit}}};
const AttentionKernels kPairAttention = {{{}, {}, {bf16::Bf16Queries, bf16::Bf16Split}, {}}};

}  // namespace kvasir::emulated
