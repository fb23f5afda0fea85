#include <arm_neon.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// AArch64's baseline: no dot-product instructions, so products are made in 16 bits and added in
// pairs to 32.
namespace kvasir::neon {
namespace {

#include "backend/cpu/matmul_neon-inl.h"

struct Dots {
  static constexpr int kSums = 2, kRows = 2;

  /// |s8 x s8| is at most 16384, so a product fits 16 bits.
  template <int J>
  static KV_INLINE void Add(int8x16_t w, int8x16_t x, int32x4_t sums[2]) {
    const int8x8_t quad = vreinterpret_s8_s32(vdup_laneq_s32(vreinterpretq_s32_s8(x), J));  // twice
    sums[0] = vpadalq_s16(sums[0], vmull_s8(vget_low_s8(w), quad));
    sums[1] = vpadalq_s16(sums[1], vmull_s8(vget_high_s8(w), quad));
  }
  static KV_INLINE int32x4_t Total(const int32x4_t sums[2]) { return vpaddq_s32(sums[0], sums[1]); }
};

uint64_t Int8Peak(int64_t rounds) {
  return Peak(rounds, vdupq_n_s32(0), vdup_n_s16(1), vdup_n_s16(2), 4,
              [](auto sum, auto a, auto b) KV_LAMBDA { return vmlal_s16(sum, a, b); });
}

}  // namespace

constinit const MatMulKernels kMatMul = KernelsOf<Dots>(Int8Peak);

}  // namespace kvasir::neon
