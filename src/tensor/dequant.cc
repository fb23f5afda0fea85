#include "tensor/dequant.h"

#include <cstring>

#include "base/check.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

// The order of the floating point operations below is the format's reference order, so that the
// results agree with other readers bit for bit.

int Nibble(const uint8_t* qs, int bytes, int i) {
  return i < bytes ? qs[i] & 15 : qs[i - bytes] >> 4;
}

int FifthBit(const uint8_t qh[4], int i) { return ((qh[i / 8] >> (i % 8)) & 1) << 4; }

void Decode(const BlockQ4_0& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(Nibble(b.qs, 16, i) - 8);
}

void Decode(const BlockQ4_1& b, float* out) {
  const float d = F16ToF32(b.d), m = F16ToF32(b.m);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(Nibble(b.qs, 16, i)) + m;
}

void Decode(const BlockQ5_0& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>((Nibble(b.qs, 16, i) | FifthBit(b.qh, i)) - 16);
  }
}

void Decode(const BlockQ5_1& b, float* out) {
  const float d = F16ToF32(b.d), m = F16ToF32(b.m);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(Nibble(b.qs, 16, i) | FifthBit(b.qh, i)) + m;
  }
}

void Decode(const BlockQ8_0& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(b.qs[i]);
}

void Decode(const BlockQ2_K& b, float* out) {
  const float d = F16ToF32(b.d), dmin = F16ToF32(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const int q = (b.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    const uint8_t s = b.scales[i / 16];
    out[i] =
        d * static_cast<float>(s & 15) * static_cast<float>(q) - dmin * static_cast<float>(s >> 4);
  }
}

void Decode(const BlockQ3_K& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 256; ++i) {
    const int q = (b.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    const int high = (b.hmask[i % 32] >> (i / 32)) & 1;
    const float dl = d * static_cast<float>(UnpackScaleQ3(b.scales, i / 16));
    out[i] = dl * static_cast<float>(q - (high != 0 ? 0 : 4));
  }
}

void Decode(const BlockQ4_K& b, float* out) {
  const float d = F16ToF32(b.d), dmin = F16ToF32(b.dmin);
  for (int g = 0; g < 8; ++g) {
    uint8_t scale = 0, minimum = 0;
    UnpackScaleK4(b.scales, g, &scale, &minimum);
    const float dl = d * static_cast<float>(scale), ml = dmin * static_cast<float>(minimum);
    for (int c = 0; c < 32; ++c) {
      const int q = (b.qs[g / 2 * 32 + c] >> (g % 2 * 4)) & 15;
      out[g * 32 + c] = dl * static_cast<float>(q) - ml;
    }
  }
}

void Decode(const BlockQ5_K& b, float* out) {
  const float d = F16ToF32(b.d), dmin = F16ToF32(b.dmin);
  for (int g = 0; g < 8; ++g) {
    uint8_t scale = 0, minimum = 0;
    UnpackScaleK4(b.scales, g, &scale, &minimum);
    const float dl = d * static_cast<float>(scale), ml = dmin * static_cast<float>(minimum);
    for (int c = 0; c < 32; ++c) {
      const int q = ((b.qs[g / 2 * 32 + c] >> (g % 2 * 4)) & 15) | (((b.qh[c] >> g) & 1) << 4);
      out[g * 32 + c] = dl * static_cast<float>(q) - ml;
    }
  }
}

void Decode(const BlockQ6_K& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, c = i % 32;
    const int low = (b.ql[half * 64 + quarter % 2 * 32 + c] >> (quarter / 2 * 4)) & 15;
    const int high = (b.qh[half * 32 + c] >> (quarter * 2)) & 3;
    const float dl = d * static_cast<float>(b.scales[i / 16]);
    out[i] = dl * static_cast<float>((low | high << 4) - 32);
  }
}

void Decode(const BlockIQ4_NL& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(kIQ4Values[Nibble(b.qs, 16, i)]);
}

void Decode(const BlockIQ4_XS& b, float* out) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const int low = (b.scales_l[g / 2] >> (g % 2 * 4)) & 15;
    const int high = (b.scales_h >> (g * 2)) & 3;
    const float dl = d * static_cast<float>((low | high << 4) - 32);
    for (int i = 0; i < 32; ++i) {
      out[g * 32 + i] = dl * static_cast<float>(kIQ4Values[Nibble(b.qs + g * 16, 16, i)]);
    }
  }
}

template <typename Block>
void DecodeAll(const uint8_t* data, std::span<float> out, size_t elements) {
  for (size_t i = 0; i < out.size(); i += elements, data += sizeof(Block)) {
    Block block;
    std::memcpy(&block, data, sizeof(Block));  // files align tensors, not blocks
    Decode(block, out.data() + i);
  }
}

}  // namespace

void Dequantize(DType dtype, const uint8_t* data, std::span<float> out) {
  CHECK_EQ(out.size() % InfoOf(dtype).block_elements, 0u);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out.data(), data, out.size_bytes());
      return;
    case DType::kF16:
    case DType::kBF16:
      for (size_t i = 0; i < out.size(); ++i) {
        uint16_t bits = 0;
        std::memcpy(&bits, data + 2 * i, 2);
        out[i] = dtype == DType::kF16 ? F16ToF32(bits) : Bf16ToF32(bits);
      }
      return;
    case DType::kI8:
      for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int8_t>(data[i]);
      return;
    case DType::kI32:
      for (size_t i = 0; i < out.size(); ++i) {
        int32_t value = 0;
        std::memcpy(&value, data + 4 * i, 4);
        out[i] = static_cast<float>(value);
      }
      return;
    case DType::kQ4_0:
      return DecodeAll<BlockQ4_0>(data, out, 32);
    case DType::kQ4_1:
      return DecodeAll<BlockQ4_1>(data, out, 32);
    case DType::kQ5_0:
      return DecodeAll<BlockQ5_0>(data, out, 32);
    case DType::kQ5_1:
      return DecodeAll<BlockQ5_1>(data, out, 32);
    case DType::kQ8_0:
      return DecodeAll<BlockQ8_0>(data, out, 32);
    case DType::kQ2_K:
      return DecodeAll<BlockQ2_K>(data, out, 256);
    case DType::kQ3_K:
      return DecodeAll<BlockQ3_K>(data, out, 256);
    case DType::kQ4_K:
      return DecodeAll<BlockQ4_K>(data, out, 256);
    case DType::kQ5_K:
      return DecodeAll<BlockQ5_K>(data, out, 256);
    case DType::kQ6_K:
      return DecodeAll<BlockQ6_K>(data, out, 256);
    case DType::kIQ4_NL:
      return DecodeAll<BlockIQ4_NL>(data, out, 32);
    case DType::kIQ4_XS:
      return DecodeAll<BlockIQ4_XS>(data, out, 256);
  }
}

}  // namespace kvasir
