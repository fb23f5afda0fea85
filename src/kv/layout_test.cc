#include "kv/layout.h"

#include <gtest/gtest.h>

#include <set>

namespace kvasir {
namespace {

KvLayout Make(std::vector<int32_t> window, int32_t kv_heads, int32_t head_dim, int32_t block_tokens,
              KvDType dtype) {
  auto layout = KvLayout::Create({.window = std::move(window),
                                  .kv_heads = kv_heads,
                                  .head_dim = head_dim,
                                  .block_tokens = block_tokens,
                                  .dtype = dtype});
  EXPECT_TRUE(layout.ok()) << layout.error().message;
  return *layout;
}

// Every element of a block has its own bytes, inside the block.
TEST(KvLayout, NoTwoElementsShareAnAddress) {
  for (const KvDType dtype : {KvDType::kF32, KvDType::kF16, KvDType::kBF16, KvDType::kInt8}) {
    for (const int32_t head_dim : {16, 40, 64, 80}) {
      const KvLayout l = Make({0, 0, 0}, 2, head_dim, 32, dtype);
      std::set<size_t> seen;
      const auto take = [&](size_t offset, size_t bytes) {
        for (size_t b = 0; b < bytes; ++b) {
          ASSERT_LT(offset + b, l.block_bytes);
          ASSERT_TRUE(seen.insert(offset + b).second) << "byte " << offset + b << " twice";
        }
      };
      const auto element = static_cast<size_t>(l.element_bytes());
      for (int32_t layer = 0; layer < 3; ++layer) {
        for (int32_t head = 0; head < 2; ++head) {
          for (int32_t token = 0; token < 32; ++token) {
            for (int32_t c = 0; c < l.head_dim_padded; ++c) {
              take(l.KOffset(layer, head) + l.KIndex(token, c) * element, element);
              take(l.VOffset(layer, head) + l.VIndex(token, c) * element, element);
            }
            if (l.scale_bytes > 0) {
              take(l.KScaleOffset(layer, head) + token * 4, 4);
              take(l.VScaleOffset(layer, head) + token * 4, 4);
            }
          }
        }
      }
      EXPECT_LE(l.block_bytes - seen.size(), 63u);  // nothing but the final alignment is unused
    }
  }
}

TEST(KvLayout, SixteenWordsAreSixteenTokensOfAKeyOrSixteenChannelsOfAValue) {
  const KvLayout l = Make({0}, 1, 64, 32, KvDType::kBF16);
  for (int32_t t = 0; t < 16; ++t) {
    EXPECT_EQ(l.KIndex(16 + t, 6), l.KIndex(16, 6) + 2 * t);
    EXPECT_EQ(l.KIndex(16 + t, 7), l.KIndex(16 + t, 6) + 1);
    EXPECT_EQ(l.VIndex(6, 16 + t), l.VIndex(6, 16) + 2 * t);
    EXPECT_EQ(l.VIndex(7, 16 + t), l.VIndex(6, 16 + t) + 1);
  }
}

TEST(KvLayout, BytesPerTokenAreTwoTimesLayersHeadsAndDim) {
  // mission.md: 2 * L * h_kv * d_h * bytes. SmolLM2-135M: 30 layers, 3 kv heads of 64.
  const KvLayout l = Make(std::vector<int32_t>(30, 0), 3, 64, 32, KvDType::kBF16);
  EXPECT_EQ(l.bytes_per_token(), 2 * 30 * 3 * 64 * 2);
  EXPECT_EQ(l.groups.size(), 1u);
}

TEST(KvLayout, LayersOfOneWindowFormGroupsOfEqualBlocks) {
  std::vector<int32_t> window;  // Gemma 3 270M: 18 layers, every sixth sees all
  for (int32_t l = 0; l < 18; ++l) window.push_back((l + 1) % 6 == 0 ? 0 : 512);
  const KvLayout l = Make(window, 1, 256, 32, KvDType::kBF16);
  EXPECT_EQ(l.layers_per_block, 3);
  ASSERT_EQ(l.groups.size(), 6u);
  std::set<int32_t> seen;
  for (size_t g = 0; g < l.groups.size(); ++g) {
    for (const int32_t layer : l.groups[g].layers) {
      EXPECT_EQ(l.groups[g].window, window[layer]);
      EXPECT_EQ(l.group_of(layer), static_cast<int32_t>(g));
      EXPECT_TRUE(seen.insert(layer).second);
    }
  }
  EXPECT_EQ(seen.size(), 18u);
}

TEST(KvLayout, SplittingGroupsLeavesAtMostThreePercentUnused) {
  for (int32_t layers = 1; layers <= 64; ++layers) {
    for (int32_t every = 2; every <= 7; ++every) {
      std::vector<int32_t> window;
      for (int32_t l = 0; l < layers; ++l) window.push_back((l + 1) % every == 0 ? 0 : 512);
      const KvLayout l = Make(window, 1, 64, 16, KvDType::kBF16);
      const auto places = static_cast<int32_t>(l.groups.size()) * l.layers_per_block;
      EXPECT_LE((places - layers) * 100, layers * 3) << layers << " layers, every " << every;
    }
  }
}

TEST(KvLayout, RefusesShapesItCannotHold) {
  const auto refused = [](KvShape shape) { return !KvLayout::Create(shape).ok(); };
  EXPECT_TRUE(refused({.window = {}, .kv_heads = 1, .head_dim = 64}));
  EXPECT_TRUE(refused({.window = {0}, .kv_heads = 0, .head_dim = 64}));
  EXPECT_TRUE(refused({.window = {0}, .kv_heads = 1, .head_dim = -5}));
  EXPECT_TRUE(refused({.window = {0}, .kv_heads = 1, .head_dim = 64, .block_tokens = 24}));
  EXPECT_TRUE(refused({.window = {0}, .kv_heads = 1, .head_dim = 64, .block_tokens = 1024}));
  EXPECT_TRUE(refused({.window = std::vector<int32_t>(1000, 0),
                       .kv_heads = 1 << 20,
                       .head_dim = 1 << 20,
                       .block_tokens = 512}));
}

TEST(KvLayout, ParsesTheNamesItPrints) {
  for (const KvDType d : {KvDType::kF32, KvDType::kF16, KvDType::kBF16, KvDType::kInt8}) {
    EXPECT_EQ(*ParseKvDType(NameOf(d)), d);
  }
  EXPECT_FALSE(ParseKvDType("q4_0").ok());
}

}  // namespace
}  // namespace kvasir
