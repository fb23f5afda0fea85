#pragma once

#include <cstddef>
#include <cstdint>

// AMX tile instructions as inline assembly: GCC 12's intrinsics for ldtilecfg and tileloadd have no
// memory operand, so stores to the configuration or to scratch may be moved past them or dropped.
// Included only by files compiled for AMX, in which everything here has internal linkage.
namespace kvasir::amx {
namespace {

/// The operand of ldtilecfg: tiles' rows, and bytes of each row.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void Load() const { asm volatile("ldtilecfg %0" ::"m"(*this) : "memory"); }
};

/// Tile 0: int32 sums [rows][16]; tile 1: A, signed bytes [rows][depth]; tile 2: B, signed bytes
/// [depth / 4][16][4].
inline void ConfigureTiles(int rows, int depth) {
  TileConfig config;
  config.rows[0] = static_cast<uint8_t>(rows);
  config.row_bytes[0] = 64;
  config.rows[1] = static_cast<uint8_t>(rows);
  config.row_bytes[1] = static_cast<uint16_t>(depth);
  config.rows[2] = static_cast<uint8_t>(depth / 4);
  config.row_bytes[2] = 64;
  config.Load();
}

inline void ReleaseTiles() { asm volatile("tilerelease" ::: "memory"); }

/// dots[rows][16] = A B, exact in int32. `a_stride` is bytes between rows of A.
inline void TileProduct(const int8_t* a, size_t a_stride, const uint8_t* b, int32_t* dots) {
  asm volatile(
      "tilezero %%tmm0\n\t"
      "tileloadd (%0,%1,1), %%tmm1\n\t"
      "tileloadd (%2,%3,1), %%tmm2\n\t"
      "tdpbssd %%tmm2, %%tmm1, %%tmm0\n\t"
      "tilestored %%tmm0, (%4,%3,1)\n\t"
      :
      : "r"(a), "r"(a_stride), "r"(b), "r"(size_t{64}), "r"(dots)
      : "memory");
}

/// `rounds` rounds of four independent products of whole tiles; returns their operations.
inline uint64_t TilePeak(int64_t rounds) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = 16;
    config.row_bytes[i] = 64;
  }
  config.Load();
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbssd %%tmm6, %%tmm4, %%tmm0\n\t"
        "tdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
        "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\t"
        "tdpbssd %%tmm7, %%tmm5, %%tmm3\n\t" ::
            : "memory");
  }
  ReleaseTiles();
  return static_cast<uint64_t>(rounds) * 4 * 16 * 16 * 64 * 2;
}

}  // namespace
}  // namespace kvasir::amx
