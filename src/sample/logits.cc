#include "sample/logits.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>

#include "base/exp_constants.h"

namespace kvasir {
namespace {

// Registers that every machine has, as compilers' own type: for x86-64 without more flags Highway
// 1.0 has nothing but scalar code. Sixteen lanes are kRegs of them.
constexpr size_t kRegs = 4, kLanes = 16;
using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));
using Floats = Float4[kRegs];

/// Of x <= 0, in multiplications and additions that any machine has. Step by step for all lanes:
/// one register after the other would wait for the latency of each step (204 us instead of 167 for
/// 128,256 logits).
void Exp(Floats& x) {
  constexpr float kRound = 0x1.8p23f;  // adding it leaves no fraction
  Floats n, r, p;
  for (size_t j = 0; j < kRegs; ++j) n[j] = x[j] < kExpLow ? Float4{} + kExpLow : x[j];
  for (size_t j = 0; j < kRegs; ++j) r[j] = n[j];
  for (size_t j = 0; j < kRegs; ++j) n[j] = (n[j] * kLog2E + kRound) - kRound;
  for (size_t j = 0; j < kRegs; ++j) r[j] = (r[j] - n[j] * kLn2High) - n[j] * kLn2Low;
  for (size_t j = 0; j < kRegs; ++j) p[j] = kExp6 * r[j] + kExp5;
  for (const float c : {kExp4, kExp3, kExp2, 1.0f, 1.0f}) {
    for (size_t j = 0; j < kRegs; ++j) p[j] = p[j] * r[j] + c;
  }
  for (size_t j = 0; j < kRegs; ++j) {
    const Int4 power = (__builtin_convertvector(n[j], Int4) + 127) << 23;
    x[j] = x[j] < kExpLow ? Float4{} : p[j] * std::bit_cast<Float4>(power);
  }
}

/// Lanes in halves: 8, 4, 2, 1.
template <typename F>
float Fold(const Floats& x, const F& f) {
  const Float4 four = f(f(x[0], x[2]), f(x[1], x[3]));
  const Float4 two = f(four, __builtin_shufflevector(four, four, 2, 3, 0, 1));
  return f(two, __builtin_shufflevector(two, two, 1, 0, 3, 2))[0];
}

size_t BlocksOf(size_t count) { return (count + kLogitBlock - 1) / kLogitBlock; }

/// Where the logits of a block are: in `padded`, with -infinity behind them, if it is not whole.
const float* BlockAt(std::span<const float> logits, size_t block, float (&padded)[kLogitBlock]) {
  logits = logits.subspan(block * kLogitBlock);
  if (logits.size() >= kLogitBlock) return logits.data();
  std::fill(std::copy(logits.begin(), logits.end(), padded), std::end(padded), kNoLogit);
  return padded;
}

}  // namespace

bool FindLargest(std::span<const float> logits, std::vector<float>* largest) {
  largest->resize(BlocksOf(logits.size()));
  float padded[kLogitBlock];
  Int4 right = Int4{} - 1;
  for (size_t block = 0; block < largest->size(); ++block) {
    const float* at = BlockAt(logits, block, padded);
    Floats most, x;
    for (Float4& m : most) m = Float4{} + kNoLogit;
    for (size_t i = 0; i < kLogitBlock; i += kLanes) {
      std::memcpy(&x, at + i, sizeof(x));
      for (size_t j = 0; j < kRegs; ++j) {
        most[j] = x[j] > most[j] ? x[j] : most[j];
        right &= x[j] <= std::numeric_limits<float>::max();
      }
    }
    (*largest)[block] = Fold(most, [](Float4 a, Float4 b) { return a > b ? a : b; });
  }
  return (right[0] & right[1] & right[2] & right[3]) != 0;
}

int32_t FirstOfLargest(std::span<const float> logits, std::span<const float> largest) {
  const auto block = std::max_element(largest.begin(), largest.end());
  const auto begin = logits.begin() + (block - largest.begin()) * ptrdiff_t{kLogitBlock};
  return static_cast<int32_t>(std::find(begin, logits.end(), *block) - logits.begin());
}

void CollectLargest(std::span<const float> logits, std::span<const float> largest, size_t k,
                    std::vector<int32_t>* tokens) {
  tokens->clear();
  tokens->reserve(logits.size());
  if (k == 0) return;
  // As many blocks have a logit that reaches the k-th of `largest`: so do k tokens.
  float least = kNoLogit;
  if (k <= largest.size()) {
    std::vector<float> order(largest.begin(), largest.end());
    const auto last = order.begin() + static_cast<ptrdiff_t>(k) - 1;
    std::nth_element(order.begin(), last, order.end(), std::greater<>());
    least = *last;
  }
  for (size_t block = 0; block < largest.size(); ++block) {
    if (largest[block] < least) continue;
    const size_t begin = block * kLogitBlock, end = std::min(begin + kLogitBlock, logits.size());
    for (size_t i = begin; i < end; ++i) {
      if (logits[i] >= least) tokens->push_back(static_cast<int32_t>(i));
    }
  }
}

float WeightOf(float logit, float top, float temperature) {
  Floats x = {Float4{} + (logit - top) / temperature};
  Exp(x);
  return x[0][0];
}

void Weigh(std::span<const float> logits, float top, float temperature, LogitWeights* out) {
  out->sums.resize(BlocksOf(logits.size()));
  out->weights.resize(out->sums.size() * kLogitBlock);
  out->sum = 0;
  float padded[kLogitBlock];
  float* weights = out->weights.data();
  for (size_t block = 0; block < out->sums.size(); ++block) {
    const float* at = BlockAt(logits, block, padded);
    Floats sums{}, x;
    for (size_t i = 0; i < kLogitBlock; i += kLanes, weights += kLanes) {
      std::memcpy(&x, at + i, sizeof(x));
      for (Float4& v : x) v = (v - top) / temperature;
      Exp(x);
      std::memcpy(weights, &x, sizeof(x));
      for (size_t j = 0; j < kRegs; ++j) sums[j] += x[j];
    }
    out->sums[block] = Fold(sums, std::plus<>());
    out->sum += out->sums[block];
  }
}

int32_t DrawFrom(const LogitWeights& w, double wanted) {
  size_t last = 0;  // of the blocks that have a weight
  double before = 0, reached = 0;
  for (size_t block = 0; block < w.sums.size() && reached <= wanted; ++block) {
    if (w.sums[block] <= 0) continue;
    last = block;
    before = reached;
    reached += w.sums[block];
  }
  // Rounded otherwise, the weights of the block may reach less than its sum.
  size_t token = 0;
  for (size_t i = last * kLogitBlock; i < (last + 1) * kLogitBlock && before <= wanted; ++i) {
    if (w.weights[i] <= 0) continue;
    token = i;
    before += w.weights[i];
  }
  return static_cast<int32_t>(token);
}

void CollectHeaviest(const LogitWeights& w, double least, std::vector<int32_t>* tokens) {
  tokens->clear();
  tokens->reserve(w.weights.size());
  const double rounded = 0.999 * least;  // a sum may be a little less than a weight in it
  for (size_t block = 0; block < w.sums.size(); ++block) {
    if (w.sums[block] < rounded) continue;
    for (size_t i = block * kLogitBlock; i < (block + 1) * kLogitBlock; ++i) {
      if (w.weights[i] > 0 && w.weights[i] >= least) tokens->push_back(static_cast<int32_t>(i));
    }
  }
}

}  // namespace kvasir
