#include "base/rng.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

// Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10 rounds).
TEST(Rng, PhiloxMatchesThePublishedKnownAnswers) {
  using A = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32(0, {0, 0, 0, 0}), (A{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32(~0ull, {~0u, ~0u, ~0u, ~0u}),
            (A{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32(0x299f31d0a4093822ull, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (A{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, UniformStaysBelowOneAndHasTheRightMean) {
  RandomStream stream{.key = 7, .stream = 1};
  double sum = 0;
  for (int i = 0; i < 100000; ++i) {
    const double u = stream.Uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 100000, 0.5, 0.005);
}

TEST(Rng, StreamsOfOneSeedDiffer) {
  RandomStream a{.key = 7, .stream = 0}, b{.key = 7, .stream = 1};
  EXPECT_NE(a.Uniform(0), b.Uniform(0));
  EXPECT_EQ(a.Uniform(5), (RandomStream{.key = 7, .stream = 0}).Uniform(5));
}

}  // namespace
}  // namespace kvasir
