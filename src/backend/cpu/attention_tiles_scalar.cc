#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/tile_product_scalar.h"
#include "base/exp_constants.h"
#include "tensor/half.h"

namespace kvasir::scalar {
namespace {

constexpr int32_t kPairs = 16;  // of channels or tokens in one product of tiles

/// The 16 lanes of a sum, added in halves; changes them.
float SumOfLanes(float lanes[16]) {
  for (int32_t half = 8; half > 0; half /= 2) {
    for (int32_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

float RoundToBf16(float x) { return Bf16ToF32(F32ToBf16(Flush(x))); }

/// t - floor(t), rounded down, as vreduceps has it; 0 for what is infinite.
float Fraction(float t, float floor) {
  if (std::isinf(t)) return 0;
  const float r = t - floor;
  const float back = r - t, lost = (t - (r - back)) - (floor + back);  // what rounding took (Knuth)
  return lost < 0 ? std::nextafter(r, -1.0f) : r;
}

/// 2^t, see kPow2a.
float Pow2(float t) {
  const float floor = std::floor(t), r = Fraction(t, floor);
  const float q = std::fma(std::fma(kPow2c, r, kPow2b), r, kPow2a);
  if (std::isnan(t)) return t;
  const int exponent = floor < -1000 ? -1000 : floor > 1000 ? 1000 : static_cast<int>(floor);
  return std::scalbn(std::fma(q, r, 1.0f), exponent);
}

float Bf16At(const uint8_t* base, size_t index) {
  uint16_t bits = 0;
  std::memcpy(&bits, base + index * 2, 2);
  return Bf16ToF32(bits);
}

/// Packed queries of bf16: [channel / 32][kSplitRows][channel % 32], whose 64-byte rows are rows of
/// A tiles.
size_t QueryIndex(int32_t row, int32_t channel) {
  return (static_cast<size_t>(channel / 32) * kSplitRows + static_cast<size_t>(row)) * 32 +
         static_cast<size_t>(channel % 32);
}

void Bf16Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t c = 0; c < head_dim_padded; ++c) {
      const uint16_t bits = F32ToBf16(Flush(q[static_cast<size_t>(r) * head_dim_padded + c]));
      std::memcpy(to + QueryIndex(r, c) * 2, &bits, 2);
    }
  }
}

/// TileDotBf16 or PairDotBf16.
using DotBf16 = float(float sum, const float* a, const float* b, int32_t pairs);

/// The score of token t of the split.
template <DotBf16* kDot>
float Bf16Score(const SplitArgs& a, int32_t row, int32_t t) {
  const uint8_t* k = a.kv.blocks[t / a.block_tokens] + a.kv.k_offset;
  const int32_t in_block = t % a.block_tokens;
  float sum = 0;
  for (int32_t first = 0; first < a.head_dim_padded; first += 2 * kPairs) {
    const int32_t rest = a.head_dim_padded - first;
    const int32_t channels = rest < 2 * kPairs ? rest : 2 * kPairs;
    float q[2 * kPairs], key[2 * kPairs];
    for (int32_t i = 0; i < channels; ++i) {
      const int32_t c = first + i;
      q[i] = Bf16At(a.q, QueryIndex(row, c));
      key[i] =
          Bf16At(k, static_cast<size_t>((in_block / 16 * (a.head_dim_padded / 2) + c / 2) * 16 +
                                        in_block % 16) *
                            2 +
                        c % 2);
    }
    sum = kDot(sum, q, key, channels / 2);
  }
  return sum;
}

/// Adds a step's p v to channel c; `p` [kSplitTokens] is rounded already, and 0 outside [begin,
/// end), which lie within one step.
template <DotBf16* kDot>
float Bf16Value(const SplitArgs& a, const float* p, int32_t begin, int32_t end, int32_t c,
                float sum) {
  for (int32_t first = begin / 32 * 32; first < end; first += 32) {
    float value[2 * kPairs] = {};
    for (int32_t i = 0; i < 32; ++i) {
      const int32_t t = first + i, in_block = t % a.block_tokens;
      if (t < begin || t >= end) continue;
      value[i] = Bf16At(
          a.kv.blocks[t / a.block_tokens] + a.kv.v_offset,
          static_cast<size_t>((c / 16 * (a.block_tokens / 2) + in_block / 2) * 16 + c % 16) * 2 +
              in_block % 2);
    }
    sum = kDot(sum, p + first, value, kPairs);
  }
  return sum;
}

template <DotBf16* kDot>
void Bf16Row(const SplitArgs& a, int32_t row) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  float* acc = a.acc + static_cast<size_t>(row) * a.head_dim_padded;
  float p[kSplitTokens] = {}, lanes[16] = {};
  float m = kNone;
  std::memset(acc, 0, static_cast<size_t>(a.head_dim_padded) * sizeof(float));
  for (int32_t begin = a.begin[row], end = 0; begin < a.end[row]; begin = end) {
    end = begin / kStepTokens * kStepTokens + kStepTokens;
    if (end > a.end[row]) end = a.end[row];
    float most = kNone;
    for (int32_t t = begin; t < end; ++t) {
      p[t] = Bf16Score<kDot>(a, row, t);
      most = p[t] > most ? p[t] : most;
    }
    if (most > m + kRaise) {
      if (m != kNone) {
        const float factor = Pow2(std::fma(m, kLog2E, -(most * kLog2E)));
        for (float& lane : lanes) lane *= factor;
        for (int32_t c = 0; c < a.head_dim_padded; ++c) acc[c] *= factor;
      }
      m = most;
    }
    const float shift = m == kNone ? 0.0f : m * kLog2E;
    for (int32_t t = begin; t < end; ++t) {
      const float weight = Pow2(std::fma(p[t], kLog2E, -shift));
      lanes[t % 16] += weight;
      p[t] = RoundToBf16(weight);
    }
    for (int32_t c = 0; c < a.head_dim_padded; ++c)
      acc[c] = Bf16Value<kDot>(a, p, begin, end, c, acc[c]);
  }
  a.m[row] = m;
  a.l[row] = SumOfLanes(lanes);
}

template <DotBf16* kDot>
void Bf16Split(const SplitArgs& a) {
  for (int32_t r = 0; r < a.rows; ++r) Bf16Row<kDot>(a, r);
}

void Int8Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  const size_t bytes = Int8QueryBytes(head_dim_padded);
  for (int32_t r = 0; r < rows; ++r, q += head_dim_padded) {
    float largest = 0;
    bool finite = true;
    for (int32_t c = 0; c < head_dim_padded; ++c) {
      finite = finite && std::isfinite(q[c]);
      largest = std::fabs(q[c]) > largest ? std::fabs(q[c]) : largest;
    }
    float inverse = finite && largest > 0 ? kInt8Query / largest : 0.0f;
    if (!(inverse <= 3.0e38f)) inverse = 0;
    const float scale = finite ? largest / kInt8Query : std::numeric_limits<float>::quiet_NaN();
    std::memcpy(to + 2 * bytes + static_cast<size_t>(r) * sizeof(float), &scale, sizeof(float));
    for (int32_t c = 0; c < head_dim_padded; ++c) {
      const auto x = static_cast<int32_t>(std::nearbyintf((finite ? q[c] : 0.0f) * inverse));
      const size_t at = static_cast<size_t>(c / 64 * kSplitRows + r) * 64 + c % 64;
      to[at] = static_cast<uint8_t>(x >> 8);
      to[bytes + at] = static_cast<uint8_t>(x);
    }
  }
}

float Int8Score(const SplitArgs& a, int32_t row, int32_t t) {
  const uint8_t* block = a.kv.blocks[t / a.block_tokens];
  const int32_t in_block = t % a.block_tokens;
  const size_t bytes = Int8QueryBytes(a.head_dim_padded);
  int32_t sum = 0;
  for (int32_t c = 0; c < a.head_dim_padded; ++c) {
    const size_t at = static_cast<size_t>(c / 64 * kSplitRows + row) * 64 + c % 64;
    const int32_t q = static_cast<int8_t>(a.q[at]) * 256 + a.q[bytes + at];
    const size_t index =
        static_cast<size_t>((in_block / 16 * (a.head_dim_padded / 4) + c / 4) * 16 +
                            in_block % 16) *
            4 +
        c % 4;
    sum += q * static_cast<int8_t>(block[a.kv.k_offset + index]);
  }
  float q_scale = 0, k_scale = 0;
  std::memcpy(&q_scale, a.q + 2 * bytes + static_cast<size_t>(row) * sizeof(float), sizeof(float));
  std::memcpy(&k_scale, block + a.kv.k_scale_offset + static_cast<size_t>(in_block) * sizeof(float),
              sizeof(float));
  return static_cast<float>(sum) * q_scale * k_scale;
}

float Int8VScale(const SplitArgs& a, int32_t t) {
  float scale = 0;
  const uint8_t* scales = a.kv.blocks[t / a.block_tokens] + a.kv.v_scale_offset;
  std::memcpy(&scale, scales + static_cast<size_t>(t % a.block_tokens) * sizeof(float),
              sizeof(float));
  return scale;
}

/// The exact sum of integer weights times V of channel c.
int32_t Int8Value(const SplitArgs& a, const int32_t* weights, int32_t begin, int32_t end,
                  int32_t c) {
  int32_t sum = 0;
  for (int32_t t = begin; t < end; ++t) {
    const int32_t in_block = t % a.block_tokens;
    const size_t index =
        static_cast<size_t>((c / 16 * (a.block_tokens / 4) + in_block / 4) * 16 + c % 16) * 4 +
        in_block % 4;
    const uint8_t* v = a.kv.blocks[t / a.block_tokens] + a.kv.v_offset;
    sum += weights[t] * static_cast<int8_t>(v[index]);
  }
  return sum;
}

/// What the sums of something with maximum `of` are taken times to have maximum m.
float Rescale(float of, float m) {
  return m == -std::numeric_limits<float>::infinity() ? 0.0f : Pow2((of - m) * kLog2E);
}

void Int8Row(const SplitArgs& a, int32_t row) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  float* acc = a.acc + static_cast<size_t>(row) * a.head_dim_padded;
  float lanes[16] = {}, p[kSplitTokens] = {};
  int32_t weights[kSplitTokens] = {};
  float m = kNone;
  std::memset(acc, 0, static_cast<size_t>(a.head_dim_padded) * sizeof(float));
  for (int32_t begin = a.begin[row], end = 0; begin < a.end[row]; begin = end) {
    end = begin / kStepTokens * kStepTokens + kStepTokens;
    if (end > a.end[row]) end = a.end[row];
    float step_m = kNone, largest = 0;
    for (int32_t t = begin; t < end; ++t) {
      p[t] = Int8Score(a, row, t);
      step_m = p[t] > step_m ? p[t] : step_m;
      const float scale = Int8VScale(a, t);
      if (!std::isnan(largest) && !(scale <= largest)) largest = scale;
    }
    float per_scale = largest > 0 ? kInt8Weight / largest : 0.0f;
    if (!(per_scale <= 3.0e38f)) per_scale = 0;
    const float shift = step_m == kNone ? 0.0f : step_m * kLog2E;
    float step_lanes[16] = {};
    for (int32_t t = begin; t < end; ++t) {
      const float weight = Pow2(std::fma(p[t], kLog2E, -shift));
      step_lanes[t % 16] += weight;
      const float x = std::nearbyintf(weight * (Int8VScale(a, t) * per_scale));
      // As vcvtps2dq and vpackusdw have it: 0 for what no 32-bit integer can hold.
      const bool fits = x >= 0 && x < 2147483648.0f;
      weights[t] = fits ? static_cast<int32_t>(x < kInt8Weight ? x : kInt8Weight) : 0;
    }
    const float before = m;
    m = step_m > m ? step_m : m;
    const float keep = Rescale(before, m), take = Rescale(step_m, m);
    for (int32_t i = 0; i < 16; ++i) lanes[i] = std::fma(step_lanes[i], take, lanes[i] * keep);
    const float unit = largest / kInt8Weight * take;
    for (int32_t c = 0; c < a.head_dim_padded; ++c) {
      const auto sum = static_cast<float>(Int8Value(a, weights, begin, end, c));
      acc[c] = std::fma(sum, unit, acc[c] * keep);
    }
  }
  a.m[row] = m;
  a.l[row] = SumOfLanes(lanes);
}

void Int8Split(const SplitArgs& a) {
  for (int32_t r = 0; r < a.rows; ++r) Int8Row(a, r);
}

}  // namespace

const AttentionKernels kTileAttention = {
    {{}, {}, {Bf16Queries, Bf16Split<TileDotBf16>}, {Int8Queries, Int8Split}}};
const AttentionKernels kPairAttention = {
    {{}, {}, {Bf16Queries, Bf16Split<PairDotBf16>}, {Int8Queries, Int8Split}}};

}  // namespace kvasir::scalar
