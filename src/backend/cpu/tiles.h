#pragma once

#include <cstddef>
#include <cstdint>

// AMX tile instructions as inline assembly: GCC 12's intrinsics for ldtilecfg and tileloadd have no
// memory operand, so stores to the configuration or to scratch may be moved past them or dropped.
// Included only by files compiled for AMX, in which everything here has internal linkage.
namespace kvasir::amx {
namespace {

constexpr size_t kTileRow = 64;      ///< bytes of a whole tile row
constexpr size_t kWholeTile = 1024;  ///< of a whole tile

/// The operand of ldtilecfg: tiles' rows, and bytes of each row.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void Load() const { asm volatile("ldtilecfg %0" ::"m"(*this) : "memory"); }
};

inline void ReleaseTiles() { asm volatile("tilerelease" ::: "memory"); }

// Tiles are numbered 0 to 7; rows lie `stride` bytes apart.
template <int T>
inline __attribute__((always_inline)) void LoadTile(const void* p, size_t stride = kTileRow) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
/// The same for what is not needed again soon: it takes no place in the first level cache.
template <int T>
inline __attribute__((always_inline)) void StreamTile(const void* p, size_t stride = kTileRow) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline __attribute__((always_inline)) void StoreTile(void* p, size_t stride = kTileRow) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline __attribute__((always_inline)) void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T) : "memory");
}
/// C += A B of bf16 pairs: C f32 [rows][16], A [rows][32], B [16 pairs][16 columns][2].
template <int C, int A, int B>
inline __attribute__((always_inline)) void Bf16Product() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}

/// C += A B, fours of bytes: both signed.
template <int C, int A, int B>
inline __attribute__((always_inline)) void SignedProduct() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}
/// The same with A unsigned.
template <int C, int A, int B>
inline __attribute__((always_inline)) void UnsignedProduct() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}

inline void SetTile(TileConfig& config, int tile, int rows, int row_bytes) {
  config.rows[tile] = static_cast<uint8_t>(rows);
  config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
}

/// All tiles 16 rows of 64 bytes.
inline TileConfig WholeTiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) SetTile(config, i, 16, 64);
  return config;
}

/// `rounds` rounds of four independent products of whole tiles, of bytes or of bf16; returns their
/// operations.
template <bool kBytes>
inline uint64_t TilePeak(int64_t rounds) {
  WholeTiles().Load();
  for (int64_t i = 0; i < rounds; ++i) {
    if constexpr (kBytes) {
      asm volatile(
          "tdpbssd %%tmm6, %%tmm4, %%tmm0\n\t"
          "tdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
          "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\t"
          "tdpbssd %%tmm7, %%tmm5, %%tmm3\n\t" ::
              : "memory");
    } else {
      asm volatile(
          "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"
          "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
          "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"
          "tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n\t" ::
              : "memory");
    }
  }
  ReleaseTiles();
  return static_cast<uint64_t>(rounds) * 4 * 16 * 16 * (kBytes ? 64 : 32) * 2;
}

}  // namespace
}  // namespace kvasir::amx
