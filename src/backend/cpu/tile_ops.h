#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/tiles.h"

// Tile instructions by the number of the tile, for kernels that keep several tiles in use. Included
// only by files compiled for AMX.
namespace kvasir::amx {
namespace {

constexpr size_t kTileRow = 64;      ///< bytes of a whole tile row
constexpr size_t kTileBytes = 1024;  ///< of a whole tile

template <int T>
inline void TileZero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T) : "memory");
}
template <int T>
inline void TileLoad(const void* from, size_t stride = kTileRow) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void TileStore(void* to, size_t stride = kTileRow) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
/// C += A B, pairs of bf16.
template <int C, int A, int B>
inline void TileDotBf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}

/// C += A B, fours of bytes: both signed.
template <int C, int A, int B>
inline void TileDotSigned() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}
/// The same with A unsigned.
template <int C, int A, int B>
inline void TileDotUnsigned() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}

inline void SetTile(TileConfig& config, int tile, int rows, int row_bytes) {
  config.rows[tile] = static_cast<uint8_t>(rows);
  config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
}

}  // namespace
}  // namespace kvasir::amx
