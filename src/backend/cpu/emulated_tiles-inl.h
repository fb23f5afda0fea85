// AMX's tile instructions (tiles.h) in plain C++, for tests on machines without them: included once
// by each, inside its own namespace, after emulated_avx512-inl.h. No include guard. One thread.

constexpr size_t kTileRow = 64, kWholeTile = 1024;

uint8_t registers[8][kWholeTile];
uint8_t rows_of[8];
uint16_t bytes_of[8];  // of a row

struct TileConfig {
  uint16_t row_bytes[8] = {};
  uint8_t rows[8] = {};
  void Load() const {
    __builtin_memcpy(rows_of, rows, sizeof(rows));
    __builtin_memcpy(bytes_of, row_bytes, sizeof(row_bytes));
    __builtin_memset(registers, 0xa5, sizeof(registers));
  }
};
void ReleaseTiles() {
  __builtin_memset(rows_of, 0, sizeof(rows_of));
  __builtin_memset(bytes_of, 0, sizeof(bytes_of));
}
/// What a product faults for.
template <int C, int A, int B>
void CheckShapes() {
  if (rows_of[C] == 0 || rows_of[C] != rows_of[A] || bytes_of[C] != bytes_of[B] ||
      bytes_of[A] != 4 * rows_of[B])
    __builtin_trap();
}
void SetTile(TileConfig& config, int tile, int rows, int row_bytes) {
  config.rows[tile] = static_cast<uint8_t>(rows);
  config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
}
[[maybe_unused]] TileConfig WholeTiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) SetTile(config, i, 16, 64);
  return config;
}

template <int T>
void LoadTile(const void* p, size_t stride = kTileRow) {
  for (size_t i = 0; i < rows_of[T]; ++i) {
    __builtin_memcpy(registers[T] + i * kTileRow, static_cast<const uint8_t*>(p) + i * stride,
                     bytes_of[T]);
  }
}
template <int T>
void StreamTile(const void* p, size_t stride = kTileRow) {
  LoadTile<T>(p, stride);
}
template <int T>
void StoreTile(void* p, size_t stride = kTileRow) {
  for (size_t i = 0; i < rows_of[T]; ++i) {
    __builtin_memcpy(static_cast<uint8_t*>(p) + i * stride, registers[T] + i * kTileRow,
                     bytes_of[T]);
  }
}
template <int T>
void ZeroTile() {
  __builtin_memset(registers[T], 0, sizeof(registers[T]));
}

/// TDPBSSD and TDPBUSD (Intel SDM vol. 2): C [rows][16] int32 += A [rows][fours][4] times B
/// [fours][16][4].
template <int C, int A, int B, typename Left>
void ByteProduct() {
  CheckShapes<C, A, B>();
  for (int m = 0; m < rows_of[C]; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum = 0;
      __builtin_memcpy(&sum, registers[C] + m * 64 + n * 4, 4);
      for (int k = 0; k < bytes_of[A]; ++k) {
        sum += static_cast<Left>(registers[A][m * 64 + k]) *
               static_cast<int8_t>(registers[B][k / 4 * 64 + n * 4 + k % 4]);
      }
      __builtin_memcpy(registers[C] + m * 64 + n * 4, &sum, 4);
    }
  }
}
template <int C, int A, int B>
void SignedProduct() {
  ByteProduct<C, A, B, int8_t>();
}
template <int C, int A, int B>
void UnsignedProduct() {
  ByteProduct<C, A, B, uint8_t>();
}

float Bf16At(const uint8_t* p) {
  uint16_t bits = 0;
  __builtin_memcpy(&bits, p, 2);
  return OfBf16(bits);
}
/// TDPBF16PS (Intel SDM vol. 2): C [rows][16] float += A [rows][pairs][2] times B [pairs][16][2],
/// in one chain of the even and one of the odd columns of A.
template <int C, int A, int B>
void Bf16Product() {
  CheckShapes<C, A, B>();
  for (int m = 0; m < rows_of[C]; ++m) {
    for (int n = 0; n < 16; ++n) {
      float sum = 0, even = 0, odd = 0;
      for (int k = 0; k < bytes_of[A] / 4; ++k) {
        const uint8_t *a = registers[A] + m * 64 + k * 4, *b = registers[B] + k * 64 + n * 4;
        even = Flushed(__builtin_fmaf(Bf16At(a), Bf16At(b), even));
        odd = Flushed(__builtin_fmaf(Bf16At(a + 2), Bf16At(b + 2), odd));
      }
      __builtin_memcpy(&sum, registers[C] + m * 64 + n * 4, 4);
      sum = Flushed(Flushed(sum) + Flushed(even + odd));
      __builtin_memcpy(registers[C] + m * 64 + n * 4, &sum, 4);
    }
  }
}
