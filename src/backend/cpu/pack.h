#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "tensor/dtype.h"

namespace kvasir {

/// How a matrix lies in memory for the CPU kernels: panels of 16 output columns (rows of the
/// matrix, padded with zeros), each panel a run of groups of 32 inputs k. With n the column within
/// the panel, the weights of a group are
///   8 bit: [k/4][n][k%4] bytes, signed            (512 bytes)
///   4 bit: the same with k and k + 16 in one byte (256 bytes; low nibble k < 16), unsigned
///   5 and 6 bit: their low 4 bits like that, then the others (HighBitsAt), unsigned
/// which AMX B tiles, vpdpbusd and vpmaddubsw with broadcast activations all want; then the scales
/// of the 16 columns. w = d * (q - offset) + m.
/// Floats lie as [k][n], bf16 as [k/2][n][k%2]; there are no groups.
///
/// A panel of a quantized format ends with a TileScale: what brings its weights into the range of
/// f16, in which the tile kernels unpack them.
enum class PackFormat : int32_t {
  kF32,
  kF16,
  kBF16,
  kQ4,    ///< 4 bit, offset 8, d f16                         Q4_0
  kQ4M,   ///< 4 bit, d and m f16                             Q4_1
  kQ4K,   ///< 4 bit; 8 groups share d and dmin f16, each has a scale and a minimum of 6 bits   Q4_K
  kQ5K,   ///< 5 bit, else as kQ4K                            Q5_K
  kQ6K,   ///< 6 bit, offset 32; 8 groups share d f16, each half of one has a signed scale of 8 bits
          ///< Q6_K
  kQ8,    ///< 8 bit, d f16                                   Q8_0, Q5_0, IQ4_NL
  kQ8M,   ///< 8 bit, d and m f16                             Q5_1
  kQ8F,   ///< 8 bit, d f32                                   IQ4_XS
  kQ8F2,  ///< 8 bit, d f32 for each half of the group        Q3_K
  kQ8FM2,  ///< 8 bit, d and m f32 for each half of the group  Q2_K
  // Of the faster mode, made of the others (pack_blocks.cc): integers with one scale for kBlock
  // inputs.
  kI4,  ///< 4 bit q, unsigned; for each group and column s uint8 <= 17 and o int8; w = d (s q + o)
  kI8,  ///< 8 bit q; w = d q
};
inline constexpr int kPackFormats = 15;

inline constexpr int64_t kPanel = 16;  ///< output columns of a panel
inline constexpr int64_t kGroup = 32;  ///< inputs that share a scale of the activations

/// The faster mode's formats: a panel is a run of records, one for each kBlock inputs, the last one
/// for what is left. A record of `groups` groups has their weights in the order above; kI4 then s
/// [group][16] and o [group][16]; then d [16] f32. s q + o is an int8 for every q of the group.
inline constexpr int64_t kBlock = 256, kBlockGroups = kBlock / kGroup;
constexpr size_t BlockBytes(PackFormat format, int64_t groups) {
  const size_t each = format == PackFormat::kI4 ? 256 + 2 * kPanel : 512;
  return static_cast<size_t>(groups) * each + kPanel * sizeof(float);
}

/// The end of a quantized panel.
struct TileScale {
  float in = 1;   ///< 2^e: every |w| of the panel times it is at most 2^15
  float out = 1;  ///< 2^(-e - kTileExponent): brings products back; NaN where a scale is not finite
  float unused[6] = {};
};
/// Activations in tiles are multiplied by 2^kTileShift, an exact scaling, because tiles flush
/// subnormal numbers to zero and weights in them are small:
inline constexpr int kTileShift = 56;
/// The bits of a positive f16 shifted right by three are those of a bf16 2^112 times smaller.
inline constexpr int kTileExponent = -112;

// What a format is made of, for kernels. Constants only: nothing here becomes code that files
// compiled for different instruction sets could share.
template <PackFormat F>
constexpr int kBits =
    F == PackFormat::kQ4 || F == PackFormat::kQ4M || F == PackFormat::kQ4K || F == PackFormat::kI4
        ? 4
    : F == PackFormat::kQ5K ? 5
    : F == PackFormat::kQ6K ? 6
                            : 8;
/// Taken off an unsigned weight.
template <PackFormat F>
constexpr int kOffset = F == PackFormat::kQ4    ? 8
                        : F == PackFormat::kQ6K ? 32
                                                : 0;
/// Eight groups share a record.
template <PackFormat F>
constexpr bool kSuper = F == PackFormat::kQ4K || F == PackFormat::kQ5K || F == PackFormat::kQ6K;
/// Parts of a group with scales of their own.
template <PackFormat F>
constexpr int kHalves =
    F == PackFormat::kQ6K || F == PackFormat::kQ8F2 || F == PackFormat::kQ8FM2 ? 2 : 1;
template <PackFormat F>
constexpr bool kHasMin = F == PackFormat::kQ4M || F == PackFormat::kQ4K || F == PackFormat::kQ5K ||
                         F == PackFormat::kQ8M || F == PackFormat::kQ8FM2;
/// How many times as large as it is a weight enters a tile kernel's products with its scale, which
/// is as much smaller: it is taken from the upper end of a word.
template <PackFormat F>
constexpr int kTileUnit = kBits<F> == 8   ? 256
                          : kBits<F> == 6 ? 1024
                                          : 1;
/// Scales are f16, not f32.
template <PackFormat F>
constexpr bool kHalfScales =
    F == PackFormat::kQ4 || F == PackFormat::kQ4M || F == PackFormat::kQ8 || F == PackFormat::kQ8M;
/// Bytes of a group's weights.
template <PackFormat F>
constexpr size_t kWeightBytes = F == PackFormat::kBF16 ? 1024 : kBits<F> * 64;
/// Bits 4 and up of a weight in quad j (of 4) and part p (0: inputs below 16) of a group: from this
/// bit on of its 64-byte rows behind the nibbles, eight to a row; in the byte where its nibble is.
template <PackFormat F>
constexpr int HighBitsAt(int j, int p) {
  return (2 * j + p) * (kBits<F> - 4);
}
/// Behind them (kSuper: elsewhere) the scales of each half, then the minima of each, of 16 columns.
template <PackFormat F>
constexpr int kScaleParts = kHalves<F>*(kHasMin<F> ? 2 : 1);
template <PackFormat F>
constexpr size_t kScaleBytes = kHalfScales<F> ? 2 : 4;
/// The record of a super-block of 256 inputs: d [16] f16, with minima dmin [16] f16, a scale
/// [8 * kHalves][16] of each (half) group, and with minima [8][16]; then the weights of its groups,
/// at whole lines of 64 bytes. The scales are signed where there are no minima. They come first
/// because memory is read in order: behind the weights every record began with a wait for them, and
/// one row took 1.5 (Q4_K) and 1.7 (Q6_K) times as long (EPYC, 2026-11-27).
inline constexpr size_t kSuperScalesAt = 0;
template <PackFormat F>
constexpr size_t kSuperMinsAt = kSuperScalesAt + 32;
template <PackFormat F>
constexpr size_t kSubScalesAt = kSuperMinsAt<F> + (kHasMin<F> ? 32 : 0);
template <PackFormat F>
constexpr size_t kSubMinsAt = kSubScalesAt<F> + 8 * 16 * kHalves<F>;
template <PackFormat F>
constexpr size_t kSuperWeightsAt = (kSubMinsAt<F> + (kHasMin<F> ? 8 * 16 : 0) + 63) / 64 * 64;
template <PackFormat F>
constexpr size_t kSuperBytes = kSuperWeightsAt<F> + 8 * kWeightBytes<F>;
/// From a group to the next; of a super-block on average.
template <PackFormat F>
constexpr size_t kGroupStep = F == PackFormat::kBF16 ? kWeightBytes<F>
                              : kSuper<F>            ? kSuperBytes<F> / 8
                                          : kWeightBytes<F> + kScaleParts<F> * 16 * kScaleBytes<F>;

/// The packed format of a file's format.
PackFormat PackFormatOf(DType dtype);
/// Bytes of the record of one group (of kSuper: of one super-block); 0 for floats.
size_t RecordBytes(PackFormat format);
/// Bytes of one panel of `k` inputs.
size_t PanelBytes(PackFormat format, int64_t k);
/// True for formats with integers as weights.
bool IsQuantized(PackFormat format);
/// True for those of the faster mode.
constexpr bool IsBlocked(PackFormat format) { return format >= PackFormat::kI4; }
/// What the faster mode makes of a format; itself for floats.
PackFormat BlockedFormatOf(PackFormat format);

/// Packs panel `panel` of a matrix into `out` (PanelBytes, zeroed).
void PackPanel(const TensorView& source, int64_t panel, uint8_t* out);

/// w = d q + m, d and m by half: group g of column n of a packed panel (not of the faster mode's).
struct PackedGroup {
  float q[kGroup], d[2], m[2] = {};
};
PackedGroup PackedGroupAt(PackFormat format, const uint8_t* panel, int n, int64_t g);

/// Makes a panel of BlockedFormatOf(format) in `out` (PanelBytes) of one of a quantized format, as
/// near as its integers come. A scale that is not finite becomes a NaN.
void PackBlocks(PackFormat format, const uint8_t* panel, int64_t k, uint8_t* out);

/// out[0..k) = scale * column `n` of a packed panel: bit-equal to Dequantize of the source's row
/// (in the faster mode: what its integers stand for).
void UnpackColumn(PackFormat format, const uint8_t* panel, int n, int64_t k, float scale,
                  float* out);

}  // namespace kvasir
