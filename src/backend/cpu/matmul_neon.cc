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

/// Registers that an asm statement claims to change cannot be computed ahead of it.
uint64_t Int8Peak(int64_t rounds) {
  int32x4_t acc[8];
  for (int32x4_t& v : acc) v = vdupq_n_s32(0);
  int16x4_t a = vdup_n_s16(1), b = vdup_n_s16(2);
  for (int64_t i = 0; i < rounds; ++i) {
    for (int32x4_t& v : acc) v = vmlal_s16(v, a, b);
    asm volatile("" : "+w"(a), "+w"(b));
  }
  for (int32x4_t& v : acc) asm volatile("" : "+w"(v));
  return static_cast<uint64_t>(rounds) * 8 * 4 * 2;
}

}  // namespace

constinit const MatMulKernels kMatMul = KernelsOf<Dots>(Int8Peak);

}  // namespace kvasir::neon
