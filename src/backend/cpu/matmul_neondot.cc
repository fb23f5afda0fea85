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

uint64_t Int8Peak(int64_t rounds) {
  return Peak(rounds, vdupq_n_s32(0), vdupq_n_s8(1), vdupq_n_s8(2), 16,
              [](auto sum, auto a, auto b) KV_LAMBDA { return vdotq_s32(sum, a, b); });
}

}  // namespace

constinit const MatMulKernels kMatMul = KernelsOf<Dots>(Int8Peak);

}  // namespace kvasir::neondot
