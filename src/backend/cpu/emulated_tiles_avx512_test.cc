#include <immintrin.h>

#include "backend/cpu/emulated_tiles.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The faster mode's tile kernels with plain C++ for the tile instructions, so that machines without
// AMX test them too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

uint8_t registers[8][1024];

struct TileConfig {
  void Load() const { __builtin_memset(registers, 0xa5, sizeof(registers)); }
};
void ReleaseTiles() {}
TileConfig WholeTiles() { return {}; }

template <int T>
void LoadTile(const void* p, size_t stride) {
  for (size_t i = 0; i < 16; ++i)
    __builtin_memcpy(registers[T] + i * 64, static_cast<const uint8_t*>(p) + i * stride, 64);
}
template <int T>
void StreamTile(const void* p, size_t stride) {
  LoadTile<T>(p, stride);
}
template <int T>
void StoreTile(void* p, size_t stride) {
  for (size_t i = 0; i < 16; ++i)
    __builtin_memcpy(static_cast<uint8_t*>(p) + i * stride, registers[T] + i * 64, 64);
}
template <int T>
void ZeroTile() {
  __builtin_memset(registers[T], 0, sizeof(registers[T]));
}
/// TDPBSSD (Intel SDM vol. 2): C [16][16] int32 += A [16][64] times B [16 fours][16][4].
template <int C, int A, int B>
void SignedProduct() {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum = 0;
      __builtin_memcpy(&sum, registers[C] + m * 64 + n * 4, 4);
      for (int k = 0; k < 64; ++k) {
        sum += static_cast<int8_t>(registers[A][m * 64 + k]) *
               static_cast<int8_t>(registers[B][k / 4 * 64 + n * 4 + k % 4]);
      }
      __builtin_memcpy(registers[C] + m * 64 + n * 4, &sum, 4);
    }
  }
}

#include "backend/cpu/matmul_avx512-inl.h"
#include "backend/cpu/matmul_blocks_avx512-inl.h"

#include "backend/cpu/matmul_blocks_amx-inl.h"

void NoTiles(const float*, int64_t, int64_t, int64_t, TileOrder, int64_t, uint8_t*) {}

}  // namespace

const MatMulKernels kMatMul = {
    nullptr,
    NoTiles,  // there is one: work is shared out as for tiles
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, nullptr, nullptr, nullptr,
     nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, ByteTilePanels<PackFormat::kI4>,
     ByteTilePanels<PackFormat::kI8>},
    nullptr,
    FloatPeak,
    nullptr,
    QuantizeBlocks};

}  // namespace kvasir::emulated
