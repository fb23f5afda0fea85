// AVX-512's instructions with those of AVX2 and plain C++, for tests on machines without them:
// included once by each, inside its own namespace, before the kernels. Functions of these names in
// an inner namespace hide the global ones of immintrin.h, so that kernels are compiled as they are.
// What they compute: Intel SDM vol. 2, by instruction. No include guard.

#include "backend/cpu/emulated_dpbusd-inl.h"

// immintrin.h has macros for these: most of what takes constants, without optimization.
#undef _mm512_cmp_ps_mask
#undef _mm512_cvtps_ph
#undef _mm512_extractf32x8_ps
#undef _mm512_mask_cmpeq_epi16_mask
#undef _mm512_reduce_ps
#undef _mm512_setr_epi32
#undef _mm512_slli_epi16
#undef _mm512_slli_epi32
#undef _mm512_srai_epi32
#undef _mm512_srli_epi16
#undef _mm512_ternarylogic_epi32

#define KV_WIDE [[maybe_unused]] inline

struct Halves {
  __m256i low, high;
};
struct FloatHalves {
  __m256 low, high;
};
struct Bytes64 {
  uint8_t of[64];
};
struct Words32 {
  uint16_t of[32];
};
struct Floats16 {
  float of[16];
};
struct Ints16 {
  int32_t of[16];
};
template <typename To, typename From>
KV_WIDE To As(From v) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, v);
}

/// f of each half of the operands.
template <typename F, typename... V>
KV_WIDE __m512i ByHalves(const F& f, V... v) {
  return As<__m512i>(Halves{f(As<Halves>(v).low...), f(As<Halves>(v).high...)});
}
template <typename F, typename... V>
KV_WIDE __m512 ByFloatHalves(const F& f, V... v) {
  return As<__m512>(FloatHalves{f(As<FloatHalves>(v).low...), f(As<FloatHalves>(v).high...)});
}
/// f(lane) for each of 16 floats, or 32-bit integers.
template <typename F>
KV_WIDE __m512 ByFloats(const F& f) {
  Floats16 out;
  for (int i = 0; i < 16; ++i) out.of[i] = f(i);
  return As<__m512>(out);
}
template <typename F>
KV_WIDE __m512i ByInts(const F& f) {
  Ints16 out;
  for (int i = 0; i < 16; ++i) out.of[i] = f(i);
  return As<__m512i>(out);
}

// Memory.
KV_WIDE __m512i _mm512_loadu_si512(const void* p) {
  __m512i v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
KV_WIDE void Aligned64(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 64 != 0) __builtin_trap();
}
KV_WIDE __m512i _mm512_load_si512(const void* p) {
  Aligned64(p);
  return _mm512_loadu_si512(p);
}
KV_WIDE __m512 _mm512_loadu_ps(const void* p) { return As<__m512>(_mm512_loadu_si512(p)); }
KV_WIDE __m512 _mm512_load_ps(const void* p) { return As<__m512>(_mm512_load_si512(p)); }
KV_WIDE void _mm512_storeu_ps(void* p, __m512 v) { __builtin_memcpy(p, &v, sizeof(v)); }
KV_WIDE void _mm512_store_ps(void* p, __m512 v) {
  Aligned64(p);
  _mm512_storeu_ps(p, v);
}
KV_WIDE void _mm512_store_si512(void* p, __m512i v) { _mm512_store_ps(p, As<__m512>(v)); }
KV_WIDE __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
  Floats16 out = {};
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) __builtin_memcpy(&out.of[i], static_cast<const float*>(p) + i, 4);
  }
  return As<__m512>(out);
}
KV_WIDE void _mm512_mask_storeu_ps(void* p, __mmask16 mask, __m512 v) {
  const auto from = As<Floats16>(v);
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) __builtin_memcpy(static_cast<float*>(p) + i, &from.of[i], 4);
  }
}
KV_WIDE void _mm512_mask_store_ps(void* p, __mmask16 mask, __m512 v) {
  Aligned64(p);
  _mm512_mask_storeu_ps(p, mask, v);
}
KV_WIDE void _mm256_mask_storeu_epi16(void* p, __mmask16 mask, __m256i v) {
  uint16_t from[16];
  __builtin_memcpy(from, &v, sizeof(from));
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) __builtin_memcpy(static_cast<uint16_t*>(p) + i, &from[i], 2);
  }
}

// Constants and casts.
KV_WIDE __m512 _mm512_set1_ps(float x) {
  return ByFloats([&](int) { return x; });
}
KV_WIDE __m512i _mm512_set1_epi32(int x) {
  return ByInts([&](int) { return x; });
}
KV_WIDE __m512i _mm512_set1_epi16(short x) {
  return As<__m512i>(Halves{_mm256_set1_epi16(x), _mm256_set1_epi16(x)});
}
KV_WIDE __m512i _mm512_set1_epi8(char x) {
  return As<__m512i>(Halves{_mm256_set1_epi8(x), _mm256_set1_epi8(x)});
}
KV_WIDE __m512i _mm512_setr_epi32(int a, int b, int c, int d, int e, int f, int g, int h, int i,
                                  int j, int k, int l, int m, int n, int o, int p) {
  return As<__m512i>(Ints16{{a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p}});
}
KV_WIDE __m512 _mm512_setzero_ps() { return As<__m512>(Floats16{}); }
KV_WIDE __m512i _mm512_setzero_si512() { return As<__m512i>(Ints16{}); }
KV_WIDE __m512 _mm512_castsi512_ps(__m512i v) { return As<__m512>(v); }
KV_WIDE __m512i _mm512_castsi256_si512(__m256i v) {  // the upper half is anything
  return As<__m512i>(Halves{v, _mm256_set1_epi8(static_cast<char>(0xa5))});
}
KV_WIDE __m256 _mm512_castps512_ps256(__m512 v) { return As<FloatHalves>(v).low; }
KV_WIDE __m256 _mm512_extractf32x8_ps(__m512 v, int half) {
  return half == 0 ? As<FloatHalves>(v).low : As<FloatHalves>(v).high;
}

// Floats.
KV_WIDE __m512 _mm512_add_ps(__m512 a, __m512 b) { return a + b; }
KV_WIDE __m512 _mm512_sub_ps(__m512 a, __m512 b) { return a - b; }
KV_WIDE __m512 _mm512_mul_ps(__m512 a, __m512 b) { return a * b; }
KV_WIDE __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return ByFloatHalves([](__m256 x, __m256 y) { return _mm256_max_ps(x, y); }, a, b);
}
KV_WIDE __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return ByFloatHalves([](__m256 x, __m256 y, __m256 z) { return _mm256_fmadd_ps(x, y, z); }, a, b,
                       c);
}
KV_WIDE __m512 _mm512_xor_ps(__m512 a, __m512 b) {
  return ByFloatHalves([](__m256 x, __m256 y) { return _mm256_xor_ps(x, y); }, a, b);
}
KV_WIDE float _mm512_reduce_max_ps(__m512 v) {
  const auto x = As<Floats16>(v);
  float most = x.of[0];
  for (const float y : x.of) most = most > y ? most : y;
  return most;
}
/// VREDUCEPS with M = 0 and rounding down: v - floor(v), rounded down, too; 0 of infinities
/// (and +0, not -0, of whole numbers).
KV_WIDE __m512 _mm512_reduce_ps(__m512 v, int how) {
  if (how != 0x09) __builtin_trap();
  const auto x = As<Floats16>(v);
  return ByFloats([&](int i) {
    if (__builtin_isinf(x.of[i])) return 0.0f;
    const float floor = __builtin_floorf(x.of[i]), nearest = x.of[i] - floor;
    const bool above = static_cast<double>(nearest) + static_cast<double>(floor) >
                       static_cast<double>(x.of[i]);  // f64 is wide enough for it
    return above ? As<float>(As<uint32_t>(nearest) - 1) : nearest;
  });
}
/// VSCALEFPS: a 2^floor(b), rounded once; not for 0 times 2^inf nor inf times 2^-inf.
KV_WIDE __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
  const auto x = As<Floats16>(a), y = As<Floats16>(b);
  return ByFloats([&](int i) {
    const double power = __builtin_floor(static_cast<double>(y.of[i]));
    if (power != power) return y.of[i];
    const double least = power < -400 ? -400 : power, most = least > 400 ? 400 : least;
    return static_cast<float>(
        __builtin_ldexp(static_cast<double>(x.of[i]), static_cast<int>(most)));
  });
}
/// (A loop over its lanes gave 0 with GCC 12's address and undefined sanitizers together.)
KV_WIDE __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  if (how != _CMP_GT_OQ) __builtin_trap();
  const auto x = As<FloatHalves>(a), y = As<FloatHalves>(b);
  return static_cast<__mmask16>(_mm256_movemask_ps(_mm256_cmp_ps(x.low, y.low, _CMP_GT_OQ)) |
                                _mm256_movemask_ps(_mm256_cmp_ps(x.high, y.high, _CMP_GT_OQ)) << 8);
}
KV_WIDE __m512 _mm512_maskz_mov_ps(__mmask16 mask, __m512 v) {
  const auto x = As<Floats16>(v);
  return ByFloats([&](int i) { return (mask >> i & 1) != 0 ? x.of[i] : 0.0f; });
}
KV_WIDE __mmask16 _knot_mask16(__mmask16 mask) { return static_cast<__mmask16>(~mask); }

// Integers. What AVX2 has for half as many of them:
#define KV_BOTH_HALVES(op)                                                         \
  KV_WIDE __m512i _mm512_##op(__m512i a, __m512i b) {                              \
    return ByHalves([](__m256i x, __m256i y) { return _mm256_##op(x, y); }, a, b); \
  }
#define KV_SHIFT_HALVES(op)                                                              \
  KV_WIDE __m512i _mm512_##op(__m512i v, unsigned by) {                                  \
    return ByHalves([&](__m256i x) { return _mm256_##op(x, static_cast<int>(by)); }, v); \
  }
KV_WIDE __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
KV_WIDE __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
KV_WIDE __m512i _mm512_xor_si512(__m512i a, __m512i b) { return a ^ b; }
KV_WIDE __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int how) {
  if (how != 0xf8) __builtin_trap();
  return a | (b & c);
}
KV_BOTH_HALVES(add_epi8)
KV_BOTH_HALVES(add_epi32)
KV_BOTH_HALVES(sub_epi32)
KV_BOTH_HALVES(mullo_epi16)
KV_BOTH_HALVES(mullo_epi32)
KV_BOTH_HALVES(mulhrs_epi16)
KV_BOTH_HALVES(max_epu32)
KV_WIDE __m512i _mm512_mask_max_epu32(__m512i other, __mmask16 mask, __m512i a, __m512i b) {
  const auto x = As<Ints16>(other), y = As<Ints16>(_mm512_max_epu32(a, b));
  return ByInts([&](int i) { return (mask >> i & 1) != 0 ? y.of[i] : x.of[i]; });
}
KV_WIDE unsigned _mm512_reduce_max_epu32(__m512i v) {
  unsigned most = 0;
  for (const int32_t x : As<Ints16>(v).of) {
    most = static_cast<unsigned>(x) > most ? static_cast<unsigned>(x) : most;
  }
  return most;
}
KV_WIDE int _mm512_reduce_add_epi32(__m512i v) {
  unsigned sum = 0;
  for (const int32_t x : As<Ints16>(v).of) sum += static_cast<unsigned>(x);
  return static_cast<int>(sum);
}
KV_SHIFT_HALVES(slli_epi16)
KV_SHIFT_HALVES(srli_epi16)
KV_SHIFT_HALVES(slli_epi32)
KV_SHIFT_HALVES(srai_epi32)
KV_BOTH_HALVES(packus_epi32)
KV_BOTH_HALVES(packus_epi16)
KV_WIDE __m512i _mm512_permutexvar_epi32(__m512i index, __m512i v) {
  const auto at = As<Ints16>(index), x = As<Ints16>(v);
  return ByInts([&](int i) { return x.of[at.of[i] & 15]; });
}
KV_WIDE __m512i _mm512_permutexvar_epi16(__m512i index, __m512i v) {
  const auto at = As<Words32>(index), x = As<Words32>(v);
  Words32 out;
  for (int i = 0; i < 32; ++i) out.of[i] = x.of[at.of[i] & 31];
  return As<__m512i>(out);
}
KV_WIDE __m512i _mm512_maskz_permutexvar_epi8(__mmask64 mask, __m512i index, __m512i v) {
  const auto at = As<Bytes64>(index), x = As<Bytes64>(v);
  Bytes64 out;
  for (int i = 0; i < 64; ++i) {
    out.of[i] = (mask >> i & 1) != 0 ? x.of[at.of[i] & 63] : uint8_t{0};
  }
  return As<__m512i>(out);
}
KV_WIDE __m512i _mm512_permutexvar_epi8(__m512i index, __m512i v) {
  return _mm512_maskz_permutexvar_epi8(~__mmask64{0}, index, v);
}
KV_WIDE __mmask32 _mm512_mask_cmpeq_epi16_mask(__mmask32 mask, __m512i a, __m512i b) {
  const auto x = As<Halves>(a), y = As<Halves>(b);
  const __m256i bytes =
      _mm256_packs_epi16(_mm256_cmpeq_epi16(x.low, y.low), _mm256_cmpeq_epi16(x.high, y.high));
  constexpr int kInOrder = 0xd8;  // packing works within 128 bits
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, kInOrder))) &
         mask;
}
KV_WIDE __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i u, __m512i s) {
  return ByHalves([](__m256i c, __m256i a, __m256i b) { return Dpbusd(c, a, b); }, sum, u, s);
}
KV_WIDE __m512i _mm512_dpwssd_epi32(__m512i sum, __m512i a, __m512i b) {
  return ByHalves(
      [](__m256i c, __m256i x, __m256i y) { return _mm256_add_epi32(c, _mm256_madd_epi16(x, y)); },
      sum, a, b);
}

// Conversions.
KV_WIDE __m512 _mm512_cvtepi32_ps(__m512i v) {
  const auto x = As<Halves>(v);
  return As<__m512>(FloatHalves{_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)});
}
KV_WIDE __m512i _mm512_cvtps_epi32(__m512 v) {
  const auto x = As<FloatHalves>(v);
  return As<__m512i>(Halves{_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high)});
}
KV_WIDE __m512i _mm512_cvtepu8_epi32(__m128i v) {
  return As<__m512i>(
      Halves{_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(v, v))});
}
KV_WIDE __m512i _mm512_cvtepi8_epi32(__m128i v) {
  return As<__m512i>(
      Halves{_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v))});
}
template <typename F>
KV_WIDE __m128i BytesOfInts(__m512i v, const F& f) {
  int8_t out[16];
  for (int i = 0; i < 16; ++i) out[i] = f(As<Ints16>(v).of[i]);
  __m128i bytes;
  __builtin_memcpy(&bytes, out, sizeof(bytes));
  return bytes;
}
KV_WIDE __m128i _mm512_cvtepi32_epi8(__m512i v) {
  return BytesOfInts(v, [](int32_t x) { return static_cast<int8_t>(x); });
}
KV_WIDE __m128i _mm512_cvtsepi32_epi8(__m512i v) {
  return BytesOfInts(v, [](int32_t x) {
    return static_cast<int8_t>(x < -128 ? -128 : x > 127 ? 127 : x);
  });
}
KV_WIDE __m512 _mm512_cvtph_ps(__m256i v) {
  return As<__m512>(FloatHalves{_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                                _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))});
}
KV_WIDE __m256i _mm512_cvtps_ph(__m512 v, int how) {
  if (how != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)) __builtin_trap();
  const auto x = As<FloatHalves>(v);
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT)),
      _mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT), 1);
}

// bf16.
KV_WIDE float Flushed(float x) {  // what is subnormal is zero
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x;
}
KV_WIDE float OfBf16(uint16_t bits) {
  return Flushed(As<float>(static_cast<uint32_t>(bits) << 16));
}
KV_WIDE uint16_t ToBf16(float x) {
  const auto bits = As<uint32_t>(Flushed(x));
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
/// VCVTNEPS2BF16; 256 bits.
KV_WIDE __m256i _mm512_cvtneps_pbh(__m512 v) {
  uint16_t out[16];
  for (int i = 0; i < 16; ++i) out[i] = ToBf16(As<Floats16>(v).of[i]);
  __m256i bits;
  __builtin_memcpy(&bits, out, sizeof(bits));
  return bits;
}
KV_WIDE __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  return As<__m512bh>(Halves{_mm512_cvtneps_pbh(low), _mm512_cvtneps_pbh(high)});
}
/// VDPBF16PS: of each pair the odd product first, then the even one.
KV_WIDE __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const auto x = As<Words32>(a), y = As<Words32>(b);
  return ByFloats([&](int i) {
    const auto product = [&](float c, int at) {
      return Flushed(__builtin_fmaf(OfBf16(x.of[at]), OfBf16(y.of[at]), c));
    };
    return product(product(Flushed(As<Floats16>(sum).of[i]), 2 * i + 1), 2 * i);
  });
}

// f16, without the types that need a compiler's support: lanes are words of an __m512i. f32 and f64
// are wide enough for all but the last rounding.
KV_WIDE __m512i _mm512_castsi512_ph(__m512i v) { return v; }
KV_WIDE __m512i _mm512_castph_si512(__m512i v) { return v; }
KV_WIDE __m512i ToF16(__m512 low, __m512 high) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return As<__m512i>(Halves{_mm512_cvtps_ph(low, kNearest), _mm512_cvtps_ph(high, kNearest)});
}
/// f of each half of the lanes as f32, rounded to f16.
template <typename F, typename... V>
KV_WIDE __m512i ByF16(const F& f, V... v) {
  return ToF16(f(_mm512_cvtph_ps(As<Halves>(v).low)...), f(_mm512_cvtph_ps(As<Halves>(v).high)...));
}
KV_WIDE __m512i _mm512_mul_ph(__m512i a, __m512i b) {
  return ByF16([](__m512 x, __m512 y) { return x * y; }, a, b);
}
/// Rounded to odd, so that a rounding to f16 is the only one.
KV_WIDE float ToOdd(double exact) {
  const auto nearest = static_cast<float>(exact);
  auto bits = As<uint32_t>(nearest);
  if (static_cast<double>(nearest) != exact && nearest == nearest) {
    if (__builtin_fabs(static_cast<double>(nearest)) > __builtin_fabs(exact)) --bits;
    bits |= 1;
  }
  return As<float>(bits);
}
KV_WIDE __m512i _mm512_fmadd_ph(__m512i a, __m512i b, __m512i c) {
  return ByF16(
      [](__m512 x, __m512 y, __m512 z) {
        return ByFloats([&](int i) {
          return ToOdd(static_cast<double>(As<Floats16>(x).of[i]) *
                           static_cast<double>(As<Floats16>(y).of[i]) +
                       static_cast<double>(As<Floats16>(z).of[i]));
        });
      },
      a, b, c);
}
KV_WIDE __m512i _mm512_cvtepi16_ph(__m512i v) {
  const auto floats = [](__m256i words) {
    return As<__m512>(
        FloatHalves{_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(words))),
                    _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(words, 1)))});
  };
  return ToF16(floats(As<Halves>(v).low), floats(As<Halves>(v).high));
}
/// VSCALEFPH.
KV_WIDE __m512i _mm512_scalef_ph(__m512i a, __m512i b) {
  return ByF16([](__m512 x, __m512 y) { return _mm512_scalef_ps(x, y); }, a, b);
}
