#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx2 {

void QuantizeRow(const float* x, int64_t k, int8_t* q, float* d, int32_t* sum) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (int64_t g = 0; g < k / 32; ++g) {
    __m256 v[4];
    __m256i bits = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + g * 32 + i * 8);
      // As integers magnitudes order like the floats, with infinity and NaN above all.
      bits = _mm256_max_epi32(bits, _mm256_castps_si256(_mm256_and_ps(v[i], magnitude)));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    const bool finite = _mm_cvtsi128_si32(m) < 0x7f800000;
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(m));
    d[g] = finite ? largest / 127.0f : __builtin_nanf("");
    const float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
    // The inverse of a subnormal overflows: such groups are zero.
    const bool zero = !finite || !(inverse <= 3.0e38f);
    __m256i words[2];
    for (int h = 0; h < 2; ++h) {
      __m256i a = _mm256_setzero_si256(), b = a;
      if (!zero) {
        a = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * h], _mm256_set1_ps(inverse)));
        b = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * h + 1], _mm256_set1_ps(inverse)));
      }
      __m256i s = _mm256_add_epi32(a, b);
      __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
      t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
      t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1));
      sum[2 * g + h] = _mm_cvtsi128_si32(t);
      words[h] = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    }
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(words[0], words[1]), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + g * 32), bytes);
  }
}

namespace {

#include "backend/cpu/matmul_avx2-inl.h"

/// A sum that is in its register from here on. GCC else puts off the additions of a group until all
/// its products are there, which takes a hundred registers.
KV_INLINE __m256i Kept(__m256i v) {
  asm("" : "+x"(v));
  return v;
}

struct ByteProducts {
  static constexpr bool kSigned = true;
  template <PackFormat F>
  static constexpr int32_t kTimes = kBits<F> == 8 ? 0 : kOffset<F>;

  /// Four-bit weights: eight products of u4 x s8 pairs are at most 8 * 2 * 15 * 127 = 30480 in 16
  /// bits, so a whole group is added up there before it is widened.
  template <int R>
  static KV_INLINE void Nibbles(const int8_t* q, int64_t k, const auto& load, __m256i dot[R][2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < R; ++i) dot[i][0] = dot[i][1] = _mm256_setzero_si256();
    EachQuad([&]<int J, int P>() KV_LAMBDA {
      const __m256i w0 = load.template operator()<J, P>(0), w1 = load.template operator()<J, P>(1);
      for (int i = 0; i < R; ++i) {
        const __m256i x = Quad(q + i * k + P * 16 + J * 4);
        dot[i][0] = Kept(_mm256_add_epi16(dot[i][0], _mm256_maddubs_epi16(w0, x)));
        dot[i][1] = Kept(_mm256_add_epi16(dot[i][1], _mm256_maddubs_epi16(w1, x)));
      }
    });
    for (int i = 0; i < R; ++i) {
      for (int c = 0; c < 2; ++c) dot[i][c] = _mm256_madd_epi16(dot[i][c], ones);
    }
  }

  /// Weights of five and six bits: products of u6 x s8 pairs are at most 2 * 63 * 127 = 16002, so
  /// two of them are added up in 16 bits.
  template <PackFormat F, int R, int H>
  static KV_INLINE void SixBits(const int8_t* q, int64_t k, const auto& load, __m256i dot[R][2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < R; ++i) dot[i][0] = dot[i][1] = _mm256_setzero_si256();
    EachQuad([&]<int J, int P>() KV_LAMBDA {
      if constexpr (J % 2 == 0 && (kHalves<F> == 1 || P == H)) {
        for (int c = 0; c < 2; ++c) {
          const __m256i w0 = load.template operator()<J, P>(c),
                        w1 = load.template operator()<J + 1, P>(c);
          for (int i = 0; i < R; ++i) {
            const int8_t* x = q + i * k + P * 16 + J * 4;
            const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w0, Quad(x)),
                                                   _mm256_maddubs_epi16(w1, Quad(x + 4)));
            dot[i][c] = Kept(_mm256_add_epi32(dot[i][c], _mm256_madd_epi16(pairs, ones)));
          }
        }
      }
    });
  }

  /// Eight-bit weights: the sign of a weight goes to the activation, whose products with the
  /// magnitude are at most 2 * 128 * 127 = 32512 for a pair. 512 rows of Q8_0 take 0.75 of the time
  /// that weights and activations widened to 16 bits took (2 threads of a Zen 4, 2026-11-27).
  template <PackFormat F, int R, int H>
  static KV_INLINE void Bytes(const int8_t* q, int64_t k, const auto& load, __m256i dot[R][2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < R; ++i) dot[i][0] = dot[i][1] = _mm256_setzero_si256();
    EachQuad([&]<int J, int P>() KV_LAMBDA {
      if constexpr (kHalves<F> == 1 || P == H) {
        const __m256i w0 = load.template operator()<J, P>(0),
                      w1 = load.template operator()<J, P>(1);
        const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
        for (int i = 0; i < R; ++i) {
          const __m256i x = Quad(q + i * k + P * 16 + J * 4);
          const __m256i p0 = _mm256_maddubs_epi16(m0, _mm256_sign_epi8(x, w0));
          const __m256i p1 = _mm256_maddubs_epi16(m1, _mm256_sign_epi8(x, w1));
          dot[i][0] = Kept(_mm256_add_epi32(dot[i][0], _mm256_madd_epi16(p0, ones)));
          dot[i][1] = Kept(_mm256_add_epi32(dot[i][1], _mm256_madd_epi16(p1, ones)));
        }
      }
    });
  }

  template <PackFormat F, int R, int H>
  static KV_INLINE void Half(const int8_t* q, int64_t k, const auto& load, const auto& offset,
                             __m256i dot[R][2]) {
    if constexpr (kBits<F> == 4)
      Nibbles<R>(q, k, load, dot);
    else if constexpr (kBits<F> < 8)
      SixBits<F, R, H>(q, k, load, dot);
    else
      Bytes<F, R, H>(q, k, load, dot);
    if constexpr (kTimes<F> != 0) {
      for (int i = 0; i < R; ++i) {
        const __m256i o = _mm256_set1_epi32(offset(i));
        for (int c = 0; c < 2; ++c) dot[i][c] = _mm256_sub_epi32(dot[i][c], o);
      }
    }
  }
};

/// Products of four-bit weights, the fastest here. Registers that an asm statement claims to change
/// cannot be computed ahead of it.
uint64_t Int8Peak(int64_t rounds) {
  __m256i acc[8];
  for (__m256i& v : acc) v = _mm256_setzero_si256();
  __m256i a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2);
  for (int64_t i = 0; i < rounds; ++i) {
    for (__m256i& v : acc) {
      asm volatile("" : "+x"(a), "+x"(b));  // one product for each sum
      v = Kept(_mm256_add_epi16(v, _mm256_maddubs_epi16(a, b)));
    }
  }
  for (__m256i& v : acc) asm volatile("" : "+x"(v));
  return static_cast<uint64_t>(rounds) * 8 * 32 * 2;
}

}  // namespace

constinit const MatMulKernels kMatMul = KernelsOf<ByteProducts>(Int8Peak);

}  // namespace kvasir::avx2
