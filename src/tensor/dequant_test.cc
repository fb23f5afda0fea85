#include "tensor/dequant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tensor/half.h"

namespace kvasir {
namespace {

std::vector<uint8_t> ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Dequantize, IsBitEqualToTheReferencePackageInEveryQuantizedFormat) {
  int formats = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(KVASIR_SOURCE_DIR "/tests/data/dequant")) {
    const std::vector<uint8_t> file = ReadFile(entry.path());
    uint32_t header[4];
    ASSERT_GE(file.size(), sizeof(header));
    std::memcpy(header, file.data(), sizeof(header));
    const auto info = FindDType(header[0]);
    ASSERT_TRUE(info) << entry.path();
    ASSERT_EQ(info->block_elements, header[2]) << info->name;
    ASSERT_EQ(info->block_bytes, header[3]) << info->name;
    const size_t n = size_t{header[1]} * header[2];
    const size_t bytes = size_t{header[1]} * header[3];
    ASSERT_EQ(file.size(), sizeof(header) + bytes + n * sizeof(float)) << info->name;
    std::vector<float> expected(n), got(n);
    std::memcpy(expected.data(), file.data() + sizeof(header) + bytes, n * sizeof(float));
    Dequantize(info->dtype, file.data() + sizeof(header), got);
    for (size_t i = 0; i < n; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]))
          << info->name << " element " << i << ": " << got[i] << " against " << expected[i];
    }
    ++formats;
  }
  EXPECT_EQ(formats, 12);
}

// A second derivation of IEEE half: value = (-1)^s * m * 2^e in double.
double HalfByDefinition(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const double mantissa = exponent == 0 ? h & 1023 : (h & 1023) + 1024;
  const double value = std::ldexp(mantissa, (exponent == 0 ? 1 : exponent) - 25);
  return (h & 0x8000) != 0 ? -value : value;
}

TEST(Half, WidensAllBitPatternsByTheDefinition) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = F16ToF32(static_cast<uint16_t>(h));
    if (((h >> 10) & 31) == 31) {
      EXPECT_EQ(std::isnan(f), (h & 1023) != 0);
      EXPECT_EQ(std::isinf(f), (h & 1023) == 0);
    } else {
      EXPECT_EQ(f, HalfByDefinition(static_cast<uint16_t>(h)));
    }
    EXPECT_EQ(std::signbit(f), (h & 0x8000) != 0);
  }
}

TEST(Half, NarrowsToTheNearestTiesToEven) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {  // every finite positive half and its upper neighbour
    const auto low = static_cast<uint16_t>(h);
    const double a = HalfByDefinition(low);
    const double b = h == 0x7bff ? 65536.0 : HalfByDefinition(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((a + b) / 2);  // exact: one more bit
    const auto even = static_cast<uint16_t>((h & 1) == 0 ? h : h + 1);
    EXPECT_EQ(F32ToF16(static_cast<float>(a)), low);
    EXPECT_EQ(F32ToF16(middle), even) << h;
    EXPECT_EQ(F32ToF16(std::nextafterf(middle, 0.0f)), low);
    EXPECT_EQ(F32ToF16(std::nextafterf(middle, INFINITY)), h + 1);
    EXPECT_EQ(F32ToF16(-middle), even | 0x8000);
  }
  EXPECT_EQ(F32ToF16(INFINITY), 0x7c00);
  EXPECT_EQ(F32ToF16(1e30f), 0x7c00);
  EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(NAN))));
}

TEST(Half, Bf16RoundsTripsAndRoundsTiesToEven) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = Bf16ToF32(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(f))));
    } else {
      EXPECT_EQ(F32ToBf16(f), h);
    }
  }
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, even below
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // tie, even above
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
}

}  // namespace
}  // namespace kvasir
