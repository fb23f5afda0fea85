#pragma once

#include <cstdint>

namespace kvasir {

/// Scores of up to kMaxTiles tiles of 16 consecutive cached tokens: out[r][16 i + t] = q[r] .
/// k[i][t].
struct ScoreArgs {
  static constexpr int32_t kMaxTiles = 4;
  int32_t tiles = 0;
  const uint8_t* k[kMaxTiles] = {};      ///< each tile's K of one head, [channel / pack][16][pack]
  const float* k_scale[kMaxTiles] = {};  ///< int8: of each tile's 16 tokens
  const uint8_t* soon[kMaxTiles] = {};   ///< what will be read after these: as large; may be null
  int32_t channels = 0;                  ///< head_dim, rounded up to KvLayout::pack()
  const float* q = nullptr;              ///< [rows][q_stride], zeros beyond head_dim
  int32_t q_stride = 0;
  int32_t rows = 0;
  float* out = nullptr;  ///< [rows][out_stride], 16 tiles floats of each are written
  int32_t out_stride = 0;
};

/// acc[r][c] += p[r][t] * v[t][c] for the block's tokens t in [begin, end), in order.
struct ValueArgs {
  const uint8_t* v = nullptr;      ///< V of one head in one block
  const float* v_scale = nullptr;  ///< int8: of the block's tokens
  const uint8_t* soon = nullptr;   ///< V that will be read after this: as large; may be null
  int32_t begin = 0, end = 0;
  int32_t block_tokens = 0;
  int32_t head_dim_padded = 0;
  const float* p = nullptr;  ///< [rows][p_stride], indexed by token within the block
  int32_t p_stride = 0;
  int32_t rows = 0;
  float* acc = nullptr;  ///< [rows][head_dim_padded]
};

/// Softmax-weighted values of some positions, before the division by l.
struct RowState {
  float m = 0;           ///< largest score
  float l = 0;           ///< sum of Exp(score - m)
  float* acc = nullptr;  ///< [head_dim_padded]
};

/// Kernels of one instruction set for everything that is not a matrix product with weights. One
/// arithmetic, which the scalar kernels define and every other set repeats bit for bit.
struct VectorKernels {
  /// By KvDType. score: chains of fma over ascending channels, from 0; int8: times the token's
  /// scale at the end. value: chains of fma(p, v, acc) over ascending tokens; int8: fma(p * scale,
  /// v, acc).
  void (*score[4])(const ScoreArgs&) = {};
  void (*value[4])(const ValueArgs&) = {};
  /// For scores s[begin..end) of a split of at most 512: m = max; s = Exp(s - m); l = sum, in 16
  /// lanes (index % 16) of ascending order, then lanes added in halves (8, 4, 2, 1).
  /// Indices count from the split's first position; those outside [begin, end) do not take part,
  /// and s may be overwritten there, in the lanes that begin or end share.
  void (*softmax)(float* s, int32_t begin, int32_t end, float* m, float* l) = nullptr;
  /// Adds the state of other positions, n a multiple of 16: m = max(to.m, from.m); keep = Exp(to.m
  /// - m), take = Exp(from.m - m); l and acc = to * keep + from * take, rounded after each
  /// operation.
  void (*merge)(const RowState& from, int32_t n, RowState* to) = nullptr;
  /// gate[i] = gate[i] / (1 + Exp(-gate[i])) * up[i].
  void (*silu)(float* gate, const float* up, int64_t n) = nullptr;
  /// gate[i] = gate[i] / (1 + Exp(-2 u)) * up[i], u = sqrt(2 / pi) (x + 0.044715 x^3): GELU by
  /// tanh.
  void (*gelu)(float* gate, const float* up, int64_t n) = nullptr;
  /// Rotates one head in place (Su et al. 2021): each pair of channels by its angle, then times
  /// `scale`, rounded after each operation. Pair i is x[i] and x[i + pairs] with `neox`, else x[2
  /// i] and x[2 i + 1].
  void (*rotate)(float* x, int32_t pairs, const float* cos, const float* sin, bool neox,
                 float scale) = nullptr;
  /// out[i] = x[i] as bf16, rounded to nearest even; a NaN stays one.
  void (*to_bf16)(const float* x, int32_t n, uint16_t* out) = nullptr;
};

namespace scalar {
extern const VectorKernels kVector;
/// The exponential that all kernels share: error below 2.5e-7 of the result in [-87.3, 88]; 0
/// below, the value at 88 above; NaN stays NaN.
float Exp(float x);
}  // namespace scalar
#if defined(__x86_64__)
namespace avx2 {
extern const VectorKernels kVector;
}
namespace avx512 {
extern const VectorKernels kVector;
}
#elif defined(__aarch64__)
namespace neon {
extern const VectorKernels kVector;
}
#endif

}  // namespace kvasir
