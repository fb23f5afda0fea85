#include "backend/cpu/pack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/checked.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <typename T>
void Store(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

/// One group of 32 weights of one row, as every 8-bit format can say it: w = d[h] * q + m[h], h the
/// half of the group (both the same where the format has one scale for 32).
struct Group8 {
  int8_t q[32];
  float d[2];
  float m[2];
};

int Nibble(const uint8_t* qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }

void Decode(const BlockQ5_0& b, int, Group8* g) {
  for (int i = 0; i < 32; ++i) {
    g->q[i] = static_cast<int8_t>((Nibble(b.qs, i) | ((b.qh[i / 8] >> (i % 8)) & 1) << 4) - 16);
  }
  g->d[0] = F16ToF32(b.d);
}
void Decode(const BlockQ5_1& b, int, Group8* g) {
  for (int i = 0; i < 32; ++i) {
    g->q[i] = static_cast<int8_t>(Nibble(b.qs, i) | ((b.qh[i / 8] >> (i % 8)) & 1) << 4);
  }
  g->d[0] = F16ToF32(b.d);
  g->m[0] = F16ToF32(b.m);
}
void Decode(const BlockIQ4_NL& b, int, Group8* g) {
  for (int i = 0; i < 32; ++i) g->q[i] = kIQ4Values[Nibble(b.qs, i)];
  g->d[0] = F16ToF32(b.d);
}
void Decode(const BlockIQ4_XS& b, int group, Group8* g) {
  const int low = (b.scales_l[group / 2] >> (group % 2 * 4)) & 15;
  const int high = (b.scales_h >> (group * 2)) & 3;
  for (int i = 0; i < 32; ++i) g->q[i] = kIQ4Values[Nibble(b.qs + group * 16, i)];
  g->d[0] = F16ToF32(b.d) * static_cast<float>((low | high << 4) - 32);
}
void Decode(const BlockQ5_K& b, int group, Group8* g) {
  uint8_t scale = 0, minimum = 0;
  UnpackScaleK4(b.scales, group, &scale, &minimum);
  for (int c = 0; c < 32; ++c) {
    g->q[c] = static_cast<int8_t>(((b.qs[group / 2 * 32 + c] >> (group % 2 * 4)) & 15) |
                                  ((b.qh[c] >> group) & 1) << 4);
  }
  g->d[0] = F16ToF32(b.d) * static_cast<float>(scale);
  g->m[0] = -(F16ToF32(b.dmin) * static_cast<float>(minimum));
}
void Decode(const BlockQ6_K& b, int group, Group8* g) {
  const int half = group / 4, quarter = group % 4;
  for (int c = 0; c < 32; ++c) {
    const int low = (b.ql[half * 64 + quarter % 2 * 32 + c] >> (quarter / 2 * 4)) & 15;
    const int high = (b.qh[half * 32 + c] >> (quarter * 2)) & 3;
    g->q[c] = static_cast<int8_t>((low | high << 4) - 32);
  }
  for (int h = 0; h < 2; ++h) {
    g->d[h] = F16ToF32(b.d) * static_cast<float>(b.scales[group * 2 + h]);
  }
}
void Decode(const BlockQ3_K& b, int group, Group8* g) {
  for (int c = 0; c < 32; ++c) {
    const int q = (b.qs[group / 4 * 32 + c] >> (group % 4 * 2)) & 3;
    g->q[c] = static_cast<int8_t>(q - (((b.hmask[c] >> group) & 1) != 0 ? 0 : 4));
  }
  for (int h = 0; h < 2; ++h) {
    g->d[h] = F16ToF32(b.d) * static_cast<float>(UnpackScaleQ3(b.scales, group * 2 + h));
  }
}
void Decode(const BlockQ2_K& b, int group, Group8* g) {
  for (int c = 0; c < 32; ++c) {
    g->q[c] = static_cast<int8_t>((b.qs[group / 4 * 32 + c] >> (group % 4 * 2)) & 3);
  }
  for (int h = 0; h < 2; ++h) {
    const uint8_t s = b.scales[group * 2 + h];
    g->d[h] = F16ToF32(b.d) * static_cast<float>(s & 15);
    g->m[h] = -(F16ToF32(b.dmin) * static_cast<float>(s >> 4));
  }
}

template <typename Block>
void DecodeAt(const uint8_t* row, int64_t group, Group8* g) {
  constexpr int64_t kGroups = sizeof(Block) > 34 ? 8 : 1;  // K-quants hold 256, the others 32
  const auto block = Load<Block>(row + static_cast<size_t>(group / kGroups) * sizeof(Block));
  Decode(block, static_cast<int>(group % kGroups), g);
}

void DecodeGroup(DType dtype, const uint8_t* row, int64_t group, Group8* g) {
  switch (dtype) {
    case DType::kQ5_0:
      return DecodeAt<BlockQ5_0>(row, group, g);
    case DType::kQ5_1:
      return DecodeAt<BlockQ5_1>(row, group, g);
    case DType::kIQ4_NL:
      return DecodeAt<BlockIQ4_NL>(row, group, g);
    case DType::kIQ4_XS:
      return DecodeAt<BlockIQ4_XS>(row, group, g);
    case DType::kQ3_K:
      return DecodeAt<BlockQ3_K>(row, group, g);
    case DType::kQ2_K:
      return DecodeAt<BlockQ2_K>(row, group, g);
    default:
      CheckFailed(__FILE__, __LINE__, "no 8-bit group in this format");
  }
}

struct RecordShape {
  int halves;  // scales for each group
  bool f16;    // scales are halves, else floats
  bool has_min;
};
RecordShape ShapeOf8(PackFormat format) {
  switch (format) {
    case PackFormat::kQ8:
      return {1, true, false};
    case PackFormat::kQ8M:
      return {1, true, true};
    case PackFormat::kQ8F:
      return {1, false, false};
    case PackFormat::kQ8F2:
      return {2, false, false};
    case PackFormat::kQ8FM2:
      return {2, false, true};
    default:
      CheckFailed(__FILE__, __LINE__, "not an 8-bit format");
  }
}

/// Column n of a group record of an 8-bit format.
void StoreGroup8(PackFormat format, const Group8& g, int n, uint8_t* record) {
  for (int quad = 0; quad < 8; ++quad) std::memcpy(record + quad * 64 + n * 4, g.q + quad * 4, 4);
  const RecordShape s = ShapeOf8(format);
  uint8_t* scales = record + 512;
  const size_t each = s.f16 ? 2 : 4;
  for (int part = 0; part < s.halves * (s.has_min ? 2 : 1); ++part) {
    const float value = part < s.halves ? g.d[part] : g.m[part - s.halves];
    uint8_t* at = scales + (static_cast<size_t>(part) * 16 + n) * each;
    // Exact: it came from a half.
    if (s.f16)
      Store(at, F32ToF16(value));
    else
      Store(at, value);
  }
}

void PackFloats(const TensorView& source, int64_t first, int64_t columns, uint8_t* out) {
  const size_t each = source.dtype == DType::kF32 ? 4 : 2;
  const bool pairs = source.dtype == DType::kBF16;
  for (int64_t n = 0; n < columns; ++n) {
    const uint8_t* row = source.row(first + n);
    for (int64_t k = 0; k < source.cols; ++k) {
      const int64_t index = pairs ? (k / 2 * kPanel + n) * 2 + k % 2 : k * kPanel + n;
      std::memcpy(out + static_cast<size_t>(index) * each, row + static_cast<size_t>(k) * each,
                  each);
    }
  }
}

/// Q4_0 and Q4_1: byte i of a block holds elements i and i + 16, which is the packed order already.
void PackQ4(const TensorView& source, int64_t first, int64_t columns, uint8_t* out) {
  const bool has_min = source.dtype == DType::kQ4_1;
  const size_t block = has_min ? sizeof(BlockQ4_1) : sizeof(BlockQ4_0);
  const size_t record = 256 + (has_min ? 64 : 32);
  for (int64_t g = 0; g < source.cols / kGroup; ++g) {
    uint8_t* to = out + static_cast<size_t>(g) * record;
    for (int64_t n = 0; n < columns; ++n) {
      const uint8_t* from = source.row(first + n) + static_cast<size_t>(g) * block;
      std::memcpy(to + 256 + n * 2, from, 2);
      if (has_min) std::memcpy(to + 288 + n * 2, from + 2, 2);
      const uint8_t* qs = from + (has_min ? 4 : 2);
      for (int j = 0; j < 4; ++j) std::memcpy(to + j * 64 + n * 4, qs + j * 4, 4);
    }
  }
}

void PackQ8(const TensorView& source, int64_t first, int64_t columns, uint8_t* out) {
  const size_t record = RecordBytes(PackFormat::kQ8);
  for (int64_t g = 0; g < source.cols / kGroup; ++g) {
    uint8_t* to = out + static_cast<size_t>(g) * record;
    for (int64_t n = 0; n < columns; ++n) {
      const uint8_t* from = source.row(first + n) + static_cast<size_t>(g) * sizeof(BlockQ8_0);
      std::memcpy(to + 512 + n * 2, from, 2);
      for (int quad = 0; quad < 8; ++quad)
        std::memcpy(to + quad * 64 + n * 4, from + 2 + quad * 4, 4);
    }
  }
}

/// Scales of a super-block of Q4_K or Q5_K, for column n.
template <PackFormat F, typename Block>
void PackScalesAndMins(const Block& b, int64_t n, uint8_t* to) {
  Store(to + kSuperScalesAt + n * 2, b.d);
  Store(to + kSuperMinsAt<F> + n * 2, b.dmin);
  for (int g = 0; g < 8; ++g) {
    UnpackScaleK4(b.scales, g, to + kSubScalesAt<F> + g * 16 + n, to + kSubMinsAt<F> + g * 16 + n);
  }
}

void PackQ4K(const TensorView& source, int64_t first, int64_t columns, uint8_t* out) {
  constexpr uint32_t kLow = 0x0f0f0f0f;
  constexpr PackFormat F = PackFormat::kQ4K;
  for (int64_t s = 0; s < source.cols / 256; ++s) {
    uint8_t* to = out + static_cast<size_t>(s) * kSuperBytes<F>;
    for (int64_t n = 0; n < columns; ++n) {
      const auto b =
          Load<BlockQ4_K>(source.row(first + n) + static_cast<size_t>(s) * sizeof(BlockQ4_K));
      PackScalesAndMins<F>(b, n, to);
      for (int g = 0; g < 8; ++g) {
        const uint8_t* bytes = b.qs + g / 2 * 32;
        for (int j = 0; j < 4; ++j) {
          const uint32_t low = (Load<uint32_t>(bytes + j * 4) >> (g % 2 * 4)) & kLow;
          const uint32_t high = (Load<uint32_t>(bytes + 16 + j * 4) >> (g % 2 * 4)) & kLow;
          Store(to + kSuperWeightsAt<F> + g * kWeightBytes<F> + j * 64 + n * 4, low | high << 4);
        }
      }
    }
  }
}

/// Q5_K and Q6_K.
template <PackFormat F, typename Block>
void PackSuper(const TensorView& source, int64_t first, int64_t columns, uint8_t* out) {
  for (int64_t s = 0; s < source.cols / 256; ++s) {
    uint8_t* to = out + static_cast<size_t>(s) * kSuperBytes<F>;
    for (int64_t n = 0; n < columns; ++n) {
      const auto b = Load<Block>(source.row(first + n) + static_cast<size_t>(s) * sizeof(Block));
      if constexpr (kHasMin<F>) {
        PackScalesAndMins<F>(b, n, to);
      } else {
        Store(to + kSuperScalesAt + n * 2, b.d);
        for (int h = 0; h < 16; ++h)
          to[kSubScalesAt<F> + h * 16 + n] = static_cast<uint8_t>(b.scales[h]);
      }
      for (int g = 0; g < 8; ++g) {
        Group8 group{};
        Decode(b, g, &group);
        uint8_t* nibbles = to + kSuperWeightsAt<F> + g * kWeightBytes<F> + n * 4;
        for (int i = 0; i < 32; ++i) {
          const int q = group.q[i] + kOffset<F>, part = i / 16, j = i % 16 / 4;
          const int bit = HighBitsAt<F>(j, part);
          nibbles[j * 64 + i % 4] |= static_cast<uint8_t>((q & 15) << (part * 4));
          nibbles[256 + bit / 8 * 64 + i % 4] |= static_cast<uint8_t>((q >> 4) << (bit % 8));
        }
      }
    }
  }
}

}  // namespace

PackFormat PackFormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PackFormat::kF32;
    case DType::kF16:
      return PackFormat::kF16;
    case DType::kBF16:
      return PackFormat::kBF16;
    case DType::kQ4_0:
      return PackFormat::kQ4;
    case DType::kQ4_1:
      return PackFormat::kQ4M;
    case DType::kQ4_K:
      return PackFormat::kQ4K;
    case DType::kQ8_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
      return PackFormat::kQ8;
    case DType::kQ5_1:
      return PackFormat::kQ8M;
    case DType::kIQ4_XS:
      return PackFormat::kQ8F;
    case DType::kQ5_K:
      return PackFormat::kQ5K;
    case DType::kQ6_K:
      return PackFormat::kQ6K;
    case DType::kQ3_K:
      return PackFormat::kQ8F2;
    case DType::kQ2_K:
      return PackFormat::kQ8FM2;
    case DType::kI8:
    case DType::kI32:
      break;
  }
  CheckFailed(__FILE__, __LINE__, "not a weight format");
}

bool IsQuantized(PackFormat format) { return format >= PackFormat::kQ4; }

PackFormat BlockedFormatOf(PackFormat format) {
  switch (format) {
    case PackFormat::kF32:
    case PackFormat::kF16:
    case PackFormat::kBF16:
      return format;
    case PackFormat::kQ4:
    case PackFormat::kQ4M:
    case PackFormat::kQ4K:
      return PackFormat::kI4;
    default:
      return PackFormat::kI8;
  }
}

namespace {

/// Eight groups share a record.
bool IsSuper(PackFormat format) {
  return format == PackFormat::kQ4K || format == PackFormat::kQ5K || format == PackFormat::kQ6K;
}

}  // namespace

size_t RecordBytes(PackFormat format) {
  switch (format) {
    case PackFormat::kF32:
    case PackFormat::kF16:
    case PackFormat::kBF16:
      return 0;
    case PackFormat::kQ4:
      return 256 + 32;
    case PackFormat::kQ4M:
      return 256 + 64;
    case PackFormat::kQ4K:
      return kSuperBytes<PackFormat::kQ4K>;
    case PackFormat::kQ5K:
      return kSuperBytes<PackFormat::kQ5K>;
    case PackFormat::kQ6K:
      return kSuperBytes<PackFormat::kQ6K>;
    default: {
      const RecordShape s = ShapeOf8(format);
      return 512 + static_cast<size_t>(s.halves) * (s.has_min ? 2 : 1) * 16 * (s.f16 ? 2 : 4);
    }
  }
}

size_t PanelBytes(PackFormat format, int64_t k) {
  const auto inputs = static_cast<size_t>(k);
  switch (format) {
    case PackFormat::kF32:
      return inputs * 16 * 4;
    case PackFormat::kF16:
      return inputs * 16 * 2;
    case PackFormat::kBF16:
      return RoundUp(inputs, 2) * 16 * 2;
    case PackFormat::kI4:
    case PackFormat::kI8: {
      const int64_t rest = k % kBlock / kGroup;
      return inputs / kBlock * BlockBytes(format, kBlockGroups) +
             (rest > 0 ? BlockBytes(format, rest) : 0);
    }
    default:
      return inputs / (IsSuper(format) ? 256 : 32) * RecordBytes(format) + sizeof(TileScale);
  }
}

namespace {

void UnpackFloatColumn(PackFormat format, const uint8_t* panel, int n, int64_t k, float* out) {
  for (int64_t i = 0; i < k; ++i) {
    const size_t at = static_cast<size_t>(i) * 16 + n;
    switch (format) {
      case PackFormat::kF32:
        out[i] = Load<float>(panel + at * 4);
        break;
      case PackFormat::kF16:
        out[i] = F16ToF32(Load<uint16_t>(panel + at * 2));
        break;
      default: {
        const size_t pair = (static_cast<size_t>(i) / 2 * 16 + n) * 2 + static_cast<size_t>(i) % 2;
        out[i] = Bf16ToF32(Load<uint16_t>(panel + pair * 2));
      }
    }
  }
}

int NibbleAt(const uint8_t* group, int n, int i) {
  return group[i % 16 / 4 * 64 + n * 4 + i % 4] >> (i / 16 * 4) & 15;
}

template <PackFormat F>
PackedGroup SuperGroupAt(const uint8_t* panel, int n, int64_t g) {
  const uint8_t* record = panel + static_cast<size_t>(g / 8) * kSuperBytes<F>;
  const uint8_t* group = record + kSuperWeightsAt<F> + g % 8 * kWeightBytes<F>;
  PackedGroup out;
  for (int i = 0; i < kGroup; ++i) {
    int q = NibbleAt(group, n, i);
    if constexpr (kBits<F> != 4) {
      const int bit = HighBitsAt<F>(i % 16 / 4, i / 16);
      const int high = group[256 + bit / 8 * 64 + n * 4 + i % 4] >> (bit % 8);
      q |= (high & ((1 << (kBits<F> - 4)) - 1)) << 4;
    }
    out.q[i] = static_cast<float>(q - kOffset<F>);
  }
  for (int half = 0; half < 2; ++half) {
    const int of = kHalves<F> == 2 ? half : 0;
    const uint8_t scale = record[kSubScalesAt<F> + (g % 8 * kHalves<F> + of) * 16 + n];
    out.d[half] = F16ToF32(Load<uint16_t>(record + kSuperScalesAt + n * 2)) *
                  static_cast<float>(kHasMin<F> ? scale : static_cast<int8_t>(scale));
    if constexpr (kHasMin<F>) {
      out.m[half] = -(F16ToF32(Load<uint16_t>(record + kSuperMinsAt<F> + n * 2)) *
                      static_cast<float>(record[kSubMinsAt<F> + g % 8 * 16 + n]));
    }
  }
  return out;
}

PackedGroup NibbleGroupAt(PackFormat format, const uint8_t* panel, int n, int64_t g) {
  const uint8_t* record = panel + static_cast<size_t>(g) * RecordBytes(format);
  const bool has_min = format == PackFormat::kQ4M;
  PackedGroup out;
  for (int i = 0; i < kGroup; ++i)
    out.q[i] = static_cast<float>(NibbleAt(record, n, i) - (has_min ? 0 : 8));
  out.d[0] = out.d[1] = F16ToF32(Load<uint16_t>(record + 256 + n * 2));
  if (has_min) out.m[0] = out.m[1] = F16ToF32(Load<uint16_t>(record + 288 + n * 2));
  return out;
}

PackedGroup ByteGroupAt(PackFormat format, const uint8_t* panel, int n, int64_t g) {
  const RecordShape s = ShapeOf8(format);
  const uint8_t* record = panel + static_cast<size_t>(g) * RecordBytes(format);
  const auto value = [&](int part) {
    const size_t at = static_cast<size_t>(part) * 16 + n;
    return s.f16 ? F16ToF32(Load<uint16_t>(record + 512 + at * 2))
                 : Load<float>(record + 512 + at * 4);
  };
  PackedGroup out;
  for (int i = 0; i < kGroup; ++i)
    out.q[i] = static_cast<int8_t>(record[i / 4 * 64 + n * 4 + i % 4]);
  for (int half = 0; half < 2; ++half) {
    const int of = s.halves == 2 ? half : 0;
    out.d[half] = value(of);
    if (s.has_min) out.m[half] = value(s.halves + of);
  }
  return out;
}

}  // namespace

PackedGroup PackedGroupAt(PackFormat format, const uint8_t* panel, int n, int64_t g) {
  switch (format) {
    case PackFormat::kQ4K:
      return SuperGroupAt<PackFormat::kQ4K>(panel, n, g);
    case PackFormat::kQ5K:
      return SuperGroupAt<PackFormat::kQ5K>(panel, n, g);
    case PackFormat::kQ6K:
      return SuperGroupAt<PackFormat::kQ6K>(panel, n, g);
    case PackFormat::kQ4:
    case PackFormat::kQ4M:
      return NibbleGroupAt(format, panel, n, g);
    default:
      return ByteGroupAt(format, panel, n, g);
  }
}

namespace {

void UnpackBlockColumn(PackFormat format, const uint8_t* panel, int n, int64_t k, float* out) {
  const int64_t groups = k / kGroup;
  for (int64_t first = 0; first < groups; first += kBlockGroups) {
    const int64_t count = std::min(kBlockGroups, groups - first);
    const auto in = static_cast<size_t>(count), bytes = BlockBytes(format, count);
    const float d = Load<float>(panel + bytes - kPanel * 4 + n * 4);
    for (size_t g = 0; g < in; ++g) {
      for (int i = 0; i < kGroup; ++i) {
        int q = 0;
        if (format == PackFormat::kI4) {
          const uint8_t byte = panel[g * 256 + i % 16 / 4 * 64 + n * 4 + i % 4];
          q = (i < 16 ? byte & 15 : byte >> 4) * panel[in * 256 + g * 16 + n] +
              static_cast<int8_t>(panel[in * (256 + 16) + g * 16 + n]);
        } else {
          q = static_cast<int8_t>(panel[g * 512 + i / 4 * 64 + n * 4 + i % 4]);
        }
        *out++ = d * static_cast<float>(q);
      }
    }
    panel += bytes;
  }
}

bool HasMin(PackFormat format) {
  return format == PackFormat::kQ4M || format == PackFormat::kQ4K || format == PackFormat::kQ5K ||
         (format >= PackFormat::kQ8 && ShapeOf8(format).has_min);
}

/// The largest magnitude of 16 numbers as its bits, which are ordered as the numbers are: NaNs
/// last.
uint32_t MostOfHalves(const uint8_t* p) {
  uint32_t most = 0;
  for (int n = 0; n < kPanel; ++n) most = std::max(most, Load<uint16_t>(p + n * 2) & 0x7fffu);
  return most;
}
uint32_t MostOfFloats(const uint8_t* p) {
  uint32_t most = 0;
  for (int n = 0; n < kPanel; ++n) most = std::max(most, Load<uint32_t>(p + n * 4) & 0x7fffffffu);
  return most;
}

/// A bound of |w| over a panel from its largest scale and its largest minimum; NaN or infinite
/// where one of these is.
float BoundOfPanel(PackFormat format, const uint8_t* panel, int64_t k) {
  uint32_t d = 0, m = 0;
  const bool super = IsSuper(format),
             four = format == PackFormat::kQ4 || format == PackFormat::kQ4M;
  const RecordShape s = super || four ? RecordShape{1, true, HasMin(format)} : ShapeOf8(format);
  const size_t scales = super ? kSuperScalesAt : four ? 256 : 512;
  for (int64_t record = 0; record < k / (super ? 256 : kGroup); ++record) {
    const uint8_t* at = panel + static_cast<size_t>(record) * RecordBytes(format) + scales;
    for (int part = 0; part < s.halves * (s.has_min ? 2 : 1); ++part) {
      uint32_t& most = part < s.halves ? d : m;
      most = std::max(most, s.f16 ? MostOfHalves(at + part * 32) : MostOfFloats(at + part * 64));
    }
  }
  const auto value = [&s](uint32_t bits) {
    return s.f16 ? F16ToF32(static_cast<uint16_t>(bits)) : std::bit_cast<float>(bits);
  };
  const float most_q = format == PackFormat::kQ4            ? 8
                       : four || format == PackFormat::kQ4K ? 15
                       : format == PackFormat::kQ5K         ? 31
                       : format == PackFormat::kQ6K         ? 32
                                                            : 128;
  const float most_scale = !super ? 1 : format == PackFormat::kQ6K ? 128 : 63;
  return value(d) * most_scale * most_q + value(m) * most_scale;
}

TileScale TileScaleOf(PackFormat format, const uint8_t* panel, int64_t k) {
  const float bound = BoundOfPanel(format, panel, k);
  const bool finite = std::isfinite(bound);
  int exponent = 0;
  if (finite && bound > 0) {
    std::frexp(bound, &exponent);                    // bound in [2^(exponent - 1), 2^exponent)
    exponent = std::clamp(15 - exponent, -60, 100);  // both scales stay normal numbers
  }
  TileScale scale;
  scale.in = std::ldexp(1.0f, exponent);
  scale.out = finite ? std::ldexp(1.0f, -exponent - kTileExponent - kTileShift) : NAN;
  return scale;
}

void PackRecords(const TensorView& source, int64_t first, int64_t columns, uint8_t* out) {
  const PackFormat format = PackFormatOf(source.dtype);
  switch (source.dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return PackFloats(source, first, columns, out);
    case DType::kQ4_0:
    case DType::kQ4_1:
      return PackQ4(source, first, columns, out);
    case DType::kQ4_K:
      return PackQ4K(source, first, columns, out);
    case DType::kQ5_K:
      return PackSuper<PackFormat::kQ5K, BlockQ5_K>(source, first, columns, out);
    case DType::kQ6_K:
      return PackSuper<PackFormat::kQ6K, BlockQ6_K>(source, first, columns, out);
    case DType::kQ8_0:
      return PackQ8(source, first, columns, out);
    default:
      break;
  }
  for (int64_t g = 0; g < source.cols / kGroup; ++g) {
    for (int64_t n = 0; n < columns; ++n) {
      Group8 group{};
      DecodeGroup(source.dtype, source.row(first + n), g, &group);
      StoreGroup8(format, group, static_cast<int>(n),
                  out + static_cast<size_t>(g) * RecordBytes(format));
    }
  }
}

}  // namespace

void PackPanel(const TensorView& source, int64_t panel, uint8_t* out) {
  const int64_t first = panel * kPanel;
  PackRecords(source, first, std::min(kPanel, source.rows - first), out);
  const PackFormat format = PackFormatOf(source.dtype);
  if (!IsQuantized(format)) return;
  Store(out + PanelBytes(format, source.cols) - sizeof(TileScale),
        TileScaleOf(format, out, source.cols));
}

void UnpackColumn(PackFormat format, const uint8_t* panel, int n, int64_t k, float scale,
                  float* out) {
  if (!IsQuantized(format)) {
    UnpackFloatColumn(format, panel, n, k, out);
  } else if (IsBlocked(format)) {
    UnpackBlockColumn(format, panel, n, k, out);
  } else {
    const bool has_min = HasMin(format);
    for (int64_t g = 0; g < k / kGroup; ++g) {
      const PackedGroup group = PackedGroupAt(format, panel, n, g);
      float* const to = out + g * kGroup;
      for (int i = 0; i < kGroup; ++i) to[i] = group.d[i / 16] * group.q[i];
      // Without a minimum nothing is added, so that a zero keeps its sign.
      for (int i = 0; has_min && i < kGroup; ++i) to[i] += group.m[i / 16];
    }
  }
  if (scale != 1) {
    for (int64_t i = 0; i < k; ++i) out[i] *= scale;
  }
}

}  // namespace kvasir
