#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/vector_kernels.h"
#include "base/cpu.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

std::vector<const VectorKernels*> Available() {
  std::vector<const VectorKernels*> out;
  for (const Isa isa : AvailableIsas()) {
    if (isa == Isa::kScalar) out.push_back(&scalar::kVector);
#if defined(__x86_64__)
    if (isa == Isa::kAvx2) out.push_back(&avx2::kVector);
    if (isa == Isa::kAvx512) out.push_back(&avx512::kVector);
#elif defined(__aarch64__)
    if (isa == Isa::kNeon) out.push_back(&neon::kVector);
#endif
  }
  return out;
}

TEST(Vector, ExpIsWithinItsPromisedError) {
  double worst = 0;
  for (float x = -87.3f; x <= 88.0f; x += 0.00073f) {
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(scalar::Exp(x) - exact) / exact);
  }
  EXPECT_LE(worst, 2.5e-7);
  EXPECT_EQ(scalar::Exp(-200.0f), 0.0f);
  EXPECT_EQ(scalar::Exp(0.0f), 1.0f);
  EXPECT_EQ(scalar::Exp(1000.0f), scalar::Exp(88.0f));
  EXPECT_TRUE(std::isnan(scalar::Exp(NAN)));
}

TEST(Vector, StatesMergeToThatOfAllPositionsWithTheSameBitsInEverySet) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 4);
  const float kNone = -INFINITY;
  for (const int32_t n : {16, 64, 80, 256}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<float> a(n), b(n);
      for (float& x : a) x = normal(random);
      for (float& x : b) x = normal(random);
      float m[] = {normal(random), 30 * normal(random)};
      if (round == 1) m[0] = m[1];
      if (round == 2) m[0] = kNone;
      if (round == 3) m[1] = kNone;
      if (round == 4) m[0] = NAN;
      const float l[] = {std::abs(normal(random)), std::abs(normal(random))};
      std::vector<float> expected;
      for (const VectorKernels* set : Available()) {
        std::vector<float> to = a, from = b;
        RowState state{m[0], l[0], to.data()};
        set->merge({m[1], l[1], from.data()}, n, &state);
        to.push_back(state.m);
        to.push_back(state.l);
        if (expected.empty()) expected = to;
        EXPECT_EQ(std::memcmp(expected.data(), to.data(), to.size() * sizeof(float)), 0)
            << n << " " << round;
      }
      if (std::isnan(m[0]) || round == 2 || round == 3) continue;
      const double most = std::max(m[0], m[1]);
      const double keep = std::exp(m[0] - most), take = std::exp(m[1] - most);
      EXPECT_EQ(expected[n], most);
      EXPECT_NEAR(expected[n + 1], l[0] * keep + l[1] * take, 1e-5);
      for (int32_t c = 0; c < n; ++c) EXPECT_NEAR(expected[c], a[c] * keep + b[c] * take, 1e-5);
    }
  }
}

std::vector<float> Inputs(size_t n) {
  std::mt19937 random(static_cast<uint32_t>(n));
  std::normal_distribution<float> normal(0, 8);
  std::vector<float> out(n);
  for (float& x : out) x = normal(random);
  if (n > 20) {
    out[3] = 0.0f;
    out[4] = -0.0f;
    out[5] = 300.0f;
    out[6] = -300.0f;
    out[7] = 1e-30f;
  }
  return out;
}

TEST(Vector, ActivationsAreTheirDefinitionAndEqualInEverySet) {
  for (const size_t n : {1, 7, 16, 33, 576, 1537}) {
    const std::vector<float> x = Inputs(n), up = Inputs(n + 1);
    std::vector<float> silu, gelu;
    for (const VectorKernels* kernels : Available()) {
      std::vector<float> a = x, b = x;
      kernels->silu(a.data(), up.data(), static_cast<int64_t>(n));
      kernels->gelu(b.data(), up.data(), static_cast<int64_t>(n));
      if (silu.empty()) {
        silu = a;
        gelu = b;
        for (size_t i = 0; i < n; ++i) {
          const double v = x[i], u = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
          EXPECT_NEAR(a[i], v / (1 + std::exp(-v)) * up[i], 1e-5 * std::abs(v * up[i]) + 1e-6);
          EXPECT_NEAR(b[i], 0.5 * v * (1 + std::tanh(u)) * up[i],
                      1e-5 * std::abs(v * up[i]) + 1e-6);
        }
      }
      EXPECT_EQ(std::memcmp(a.data(), silu.data(), n * sizeof(float)), 0) << n;
      EXPECT_EQ(std::memcmp(b.data(), gelu.data(), n * sizeof(float)), 0) << n;
    }
  }
}

TEST(Vector, PairsTurnByTheirAnglesWithTheSameBitsInEverySet) {
  for (const int32_t pairs : {1, 4, 17, 32, 40, 64, 128}) {
    const auto n = static_cast<size_t>(pairs);
    const std::vector<float> x = Inputs(2 * n);
    std::vector<float> cos(n), sin(n);
    for (size_t i = 0; i < n; ++i) {
      cos[i] = std::cos(0.7f * static_cast<float>(i));
      sin[i] = std::sin(0.7f * static_cast<float>(i));
    }
    for (const bool neox : {false, true}) {
      std::vector<float> first;
      for (const VectorKernels* kernels : Available()) {
        std::vector<float> y = x;
        kernels->rotate(y.data(), pairs, cos.data(), sin.data(), neox, 0.125f);
        if (first.empty()) first = y;
        EXPECT_EQ(std::memcmp(y.data(), first.data(), y.size() * sizeof(float)), 0) << pairs;
        for (size_t i = 0; i < n; ++i) {
          const size_t a = neox ? i : 2 * i, b = neox ? i + n : 2 * i + 1;
          EXPECT_NEAR(std::hypot(y[a], y[b]), 0.125 * std::hypot(x[a], x[b]), 1e-5);
          EXPECT_NEAR(y[a], 0.125 * (x[a] * cos[i] - x[b] * sin[i]), 1e-5);
        }
      }
    }
  }
}

TEST(Vector, Bf16IsRoundedToNearestEvenInEverySet) {
  std::mt19937 random(5);
  std::vector<float> x(1001);
  for (float& v : x) v = std::bit_cast<float>(static_cast<uint32_t>(random()));
  const uint32_t some[] = {0x00000001, 0x00008000, 0x00018000, 0x3f808000, 0x3f818000, 0x7f7fffff,
                           0x7f800000, 0xff800000, 0x7f800001, 0xffc00000, 0x80000000, 0x3f807fff};
  for (size_t i = 0; i < std::size(some); ++i) x[i] = std::bit_cast<float>(some[i]);
  for (const VectorKernels* kernels : Available()) {
    for (const int32_t n : {1, 7, 16, 33, 1001}) {
      std::vector<uint16_t> out(x.size(), 0xabcd);
      kernels->to_bf16(x.data(), n, out.data());
      for (size_t i = 0; i < out.size(); ++i)
        ASSERT_EQ(out[i], i < static_cast<size_t>(n) ? F32ToBf16(x[i]) : 0xabcd) << n << " " << i;
    }
  }
}

TEST(Vector, SoftmaxLeavesOutWhatIsOutsideAndIsEqualInEverySet) {
  for (const auto& [begin, end] :
       {std::pair{0, 1}, {0, 512}, {5, 6}, {13, 200}, {16, 32}, {511, 512}}) {
    std::vector<float> scores = Inputs(512), first;
    for (int i = 0; i < 512; ++i) {
      if (i < begin || i >= end) scores[i] = NAN;
    }
    float first_m = 0, first_l = 0;
    for (const VectorKernels* kernels : Available()) {
      std::vector<float> s = scores;
      float m = 0, l = 0;
      kernels->softmax(s.data(), begin, end, &m, &l);
      double sum = 0;
      for (int i = begin; i < end; ++i) sum += std::exp(static_cast<double>(scores[i]) - m);
      EXPECT_NEAR(l, sum, 1e-5 * sum);
      s = std::vector<float>(s.begin() + begin, s.begin() + end);
      if (first.empty()) {
        first = s;
        first_m = m;
        first_l = l;
      }
      EXPECT_EQ(m, first_m);
      EXPECT_EQ(std::bit_cast<uint32_t>(l), std::bit_cast<uint32_t>(first_l));
      EXPECT_EQ(std::memcmp(s.data(), first.data(), s.size() * sizeof(float)), 0);
    }
  }
}

}  // namespace
}  // namespace kvasir
