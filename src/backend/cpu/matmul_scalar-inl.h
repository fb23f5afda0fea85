// Reading packed panels and storing rows in plain C++, shared by the two scalar arithmetics:
// included once in each, inside its own namespace. No include guard.

/// Scales and minima of a group for 16 columns, by half of the group.
struct Scales {
  float d[2][16];
  float m[2][16];
};

[[maybe_unused]] float LoadHalf(const uint8_t* p) {
  uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return F16ToF32(bits);
}
float LoadFloat(const uint8_t* p) {
  float value = 0;
  std::memcpy(&value, p, 4);
  return value;
}

/// The record's weights of group g.
template <PackFormat F>
const uint8_t* GroupOf(const uint8_t* panel, int64_t g, Scales* s) {
  if constexpr (kSuper<F>) {
    const uint8_t* record = panel + static_cast<size_t>(g / 8) * kSuperBytes<F>;
    for (int n = 0; n < 16; ++n) {
      for (int h = 0; h < kHalves<F>; ++h) {
        const uint8_t scale = record[kSubScalesAt<F> + (g % 8 * kHalves<F> + h) * 16 + n];
        s->d[h][n] = LoadHalf(record + kSuperScalesAt + n * 2) *
                     static_cast<float>(kHasMin<F> ? scale : static_cast<int8_t>(scale));
      }
      if constexpr (kHasMin<F>) {
        const uint8_t minimum = record[kSubMinsAt<F> + g % 8 * 16 + n];
        s->m[0][n] = -(LoadHalf(record + kSuperMinsAt<F> + n * 2) * static_cast<float>(minimum));
      }
    }
    return record + kSuperWeightsAt<F> + g % 8 * kWeightBytes<F>;
  } else {
    const uint8_t* record = panel + static_cast<size_t>(g) * kGroupStep<F>;
    for (int part = 0; part < kScaleParts<F>; ++part) {
      float* to = part < kHalves<F> ? s->d[part] : s->m[part - kHalves<F>];
      for (int n = 0; n < 16; ++n) {
        const uint8_t* at =
            record + kWeightBytes<F> + (static_cast<size_t>(part) * 16 + n) * kScaleBytes<F>;
        to[n] = kHalfScales<F> ? LoadHalf(at) : LoadFloat(at);
      }
    }
    return record;
  }
}

template <PackFormat F>
int32_t WeightAt(const uint8_t* group, int n, int i) {
  if constexpr (kBits<F> < 8) {
    const int c = i % 16, part = i / 16, at = n * 4 + c % 4;
    int q = group[c / 4 * 64 + at] >> (part * 4) & 15;
    if constexpr (kBits<F> != 4) {
      const int bit = HighBitsAt<F>(c / 4, part);
      q |= (group[256 + bit / 8 * 64 + at] >> (bit % 8) & ((1 << (kBits<F> - 4)) - 1)) << 4;
    }
    return q - kOffset<F>;
  } else {
    return static_cast<int8_t>(group[i / 4 * 64 + n * 4 + i % 4]);
  }
}

void StoreRow(const PanelArgs& a, int64_t row, int64_t first, const float acc[16]) {
  for (int n = 0; n < 16 && first + n < a.columns; ++n) {
    float* out = a.out + row * a.out_stride + first + n;
    float value = acc[n];
    if (a.bias != nullptr) value += a.bias[first + n];
    *out = a.add ? *out + value : value;
  }
}

template <PackFormat F>
float FloatAt(const uint8_t* panel, int64_t k, int n) {
  const size_t at = static_cast<size_t>(k) * 16 + n;
  if constexpr (F == PackFormat::kF32) return LoadFloat(panel + at * 4);
  if constexpr (F == PackFormat::kF16) return LoadHalf(panel + at * 2);
  uint16_t bits = 0;
  std::memcpy(&bits,
              panel + ((static_cast<size_t>(k) / 2 * 16 + n) * 2 + static_cast<size_t>(k) % 2) * 2,
              2);
  return Bf16ToF32(bits);
}

template <PackFormat F>
void FloatPanels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    for (int64_t r = 0; r < a.rows; ++r) {
      float acc[16] = {};
      for (int64_t k = 0; k < a.k; ++k) {
        for (int n = 0; n < 16; ++n)
          acc[n] = std::fma(FloatAt<F>(panel, k, n), a.x[r * a.x_stride + k], acc[n]);
      }
      StoreRow(a, r, p * kPanel, acc);
    }
  }
}
