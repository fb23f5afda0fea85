// The vector kernels in Highway, once for all instruction sets: included by vector_*.cc, each
// compiled with its own flags, inside its own namespace. No include guard. Sixteen lanes are kRegs
// registers of the set's width; all counts of lanes are fixed, so the bits are too.

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using DU = hn::Rebind<uint32_t, DF>;
using DI = hn::Rebind<int32_t, DF>;
using DH = hn::Rebind<hwy::float16_t, DF>;
using V = hn::Vec<DF>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF()));
constexpr int kRegs = 16 / kLanes;

HWY_INLINE V Exp(V x) {
  const DF d;
  const DI di;
  const auto tiny = hn::Lt(x, hn::Set(d, kExpLow));
  const V high = hn::Set(d, kExpHigh);
  const V bounded = hn::IfThenElse(hn::Gt(x, high), high, x);
  const V n = hn::Round(hn::Mul(bounded, hn::Set(d, kLog2E)));
  V r = hn::MulAdd(n, hn::Set(d, -kLn2High), bounded);
  r = hn::MulAdd(n, hn::Set(d, -kLn2Low), r);
  V p = hn::MulAdd(hn::Set(d, kExp6), r, hn::Set(d, kExp5));
  p = hn::MulAdd(p, r, hn::Set(d, kExp4));
  p = hn::MulAdd(p, r, hn::Set(d, kExp3));
  p = hn::MulAdd(p, r, hn::Set(d, kExp2));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  const V result = hn::Mul(p, hn::BitCast(d, exponent));
  return hn::IfThenZeroElse(tiny, result);
}

/// Words of 16 lanes: register j of pack-element e of the word at `base`, as f32.
template <KvDType T>
HWY_INLINE V LoadElement(const uint8_t* base, int j, int e) {
  const DF d;
  if constexpr (T == KvDType::kF32) {
    (void)e;
    return hn::LoadU(d, reinterpret_cast<const float*>(base) + j * kLanes);
  } else if constexpr (T == KvDType::kF16) {
    (void)e;
    return hn::PromoteTo(
        d, hn::LoadU(DH(), reinterpret_cast<const hwy::float16_t*>(base) + j * kLanes));
  } else {
    const DU du;
    const auto word = hn::LoadU(du, reinterpret_cast<const uint32_t*>(base) + j * kLanes);
    if constexpr (T == KvDType::kBF16) {
      if (e == 0) return hn::BitCast(d, hn::ShiftLeft<16>(word));
      return hn::BitCast(d, hn::And(word, hn::Set(du, 0xffff0000u)));
    } else {
      const DI di;
      const auto signed_word = hn::BitCast(di, word);
      switch (e) {
        case 0:
          return hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<24>(signed_word)));
        case 1:
          return hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<16>(signed_word)));
        case 2:
          return hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<8>(signed_word)));
        default:
          return hn::ConvertTo(d, hn::ShiftRight<24>(signed_word));
      }
    }
  }
}

template <KvDType T>
constexpr int kPack = T == KvDType::kBF16   ? 2
                      : T == KvDType::kInt8 ? 4
                                            : 1;
template <KvDType T>
constexpr size_t kWordBytes = T == KvDType::kF16 ? 2 : 4;  // of one lane

template <KvDType T, int R>
HWY_INLINE void ScoreRows(const ScoreArgs& a, int row) {
  const DF d;
  constexpr int p = kPack<T>;
  V acc[R][kRegs];
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < kRegs; ++j) acc[i][j] = hn::Zero(d);
  }
  const uint8_t* k =
      a.k + static_cast<size_t>(a.tile) * (a.head_dim_padded / p) * 16 * kWordBytes<T>;
  const float* q = a.q + row * a.q_stride;
  for (int c = 0; c < a.channels; c += p, k += 16 * kWordBytes<T>) {
    for (int e = 0; e < p; ++e) {
      V key[kRegs];
      for (int j = 0; j < kRegs; ++j) key[j] = LoadElement<T>(k, j, e);
      for (int i = 0; i < R; ++i) {
        const V x = hn::Set(d, q[i * a.q_stride + c + e]);
        for (int j = 0; j < kRegs; ++j) acc[i][j] = hn::MulAdd(x, key[j], acc[i][j]);
      }
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < kRegs; ++j) {
      if constexpr (T == KvDType::kInt8) {
        acc[i][j] = hn::Mul(acc[i][j], hn::LoadU(d, a.k_scale + a.tile * 16 + j * kLanes));
      }
      hn::StoreU(acc[i][j], d, a.out + (row + i) * a.out_stride + j * kLanes);
    }
  }
}

template <KvDType T>
void Score(const ScoreArgs& a) {
  int row = 0;
  for (; row + 4 <= a.rows; row += 4) ScoreRows<T, 4>(a, row);
  switch (a.rows - row) {
    case 3:
      return ScoreRows<T, 3>(a, row);
    case 2:
      return ScoreRows<T, 2>(a, row);
    case 1:
      return ScoreRows<T, 1>(a, row);
    default:
      return;
  }
}

template <KvDType T, int R>
HWY_INLINE void ValueRows(const ValueArgs& a, int row, int group) {
  const DF d;
  constexpr int p = kPack<T>;
  V acc[R][kRegs];
  float* out = a.acc + row * a.head_dim_padded + group * 16;
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < kRegs; ++j)
      acc[i][j] = hn::LoadU(d, out + i * a.head_dim_padded + j * kLanes);
  }
  const uint8_t* base =
      a.v + static_cast<size_t>(group) * (a.block_tokens / p) * 16 * kWordBytes<T>;
  const float* weights = a.p + row * a.p_stride;
  for (int word = a.begin / p; word * p < a.end; ++word) {
    for (int e = 0; e < p; ++e) {
      const int t = word * p + e;
      if (t < a.begin || t >= a.end) continue;
      V value[kRegs];
      for (int j = 0; j < kRegs; ++j)
        value[j] = LoadElement<T>(base + static_cast<size_t>(word) * 16 * kWordBytes<T>, j, e);
      for (int i = 0; i < R; ++i) {
        float weight = weights[i * a.p_stride + t];
        if constexpr (T == KvDType::kInt8) weight *= a.v_scale[t];
        const V x = hn::Set(d, weight);
        for (int j = 0; j < kRegs; ++j) acc[i][j] = hn::MulAdd(x, value[j], acc[i][j]);
      }
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < kRegs; ++j)
      hn::StoreU(acc[i][j], d, out + i * a.head_dim_padded + j * kLanes);
  }
}

template <KvDType T>
void Value(const ValueArgs& a) {
  for (int group = 0; group < a.head_dim_padded / 16; ++group) {
    int row = 0;
    for (; row + 4 <= a.rows; row += 4) ValueRows<T, 4>(a, row, group);
    switch (a.rows - row) {
      case 3:
        ValueRows<T, 3>(a, row, group);
        break;
      case 2:
        ValueRows<T, 2>(a, row, group);
        break;
      case 1:
        ValueRows<T, 1>(a, row, group);
        break;
      default:
        break;
    }
  }
}

/// Scores of register j of the tile at `t`, minus infinity outside [begin, end).
HWY_INLINE V Masked(const float* s, int t, int j, int begin, int end) {
  const DF d;
  const DI di;
  const auto index = hn::Iota(di, t + j * kLanes);
  const auto inside =
      hn::And(hn::Gt(index, hn::Set(di, begin - 1)), hn::Lt(index, hn::Set(di, end)));
  return hn::IfThenElse(hn::RebindMask(d, inside), hn::LoadU(d, s + t + j * kLanes),
                        hn::Set(d, -__builtin_inff()));
}

void Softmax(float* s, int32_t begin, int32_t end, float* m, float* l) {
  const DF d;
  const int first = begin / 16 * 16;
  V most = hn::Set(d, -__builtin_inff());
  for (int t = first; t < end; t += 16) {
    for (int j = 0; j < kRegs; ++j) most = hn::Max(most, Masked(s, t, j, begin, end));
  }
  float lanes[16];
  hn::StoreU(most, d, lanes);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;

  V sums[kRegs];
  for (int j = 0; j < kRegs; ++j) sums[j] = hn::Zero(d);
  const V shift = hn::Set(d, largest);
  for (int t = first; t < end; t += 16) {
    for (int j = 0; j < kRegs; ++j) {
      const V p = Exp(hn::Sub(Masked(s, t, j, begin, end), shift));
      hn::StoreU(p, d, s + t + j * kLanes);
      sums[j] = hn::Add(sums[j], p);
    }
  }
  for (int j = 0; j < kRegs; ++j) hn::StoreU(sums[j], d, lanes + j * kLanes);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  *m = largest;
  *l = lanes[0];
}

HWY_INLINE V SiluOf(V x, V up) {
  const DF d;
  const V denominator = hn::Add(hn::Set(d, 1.0f), Exp(hn::Neg(x)));
  return hn::Mul(hn::Div(x, denominator), up);
}

HWY_INLINE V GeluOf(V x, V up) {
  const DF d;
  const V cubic = hn::MulAdd(hn::Mul(hn::Set(d, kGeluCubic), x), hn::Mul(x, x), x);
  const V u = hn::Mul(hn::Set(d, kGeluScale), cubic);
  const V denominator = hn::Add(hn::Set(d, 1.0f), Exp(hn::Mul(hn::Set(d, -2.0f), u)));
  return hn::Mul(hn::Div(x, denominator), up);
}

template <V (*Of)(V, V)>
HWY_INLINE void Gated(float* gate, const float* up, int64_t n) {
  const DF d;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(Of(hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, gate + i);
  }
  if (i == n) return;
  float x[16] = {}, y[16] = {};
  for (int64_t j = i; j < n; ++j) {
    x[j - i] = gate[j];
    y[j - i] = up[j];
  }
  hn::StoreU(Of(hn::LoadU(d, x), hn::LoadU(d, y)), d, x);
  for (int64_t j = i; j < n; ++j) gate[j] = x[j - i];
}

void Silu(float* gate, const float* up, int64_t n) { Gated<SiluOf>(gate, up, n); }
void Gelu(float* gate, const float* up, int64_t n) { Gated<GeluOf>(gate, up, n); }
