// The vector kernels in Highway, once for all instruction sets: included by vector_*.cc, each
// compiled with its own flags, inside its own namespace. No include guard. Sixteen lanes are kRegs
// registers of the set's width; all counts of lanes are fixed, so the bits are too.

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using DU = hn::Rebind<uint32_t, DF>;
using DI = hn::Rebind<int32_t, DF>;
using DH = hn::Rebind<hwy::float16_t, DF>;
using DW = hn::Rebind<uint16_t, DF>;
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

/// Rows are taken up to four at a time. Fewer rows take more tiles or channels at once, so that
/// there are always enough independent chains of fma to hide their latency, and registers for all.
constexpr int kMostRows = 4, kAccumulators = kRegs == 1 ? 16 : kRegs == 2 ? 8 : 16;
template <int R>
constexpr int kWide = kAccumulators / (R * kRegs) >= 4   ? 4
                      : kAccumulators / (R * kRegs) >= 2 ? 2
                                                         : 1;

template <int R, class F>
HWY_INLINE void ForRest(int rows, F f) {
  if constexpr (R > 0) {
    if (rows == R) return f(std::integral_constant<int, R>());
    ForRest<R - 1>(rows, f);
  }
}

/// f(row, R) over all rows, four at a time.
template <class F>
HWY_INLINE void ForRows(int rows, F f) {
  int row = 0;
  for (; row + kMostRows <= rows; row += kMostRows)
    f(row, std::integral_constant<int, kMostRows>());
  ForRest<kMostRows - 1>(rows - row, [&](auto r) { f(row, r); });
}

/// Into the second level: the first has too few requests under way to hide memory behind the
/// products. Decoding 8 sequences after 8,192 tokens reads bf16 at 26.8 GB/s instead of 18.9, f16
/// at 28.9 instead of 16.8, of 35 (2 threads, EPYC with AVX-512, 2026-11-27).
HWY_INLINE void Prefetch(const uint8_t* line) { __builtin_prefetch(line, 0, 2); }

template <KvDType T, int R, int N>
HWY_INLINE void ScoreTiles(const ScoreArgs& a, int row, int tile) {
  const DF d;
  constexpr int p = kPack<T>;
  V acc[R][N][kRegs];
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) {
      for (int j = 0; j < kRegs; ++j) acc[i][n][j] = hn::Zero(d);
    }
  }
  const float* q = a.q + row * a.q_stride;
  const bool prefetch = row == 0 && a.soon[tile + N - 1] != nullptr;
  for (int c = 0; c < a.channels; c += p) {
    const size_t offset = static_cast<size_t>(c / p) * 16 * kWordBytes<T>;
    if (prefetch) {
      for (int n = 0; n < N; ++n) Prefetch(a.soon[tile + n] + offset);
    }
    for (int e = 0; e < p; ++e) {
      V key[N][kRegs];
      for (int n = 0; n < N; ++n) {
        for (int j = 0; j < kRegs; ++j) key[n][j] = LoadElement<T>(a.k[tile + n] + offset, j, e);
      }
      for (int i = 0; i < R; ++i) {
        const V x = hn::Set(d, q[i * a.q_stride + c + e]);
        for (int n = 0; n < N; ++n) {
          for (int j = 0; j < kRegs; ++j) acc[i][n][j] = hn::MulAdd(x, key[n][j], acc[i][n][j]);
        }
      }
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) {
      for (int j = 0; j < kRegs; ++j) {
        if constexpr (T == KvDType::kInt8) {
          acc[i][n][j] = hn::Mul(acc[i][n][j], hn::LoadU(d, a.k_scale[tile + n] + j * kLanes));
        }
        hn::StoreU(acc[i][n][j], d,
                   a.out + (row + i) * a.out_stride + (tile + n) * 16 + j * kLanes);
      }
    }
  }
}

template <KvDType T>
void Score(const ScoreArgs& a) {
  ForRows(a.rows, [&a](int row, auto r) {
    constexpr int R = decltype(r)::value, N = kWide<R>;
    int tile = 0;
    for (; tile + N <= a.tiles; tile += N) ScoreTiles<T, R, N>(a, row, tile);
    for (; tile < a.tiles; ++tile) ScoreTiles<T, R, 1>(a, row, tile);
  });
}

/// Channels [16 group, 16 (group + N)) of R rows.
template <KvDType T, int R, int N>
HWY_INLINE void ValueGroups(const ValueArgs& a, int row, int group) {
  const DF d;
  constexpr int p = kPack<T>;
  constexpr size_t kWord = 16 * kWordBytes<T>;
  V acc[R][N][kRegs];
  float* out = a.acc + row * a.head_dim_padded + group * 16;
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) {
      for (int j = 0; j < kRegs; ++j)
        acc[i][n][j] = hn::LoadU(d, out + i * a.head_dim_padded + n * 16 + j * kLanes);
    }
  }
  const size_t group_bytes = static_cast<size_t>(a.block_tokens / p) * kWord;
  const uint8_t* base = a.v + static_cast<size_t>(group) * group_bytes;
  const uint8_t* soon =
      row == 0 && a.soon != nullptr ? a.soon + static_cast<size_t>(group) * group_bytes : nullptr;
  const float* weights = a.p + row * a.p_stride;
  const auto add = [&](int word, int e) HWY_ATTR {
    const int t = word * p + e;
    const uint8_t* from = base + static_cast<size_t>(word) * kWord;
    V value[N][kRegs];
    for (int n = 0; n < N; ++n) {
      for (int j = 0; j < kRegs; ++j)
        value[n][j] = LoadElement<T>(from + static_cast<size_t>(n) * group_bytes, j, e);
    }
    for (int i = 0; i < R; ++i) {
      float weight = weights[i * a.p_stride + t];
      if constexpr (T == KvDType::kInt8) weight *= a.v_scale[t];
      const V x = hn::Set(d, weight);
      for (int n = 0; n < N; ++n) {
        for (int j = 0; j < kRegs; ++j) acc[i][n][j] = hn::MulAdd(x, value[n][j], acc[i][n][j]);
      }
    }
  };
  // Whole words in the middle; at both ends single tokens of one.
  int t = a.begin;
  for (; t < a.end && t % p != 0; ++t) add(t / p, t % p);
  for (; t + p <= a.end; t += p) {
    if (soon != nullptr) {
      for (int n = 0; n < N; ++n)
        Prefetch(soon + static_cast<size_t>(n) * group_bytes + static_cast<size_t>(t / p) * kWord);
    }
    for (int e = 0; e < p; ++e) add(t / p, e);
  }
  for (; t < a.end; ++t) add(t / p, t % p);
  for (int i = 0; i < R; ++i) {
    for (int n = 0; n < N; ++n) {
      for (int j = 0; j < kRegs; ++j)
        hn::StoreU(acc[i][n][j], d, out + i * a.head_dim_padded + n * 16 + j * kLanes);
    }
  }
}

template <KvDType T>
void Value(const ValueArgs& a) {
  ForRows(a.rows, [&a](int row, auto r) {
    constexpr int R = decltype(r)::value, N = kWide<R>;
    const int groups = a.head_dim_padded / 16;
    int group = 0;
    for (; group + N <= groups; group += N) ValueGroups<T, R, N>(a, row, group);
    for (; group < groups; ++group) ValueGroups<T, R, 1>(a, row, group);
  });
}

void Softmax(float* s, int32_t begin, int32_t end, float* m, float* l) {
  const DF d;
  const int first = begin / 16 * 16, last = (end + 15) / 16 * 16;
  for (int t = first; t < begin; ++t) s[t] = -__builtin_inff();
  for (int t = end; t < last; ++t) s[t] = -__builtin_inff();
  V most = hn::Set(d, -__builtin_inff());
  for (int t = first; t < last; t += kLanes) most = hn::Max(most, hn::LoadU(d, s + t));
  float lanes[16];
  hn::StoreU(most, d, lanes);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;

  V sums[kRegs];
  for (int j = 0; j < kRegs; ++j) sums[j] = hn::Zero(d);
  const V shift = hn::Set(d, largest);
  for (int t = first; t < last; t += 16) {
    for (int j = 0; j < kRegs; ++j) {
      const V p = Exp(hn::Sub(hn::LoadU(d, s + t + j * kLanes), shift));
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

void Merge(const RowState& from, int32_t n, RowState* to) {
  const DF d;
  const float most = from.m > to->m ? from.m : to->m;
  const V keep = Exp(hn::Set(d, to->m - most)), take = Exp(hn::Set(d, from.m - most));
  to->m = most;
  to->l = hn::GetLane(hn::Add(hn::Mul(hn::Set(d, to->l), keep), hn::Mul(hn::Set(d, from.l), take)));
  for (int32_t c = 0; c < n; c += kLanes) {
    const V kept = hn::Mul(hn::LoadU(d, to->acc + c), keep);
    hn::StoreU(hn::Add(kept, hn::Mul(hn::LoadU(d, from.acc + c), take)), d, to->acc + c);
  }
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

/// The first and the second channel of each pair, rotated.
struct Rotated {
  V a, b;
};
HWY_INLINE Rotated Turn(V a, V b, V cos, V sin, V scale) {
  return {hn::Mul(hn::Sub(hn::Mul(a, cos), hn::Mul(b, sin)), scale),
          hn::Mul(hn::Add(hn::Mul(a, sin), hn::Mul(b, cos)), scale)};
}

void Rotate(float* x, int32_t pairs, const float* cos, const float* sin, bool neox, float scale) {
  const DF d;
  const V all = hn::Set(d, scale);
  int32_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const V c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    if (neox) {
      const Rotated r = Turn(hn::LoadU(d, x + i), hn::LoadU(d, x + pairs + i), c, s, all);
      hn::StoreU(r.a, d, x + i);
      hn::StoreU(r.b, d, x + pairs + i);
    } else {
      V a, b;
      hn::LoadInterleaved2(d, x + 2 * i, a, b);
      const Rotated r = Turn(a, b, c, s, all);
      hn::StoreInterleaved2(r.a, r.b, d, x + 2 * i);
    }
  }
  const int32_t step = neox ? 1 : 2, partner = neox ? pairs : 1;
  for (; i < pairs; ++i) {
    const float a = x[i * step], b = x[i * step + partner];
    x[i * step] = (a * cos[i] - b * sin[i]) * scale;
    x[i * step + partner] = (a * sin[i] + b * cos[i]) * scale;
  }
}

void ToBf16(const float* x, int32_t n, uint16_t* out) {
  const DF d;
  const DU du;
  const DI di;
  const auto round = [&](V v) HWY_ATTR {
    const auto bits = hn::BitCast(du, v), upper = hn::ShiftRight<16>(bits);
    const auto odd = hn::And(upper, hn::Set(du, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
    const auto magnitude = hn::BitCast(di, hn::And(bits, hn::Set(du, 0x7fffffff)));
    const auto nan = hn::RebindMask(du, hn::Gt(magnitude, hn::Set(di, 0x7f800000)));
    const auto result = hn::IfThenElse(nan, hn::Or(upper, hn::Set(du, 0x40)), rounded);
    return hn::DemoteTo(DW(), hn::BitCast(di, result));
  };
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(round(hn::LoadU(d, x + i)), DW(), out + i);
  if (i == n) return;
  float rest[16] = {};
  uint16_t bits[16];
  for (int32_t j = i; j < n; ++j) rest[j - i] = x[j];
  hn::StoreU(round(hn::LoadU(d, rest)), DW(), bits);
  for (int32_t j = i; j < n; ++j) out[j] = bits[j - i];
}
