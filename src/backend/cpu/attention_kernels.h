#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/vector_kernels.h"

namespace kvasir {

/// Attention is computed in splits of this many positions, cut at absolute multiples of it: a
/// multiple of every block size. Scores of 32 rows stay in the cache, and one sequence of a few
/// thousand tokens already has work for every core.
inline constexpr int32_t kSplitTokens = 512;
/// Most rows of one split: (token, head of the GQA group) pairs that read the same K and V.
inline constexpr int32_t kSplitRows = 32;

/// Memory of one worker for the queries of a split's rows as its kernel wants them, and for
/// everything else it needs.
constexpr size_t SplitQueryBytes(int32_t head_dim_padded) {
  return size_t{kSplitRows} * static_cast<size_t>(head_dim_padded + 64) * sizeof(float);
}
inline constexpr size_t kSplitScratchBytes = (size_t{kSplitRows} * kSplitTokens + 4096) * 4;

/// K and V of one split of a sequence: a layer and head within each of its blocks.
struct SplitBlocks {
  const uint8_t* blocks[kSplitTokens / 16] = {};  ///< by token / block_tokens, null where none is
  size_t k_offset = 0, v_offset = 0;              ///< of K and V within a block
  size_t k_scale_offset = 0, v_scale_offset = 0;  ///< int8: of the scales
};

/// Attention of some rows to one split of a sequence, before the division by l.
struct SplitArgs {
  SplitBlocks kv;
  int32_t block_tokens = 0;
  int32_t head_dim_padded = 0;
  int32_t channels = 0;  ///< head_dim, rounded up to KvLayout::pack()

  // The rows.
  int32_t rows = 0;                ///< at most kSplitRows
  const uint8_t* q = nullptr;      ///< as `queries` left it
  const int32_t* begin = nullptr;  ///< [rows] what each attends to, counted from the split's start:
  const int32_t* end = nullptr;    ///< [rows] begin = end where nothing
  int32_t least = 0, most = 0;     ///< of all rows that attend to something; least < most

  // What this thread will likely compute next, to be prefetched: its tokens, counted from the start
  // of its split.
  SplitBlocks after;
  int32_t after_begin = 0, after_end = 0;

  // Results. m is -inf and l is 0 for a row that attends to nothing.
  float* m = nullptr;    ///< [kSplitRows] maximum of the row's scores
  float* l = nullptr;    ///< [kSplitRows] sum of exp(score - m)
  float* acc = nullptr;  ///< [kSplitRows][head_dim_padded] sum of exp(score - m) v

  uint8_t* scratch = nullptr;             ///< kSplitScratchBytes, 64-byte aligned
  const VectorKernels* vector = nullptr;  ///< what the f32 way is made of
};

/// One way to compute a split of one KvDType.
struct SplitKernel {
  /// `rows` queries [rows][head_dim_padded] as f32, zeros beyond head_dim, into SplitArgs::q.
  void (*queries)(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) = nullptr;
  void (*split)(const SplitArgs&) = nullptr;
};

/// Packed queries of int8: high bytes (signed) as [channel / 64][kSplitRows][channel % 64], low
/// bytes (unsigned) likewise, then a scale for each row.
constexpr size_t Int8QueryBytes(int32_t head_dim_padded) {
  return static_cast<size_t>((head_dim_padded + 63) / 64) * kSplitRows * 64;
}

/// By KvDType; null where kFloatAttention's is to be used. (See kMostInt8Channels, too.)
struct AttentionKernels {
  SplitKernel of[4];
};

/// In f32, by the score, softmax and value kernels of SplitArgs::vector: the same bits on every
/// instruction set that uses it.
extern const AttentionKernels kFloatAttention;

/// bf16 and int8 as matrix instructions compute them, int8 in AVX-512 with VNNI too. The scalar
/// kernels define the arithmetic. In both a split is taken in steps of kStepTokens absolute
/// positions, 2^t is the polynomial of kPow2a, and l is summed in 16 lanes (index % 16) of
/// ascending order, then lanes in halves.
///
/// bf16: q is rounded to bf16. Products are added up in f32: of kTileAttention those of TDPBF16PS
/// (TileDotBf16) over 32 channels (the last may be 16), of kPairAttention those of VDPBF16PS
/// (PairDotBf16), pairs of channels or tokens in order. m is the
/// maximum of the first step that the row attends to; where a later one's is above m + kRaise, m
/// becomes that, and l and acc are taken times 2^t(m before). t(s) = fma(s, log2 e, -(m log2 e)),
/// without m while it is -inf; p = 2^t(s), 0 outside [begin, end). Values: p rounded to bf16,
/// products over 32 tokens at absolute multiples of 32.
///
/// int8: q becomes 16-bit integers by its largest absolute value; its products with k are exact;
/// score = float(product) * q's scale * k's scale. Each step has its own maximum and p <= 1.
/// Weights p * v's scale become 16-bit integers by the largest scale of v that the row attends to
/// in the step; their products with v are exact. Steps merge as splits do: the running l and acc
/// times 2^((m - new m) log2 e), plus the step's times 2^((its m - new m) log2 e).
namespace scalar {
extern const AttentionKernels kTileAttention, kPairAttention;
}
#if defined(__x86_64__)
namespace avx512 {
/// int8 alone.
extern const AttentionKernels kAttention;
void Int8Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to);
void Int8Split(const SplitArgs& a);
}  // namespace avx512
namespace avx512bf16 {
/// bf16 and int8.
extern const AttentionKernels kAttention;
}  // namespace avx512bf16
namespace amx {
extern const AttentionKernels kTileAttention;
void Int8Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to);
void Int8Split(const SplitArgs& a);
}  // namespace amx
#endif

/// Scores of 32 rows, keys and values of a step fit in the first cache.
inline constexpr int32_t kStepTokens = 128;
/// Weights may be up to e^kRaise, so that m (and with it all sums) rarely changes once it is set.
inline constexpr float kRaise = 8.0f;

/// int8: the largest 16-bit integers that a query and a weight become.
inline constexpr float kInt8Query = 32767.0f, kInt8Weight = 65535.0f;

/// int8: the channels whose products a sum of 32 bits surely holds, also that of the queries' high
/// bytes alone. Wider heads are computed by kFloatAttention on every instruction set.
inline constexpr int32_t kMostInt8Channels = 512;
static_assert(int64_t{kMostInt8Channels} * 127 * 32768 <= INT32_MAX);
static_assert(int64_t{kStepTokens} * 127 * 65535 <= INT32_MAX);

/// 2^t = 2^floor(t) (1 + r (kPow2a + r (kPow2b + r kPow2c))), r = t - floor(t)
/// rounded down: relative error at
/// most 8.6e-5, a fortieth of what rounding to bf16 may take.
inline constexpr float kPow2a = 0.6951168179512024f;
inline constexpr float kPow2b = 0.22764497995376587f;
inline constexpr float kPow2c = 0.0770670548081398f;

}  // namespace kvasir
