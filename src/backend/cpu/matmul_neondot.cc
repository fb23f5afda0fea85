#include <arm_neon.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// AArch64 with dot products (FEAT_DotProd: nearly all since 2018): sixteen multiply-adds an
// instruction. Only intrinsics and this namespace: nothing compiled here may replace a baseline
// function.
namespace kvasir::neondot {
namespace {

#include "backend/cpu/matmul_neon-inl.h"

struct Dots {
  static constexpr int kSums = 1, kRows = 4;

  template <int J>
  static KV_INLINE void Add(int8x16_t w, int8x16_t x, int32x4_t sums[1]) {
    sums[0] = vdotq_laneq_s32(sums[0], w, x, J);
  }
  static KV_INLINE int32x4_t Total(const int32x4_t sums[1]) { return sums[0]; }
};

/// Registers that an asm statement claims to change cannot be computed ahead of it.
uint64_t Int8Peak(int64_t rounds) {
  int32x4_t acc[8];
  for (int32x4_t& v : acc) v = vdupq_n_s32(0);
  int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8(2);
  for (int64_t i = 0; i < rounds; ++i) {
    for (int32x4_t& v : acc) v = vdotq_s32(v, a, b);
    asm volatile("" : "+w"(a), "+w"(b));
  }
  for (int32x4_t& v : acc) asm volatile("" : "+w"(v));
  return static_cast<uint64_t>(rounds) * 8 * 16 * 2;
}

}  // namespace

constinit const MatMulKernels kMatMul = KernelsOf<Dots>(Int8Peak);

}  // namespace kvasir::neondot
