#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/pack.h"

namespace kvasir {

// Activations as operands of bf16 tiles (AMX): blocks of 16 rows (the last one padded with zeros),
// and groups of 32 inputs (the last one padded with zeros). A tile is one group of one block,
// [16 rows][32] bf16, 1 KiB. Tiles lie by slabs of kSlabGroups groups: [slab][block][group], so
// that what a pass over one slab reads is one run of memory.
inline constexpr int64_t kTileBytes = 1024;
inline constexpr int64_t kTileRows = 16;
/// 512 inputs: of two panels they are 32 KiB, which stay in the first level cache while activations
/// pass it by. With 8 groups 128 rows had 0.85 times the speed and 512 rows the same, with 32 0.75
/// times; with activations in the first level too, 16 groups had 0.7 times (Xeon with AMX,
/// 2026-11-25; microbenchmark of 2048 x 8192 Q4_0).
inline constexpr int64_t kSlabGroups = 16;
/// Byte offset of a tile of activations.
constexpr size_t TileOffset(int64_t block, int64_t group, int64_t blocks, int64_t groups) {
  const int64_t slab = group / kSlabGroups, first = slab * kSlabGroups;
  const int64_t width = groups - first < kSlabGroups ? groups - first : kSlabGroups;
  return static_cast<size_t>(first * blocks + block * width + group - first) * kTileBytes;
}

/// In which order the inputs of a group are the 32 columns of a tile.
enum class TileOrder {
  kAscending,  ///< bf16 weights
  /// Quantized weights: what masks and shifts of packed 16-bit words give. Columns 2 p, 2 p + 1
  /// with p = 4 j + s hold inputs 4 j + c, 4 j + c + 2, c = {0, 16, 1, 17}[s].
  kPacked,
};

/// Inputs [begin, end) of rows of k: what is converted at a time. begin is a multiple of what
/// shares a scale or a tile, and end, too, or k.
struct InputPart {
  int64_t k = 0, begin = 0, end = 0;
};

// Activations of the faster mode: int8 with a scale for kBlock = 256 inputs, as tiles of 16 rows
// and 64 inputs (the last ones padded), [block of rows][64 inputs][16][64] bytes.
inline constexpr int64_t kByteTileInputs = 64;
constexpr int64_t ByteTiles(int64_t k) { return (k + kByteTileInputs - 1) / kByteTileInputs; }
/// Where they lie: the tiles of `rows` rows, then the scales, then the sums for their groups.
struct ByteBlocks {
  int8_t* q = nullptr;
  float* d = nullptr;      ///< [rows][blocks of 256]
  int32_t* sum = nullptr;  ///< [rows][groups of 32]
};

/// Arguments of a product of some rows with consecutive panels of a packed matrix (pack.h). A leaf:
/// pointers and strides only.
struct PanelArgs {
  const uint8_t* weights = nullptr;  ///< the first panel
  size_t panel_bytes = 0;
  int64_t k = 0;  ///< inputs
  int32_t panels = 0;
  int64_t columns = 0;  ///< valid output columns from the first panel on
  int64_t rows = 0;
  // Quantized formats: the activations as QuantizeRow made them, consecutive rows.
  const int8_t* q = nullptr;     ///< [rows][k]
  const float* d = nullptr;      ///< [rows][k / 32]
  const int32_t* sum = nullptr;  ///< [rows][k / 32][2]
  // Formats in tiles: the activations as `to_tiles` made them, of which these rows begin with block
  // `first_block` of `tile_blocks`.
  const uint8_t* tiles = nullptr;
  int64_t first_block = 0, tile_blocks = 0;
  uint8_t* scratch = nullptr;  ///< of this thread: TileScratchBytes, 64-byte aligned
  // bf16 weights in pairs: the activations as `to_pairs` made them, consecutive rows of PairBytes.
  const uint8_t* pairs = nullptr;
  // Formats of the faster mode: tiles of bytes with `d` [rows][blocks] and `sum` [rows][k / 32], of
  // which these rows begin with block `first_block`.
  const int8_t* byte_tiles = nullptr;
  // Float formats: the activations as they are.
  const float* x = nullptr;
  int64_t x_stride = 0;
  // out[r][c] = product (+ bias[c]) (+ what was there, with add)
  float* out = nullptr;
  int64_t out_stride = 0;
  const float* bias = nullptr;
  bool add = false;
};

/// Activations of a row as bf16, rounded to nearest even, subnormal ones as zero; to an odd number
/// of inputs comes a zero.
constexpr size_t PairBytes(int64_t k) { return static_cast<size_t>((k + 1) / 2) * 4; }

/// The kernels of one instruction set, in one of three arithmetics, each of which a scalar table
/// defines and the others repeat bit for bit.
///
/// Integers (scalar::kMatMul): activations are int8 in groups of 32. acc = 0; for each group of 32
/// inputs in order (for each half of it, where the format has scales for halves): acc =
/// fma(float(sum of q_w * q_x), d_w * d_x, acc), and with a minimum then acc = fma(m_w, d_x *
/// float(sum of q_x), acc). The inner sums are exact integers. Floats: acc = 0; for each input in
/// order acc = fma(w, x, acc).
///
/// Pairs (scalar::kMatMulPairs, and AVX512-BF16): as in integers, but for bf16 weights, whose
/// activations are bf16 too: acc = 0; for each pair of inputs in order acc = fma(w[1], x[1], acc),
/// acc = fma(w[0], x[0], acc), as VDPBF16PS has it (Intel SDM vol. 2); all subnormal numbers are
/// zero.
///
/// Tiles (scalar::kMatMulTiles, and AMX): quantized and bf16 weights are products of bf16 numbers
/// in the order of TDPBF16PS (Intel SDM vol. 2): acc = 0; for each group of 32 inputs in order:
/// even = 0, odd = 0; for each pair of columns of the tile even = fma(w[0], x[0], even), odd =
/// fma(w[1], x[1], odd); acc = acc + (even + odd); all subnormal numbers are zero. A quantized
/// weight w = d q + m becomes bf16 by one rounding of d q + m to f16 (11 bits) and one to bf16 (8
/// bits, halves away from zero); see TileWeight in matmul_tiles_scalar.cc. With a minimum q of four
/// bits is taken 8 smaller, from -8 to 7, and m is d 8 + m rounded to f16. f16 and f32 weights are
/// computed as above.
///
/// Blocks (the faster mode; all arithmetics have it): acc = 0; for each block of 256 inputs in
/// order acc = fma(float(sum of q_w * q_x), d_w * d_x, acc). The sums are exact integers.
///
/// Then acc + bias, then (what was there) + that.
struct MatMulKernels {
  using Quantize = void (*)(const float* x, int64_t k, int8_t* q, float* d, int32_t* sum);
  using Panels = void (*)(const PanelArgs&);
  /// A part of block `block` of `blocks` of 16 rows as tiles in `out`. x [rows][x_stride] are the
  /// rows of this block that exist, from input `begin` on.
  using ToTiles = void (*)(const float* x, int64_t x_stride, int64_t rows, InputPart part,
                           TileOrder order, int64_t block, int64_t blocks, uint8_t* out);
  /// A row, or part of one, of k inputs (a multiple of 32) to int8 with a scale for each group of
  /// 32: d = max|x| / 127, q = x * (127 / max|x|) rounded to nearest even; sums of q for each half.
  /// A group with a NaN or an infinity gets d = NaN, so that it shows in every product.
  Quantize quantize = nullptr;
  /// nullptr: the arithmetic is not that of tiles.
  ToTiles to_tiles = nullptr;
  Panels panels[kPackFormats] = {};  ///< by PackFormat; nullptr: not in this set
  /// The limits of the arithmetic: `rounds` rounds of multiply-adds on registers alone, of int8, of
  /// f32, and of bf16 (nullptr: it has no products of those). Returns the operations done, two for
  /// each multiply-add.
  using Peak = uint64_t (*)(int64_t rounds);
  Peak int8_peak = nullptr, float_peak = nullptr, bf16_peak = nullptr;
  /// A part of row `row` (k is a multiple of 32), x from input `begin` on: d = max|x| / 127 of each
  /// block, q as `quantize` has it; a block with a NaN or an infinity gets d = NaN. nullptr: no
  /// faster mode.
  using QuantizeBlocks = void (*)(const float* x, InputPart part, int64_t row,
                                  const ByteBlocks& out);
  QuantizeBlocks quantize_blocks = nullptr;
  /// A row of k inputs, or part of one (its last one, or k is even), as PairBytes; nullptr: the
  /// arithmetic is not that of pairs.
  using ToPairs = void (*)(const float* x, int64_t k, uint8_t* out);
  ToPairs to_pairs = nullptr;
};

/// Bytes of tiles of so many rows.
constexpr size_t TilesBytes(int64_t rows, int64_t k) {
  return static_cast<size_t>((rows + kTileRows - 1) / kTileRows) *
         static_cast<size_t>((k + 31) / 32) * kTileBytes;
}
/// Rows that a thread takes at a time: with a slab of their tiles and their sums they fit into a
/// second level cache of 2 MiB.
inline constexpr int64_t kMostTileRows = 512;
/// Panels that it takes at a time where there are many rows, and what it then needs: the unpacked
/// weights of a slab, two panels at a time, and the sums of all rows.
inline constexpr int32_t kTilePanels = 16;
constexpr size_t TileScratchBytes(int64_t rows) {
  return static_cast<size_t>(2 * kSlabGroups * kTileBytes) +
         static_cast<size_t>((rows + kTileRows - 1) / kTileRows) * kTilePanels * kTileBytes;
}

namespace scalar {
extern const MatMulKernels kMatMul, kMatMulTiles, kMatMulPairs;
}
#if defined(__x86_64__)
namespace avx2 {
extern const MatMulKernels kMatMul;
/// Shared with the wider sets: a row is quantized once, at the speed of memory.
void QuantizeRow(const float* x, int64_t k, int8_t* q, float* d, int32_t* sum);
}  // namespace avx2
namespace avxvnni {
extern const MatMulKernels kMatMul;
}
namespace avx512 {
extern const MatMulKernels kMatMul;
}
namespace avx512bf16 {
/// Of bf16 weights; all else is avx512's.
void Panels(const PanelArgs& a);
void ToPairs(const float* x, int64_t k, uint8_t* out);
uint64_t Bf16Peak(int64_t rounds);
}  // namespace avx512bf16
namespace amx {
extern const MatMulKernels kMatMul;
}
#elif defined(__aarch64__)
namespace neon {
extern const MatMulKernels kMatMul;
}
namespace neondot {
extern const MatMulKernels kMatMul;
}
#endif

}  // namespace kvasir
