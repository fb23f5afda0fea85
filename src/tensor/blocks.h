#pragma once

#include <cstdint>

namespace kvasir {

/// The blocks of GGUF's quantized formats, byte for byte as they lie in files. `f16` are the bits
/// of an IEEE half. In the formulas, w[i] is element i of the block; nibble(a, i) is the low half
/// of byte a[i] for i < n and the high half of a[i - n] above (n = number of bytes).
using f16 = uint16_t;

/// w[i] = d * (nibble(qs, i) - 8)
struct BlockQ4_0 {
  f16 d;
  uint8_t qs[16];
};
/// w[i] = d * nibble(qs, i) + m
struct BlockQ4_1 {
  f16 d, m;
  uint8_t qs[16];
};
/// w[i] = d * ((nibble(qs, i) | bit i of qh << 4) - 16)
struct BlockQ5_0 {
  f16 d;
  uint8_t qh[4];
  uint8_t qs[16];
};
/// w[i] = d * (nibble(qs, i) | bit i of qh << 4) + m
struct BlockQ5_1 {
  f16 d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};
/// w[i] = d * qs[i]
struct BlockQ8_0 {
  f16 d;
  int8_t qs[32];
};
/// 16 groups of 16: w = d * (scales[g] & 15) * q - dmin * (scales[g] >> 4), q of two bits. Element
/// i = 128 a + 32 b + c lies in qs[32 a + c] at bits 2 b; g = i / 16.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  f16 d, dmin;
};
/// 16 groups of 16: w = d * (scale[g] - 32) * (q - (bit of hmask ? 0 : 4)), q of two bits as in
/// Q2_K; hmask bit 4 a + b of byte c. Scales of six bits: low four in scales[g % 8] (nibble g / 8),
/// high two in scales[8 + g % 4] at bits 2 (g / 4).
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  f16 d;
};
/// 8 groups of 32: w = d * scale[g] * q - dmin * min[g]. Element i = 64 a + 32 b + c lies in
/// qs[32 a + c], nibble b. Six-bit scales and minima: see UnpackScalesK4.
struct BlockQ4_K {
  f16 d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
/// As Q4_K, with a fifth bit: bit 2 a + b of qh[c].
struct BlockQ5_K {
  f16 d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
/// 16 groups of 16: w = d * scales[g] * (q - 32), q of six bits. Element i = 128 a + 32 b + c: low
/// four bits in ql[64 a + 32 (b % 2) + c], nibble b / 2; high two in qh[32 a + c] at bits 2 b.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  f16 d;
};
/// w[i] = d * kIQ4Values[nibble(qs, i)]
struct BlockIQ4_NL {
  f16 d;
  uint8_t qs[16];
};
/// 8 groups of 32, each laid out as an IQ4_NL block: w = d * (scale[g] - 32) * kIQ4Values[...];
/// scale: low four bits in nibble g % 2 of scales_l[g / 2], high two in scales_h at bits 2 g.
struct BlockIQ4_XS {
  f16 d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210 && sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136);

/// The sixteen values of IQ4_NL and IQ4_XS (the format's published codebook).
inline constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

/// The six-bit scale and minimum of group g (0..7) of a Q4_K or Q5_K block.
inline void UnpackScaleK4(const uint8_t scales[12], int g, uint8_t* scale, uint8_t* minimum) {
  if (g < 4) {
    *scale = scales[g] & 63;
    *minimum = scales[g + 4] & 63;
  } else {
    *scale = static_cast<uint8_t>((scales[g + 4] & 15) | ((scales[g - 4] >> 6) << 4));
    *minimum = static_cast<uint8_t>((scales[g + 4] >> 4) | ((scales[g] >> 6) << 4));
  }
}

/// The signed six-bit scale of group g (0..15) of a Q3_K block, 32 already subtracted.
inline int UnpackScaleQ3(const uint8_t scales[12], int g) {
  const int low = (scales[g % 8] >> (g / 8 * 4)) & 15;
  const int high = (scales[8 + g % 4] >> (g / 4 * 2)) & 3;
  return (low | high << 4) - 32;
}

}  // namespace kvasir
