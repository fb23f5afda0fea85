// Products in registers of 128 bits, shared by the neon and the neondot kernels, which are compiled
// with different flags: included once in each, inside their own namespace. No include guard.
//
// A panel's 16 columns are four registers. How integers are multiplied is the includer's: Dots.

#include "backend/cpu/matmul_quads-inl.h"

/// Quantizing is a few percent of a step: the scalar kernel, which the compiler vectorizes in part.
void QuantizeRow(const float* x, int64_t k, int8_t* q, float* d, int32_t* sum) {
  scalar::kMatMul.quantize(x, k, q, d, sum);
}

KV_INLINE float32x4_t HalfToFloat(const uint8_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
KV_INLINE float32x4_t FloatAt(const uint8_t* p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
KV_INLINE float32x4_t BytesToFloat(const uint8_t* p) {
  const uint16x8_t words = vmovl_u8(vld1_u8(p));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(words)));
}

KV_INLINE float32x4_t SignedBytesToFloat(const uint8_t* p) {
  const int16x8_t words = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
}

/// Scales and minima of a group: [half of the group][quarter of the columns].
struct Scales {
  float32x4_t d[2][4], m[2][4];
};

template <PackFormat F>
KV_INLINE const uint8_t* GroupOf(const uint8_t* panel, int64_t g, Scales* s) {
  if constexpr (kSuper<F>) {
    const uint8_t* record = panel + static_cast<size_t>(g / 8) * kSuperBytes<F>;
    // The bytes are read eight at a time; those beyond a quarter are other quarters' or padding.
    constexpr size_t kScales = size_t{16} * kHalves<F>;
    uint8_t scales[kScales + 8] = {}, mins[24] = {};
    __builtin_memcpy(scales, record + kSubScalesAt<F> + g % 8 * kScales, kScales);
    if constexpr (kHasMin<F>) __builtin_memcpy(mins, record + kSubMinsAt<F> + g % 8 * 16, 16);
    for (int c = 0; c < 4; ++c) {
      const float32x4_t d = HalfToFloat(record + kSuperScalesAt + c * 8);
      if constexpr (kHasMin<F>) {
        s->d[0][c] = vmulq_f32(d, BytesToFloat(scales + c * 4));
        s->m[0][c] = vnegq_f32(
            vmulq_f32(HalfToFloat(record + kSuperMinsAt<F> + c * 8), BytesToFloat(mins + c * 4)));
      } else {
        for (int h = 0; h < kHalves<F>; ++h)
          s->d[h][c] = vmulq_f32(d, SignedBytesToFloat(scales + h * 16 + c * 4));
      }
    }
    return record + kSuperWeightsAt<F> + g % 8 * kWeightBytes<F>;
  } else {
    const uint8_t* record = panel + static_cast<size_t>(g) * kGroupStep<F>;
    for (int part = 0; part < kScaleParts<F>; ++part) {
      for (int c = 0; c < 4; ++c) {
        const uint8_t* at =
            record + kWeightBytes<F> + (static_cast<size_t>(part) * 16 + c * 4) * kScaleBytes<F>;
        const float32x4_t v = kHalfScales<F> ? HalfToFloat(at) : FloatAt(at);
        if (part < kHalves<F>)
          s->d[part][c] = v;
        else
          s->m[part - kHalves<F>][c] = v;
      }
    }
    return record;
  }
}

/// Weights of four columns in quad J (of 4) of half P of a group; less than eight bits unsigned.
template <PackFormat F, int J, int P>
KV_INLINE int8x16_t Weights(const uint8_t* group, int c) {
  if constexpr (kBits<F> == 8)
    return vreinterpretq_s8_u8(vld1q_u8(group + (P * 4 + J) * 64 + c * 16));
  const uint8x16_t v = vld1q_u8(group + J * 64 + c * 16);
  uint8x16_t w = P == 0 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
  if constexpr (kBits<F> == 5 || kBits<F> == 6) {
    constexpr int kMask = (1 << (kBits<F> - 4)) - 1, kBit = HighBitsAt<F>(J, P);
    uint8x16_t high = vld1q_u8(group + 256 + kBit / 8 * 64 + c * 16);
    if constexpr (kBit % 8 != 0) high = vshrq_n_u8(high, kBit % 8);
    w = vorrq_u8(w, vshlq_n_u8(vandq_u8(high, vdupq_n_u8(kMask)), 4));
  }
  return vreinterpretq_s8_u8(w);
}

// Dots::kSums registers hold the sums of four columns. Dots::Add<J>(w, x, sums) adds the products
// of their weights with quad J of the sixteen inputs x; Dots::Total(sums) is what they come to.

template <class Dots, PackFormat F, int R>
KV_INLINE void Group(const uint8_t* group, const Scales& s, const PanelArgs& a, int64_t r,
                     int64_t g, float32x4_t acc[R][4]) {
  const int8_t* q = a.q + r * a.k + g * 32;
  EachHalf<F>([&]<int H>() KV_LAMBDA {
    int32x4_t sums[R][4][Dots::kSums];
    for (int i = 0; i < R; ++i) {
      for (int c = 0; c < 4; ++c) {
        for (int n = 0; n < Dots::kSums; ++n) sums[i][c][n] = vdupq_n_s32(0);
      }
    }
    EachQuad([&]<int J, int P>() KV_LAMBDA {
      if constexpr (kHalves<F> == 1 || P == H) {
        for (int c = 0; c < 4; ++c) {
          const int8x16_t w = Weights<F, J, P>(group, c);
          for (int i = 0; i < R; ++i)
            Dots::template Add<J>(w, vld1q_s8(q + i * a.k + P * 16), sums[i][c]);
        }
      }
    });
    for (int i = 0; i < R; ++i) {
      const int64_t at = (r + i) * (a.k / 32) + g;
      const int32_t sum = SumOfHalf<F>(a.sum, at, H);
      const float32x4_t scale = vdupq_n_f32(a.d[at]);
      const float32x4_t total = vdupq_n_f32(a.d[at] * static_cast<float>(sum));
      for (int c = 0; c < 4; ++c) {
        int32x4_t dot = Dots::Total(sums[i][c]);
        if constexpr (kOffset<F> != 0) dot = vsubq_s32(dot, vdupq_n_s32(kOffset<F> * sum));
        acc[i][c] = vfmaq_f32(acc[i][c], vcvtq_f32_s32(dot), vmulq_f32(s.d[H][c], scale));
        if constexpr (kHasMin<F>) acc[i][c] = vfmaq_f32(acc[i][c], s.m[H][c], total);
      }
    }
  });
}

KV_INLINE void StoreRow(const PanelArgs& a, int64_t row, int64_t first, const float32x4_t acc[4]) {
  float values[16];
  for (int c = 0; c < 4; ++c) vst1q_f32(values + c * 4, acc[c]);
  float* out = a.out + row * a.out_stride + first;
  for (int64_t n = 0; n < 16 && first + n < a.columns; ++n) {
    float v = values[n];
    if (a.bias != nullptr) v += a.bias[first + n];
    out[n] = a.add ? out[n] + v : v;
  }
}

template <class Dots, PackFormat F, int R>
KV_INLINE void PanelRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  float32x4_t acc[R][4];
  for (int i = 0; i < R; ++i) {
    for (int c = 0; c < 4; ++c) acc[i][c] = vdupq_n_f32(0);
  }
  for (int64_t g = 0; g < a.k / 32; ++g) {
    Scales s;
    const uint8_t* group = GroupOf<F>(panel, g, &s);
    Group<Dots, F, R>(group, s, a, r, g, acc);
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

/// Dots::kRows rows share the unpacking of a group.
template <class Dots, PackFormat F>
void Panels(const PanelArgs& a) {
  constexpr int R = Dots::kRows;
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + R <= a.rows; r += R) PanelRows<Dots, F, R>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) PanelRows<Dots, F, 1>(a, panel, r, p * 16);
  }
}

/// Weights of input k for 16 columns.
template <PackFormat F>
KV_INLINE void LoadFloats(const uint8_t* panel, int64_t k, float32x4_t w[4]) {
  for (int c = 0; c < 4; ++c) {
    if constexpr (F == PackFormat::kF32) {
      w[c] = FloatAt(panel + (k * 16 + c * 4) * 4);
    } else if constexpr (F == PackFormat::kF16) {
      w[c] = HalfToFloat(panel + (k * 16 + c * 4) * 2);
    } else {
      // Pairs of inputs lie together: the even one in the low half of each word.
      const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(panel + (k / 2 * 16 + c * 4) * 4));
      const uint32x4_t bits =
          k % 2 == 0 ? vshlq_n_u32(pairs, 16) : vandq_u32(pairs, vdupq_n_u32(0xffff0000u));
      w[c] = vreinterpretq_f32_u32(bits);
    }
  }
}

template <PackFormat F, int R>
KV_INLINE void FloatRows(const PanelArgs& a, const uint8_t* panel, int64_t r, int64_t first) {
  float32x4_t acc[R][4];
  for (int i = 0; i < R; ++i) {
    for (int c = 0; c < 4; ++c) acc[i][c] = vdupq_n_f32(0);
  }
  for (int64_t k = 0; k < a.k; ++k) {
    float32x4_t w[4];
    LoadFloats<F>(panel, k, w);
    for (int i = 0; i < R; ++i) {
      const float32x4_t v = vdupq_n_f32(a.x[(r + i) * a.x_stride + k]);
      for (int c = 0; c < 4; ++c) acc[i][c] = vfmaq_f32(acc[i][c], w[c], v);
    }
  }
  for (int i = 0; i < R; ++i) StoreRow(a, r + i, first, acc[i]);
}

template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + 4 <= a.rows; r += 4) FloatRows<F, 4>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) FloatRows<F, 1>(a, panel, r, p * 16);
  }
}

/// Operations of `rounds` rounds of eight sums: add(sum, a, b) is `products` multiply-adds.
/// Registers that an asm statement claims to change cannot be computed ahead of it.
template <typename Sum, typename Operand, typename Add>
KV_INLINE uint64_t Peak(int64_t rounds, Sum zero, Operand a, Operand b, int products,
                        const Add& add) {
  Sum sums[8];
  for (Sum& v : sums) v = zero;
  for (int64_t i = 0; i < rounds; ++i) {
    for (Sum& v : sums) v = add(v, a, b);
    asm volatile("" : "+w"(a), "+w"(b));
  }
  for (Sum& v : sums) asm volatile("" : "+w"(v));
  return static_cast<uint64_t>(rounds) * 8 * static_cast<uint64_t>(products) * 2;
}

uint64_t FloatPeak(int64_t rounds) {
  return Peak(rounds, vdupq_n_f32(0), vdupq_n_f32(0.5f), vdupq_n_f32(2), 4,
              [](auto sum, auto a, auto b) KV_LAMBDA { return vfmaq_f32(sum, a, b); });
}

/// The kernels of one set.
template <class Dots>
constexpr MatMulKernels KernelsOf(MatMulKernels::Peak int8_peak) {
  return {
      QuantizeRow,
      nullptr,
      {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
       Panels<Dots, PackFormat::kQ4>, Panels<Dots, PackFormat::kQ4M>,
       Panels<Dots, PackFormat::kQ4K>, Panels<Dots, PackFormat::kQ5K>,
       Panels<Dots, PackFormat::kQ6K>, Panels<Dots, PackFormat::kQ8>,
       Panels<Dots, PackFormat::kQ8M>, Panels<Dots, PackFormat::kQ8F>,
       Panels<Dots, PackFormat::kQ8F2>, Panels<Dots, PackFormat::kQ8FM2>},
      int8_peak,
      FloatPeak,
      nullptr};
}
