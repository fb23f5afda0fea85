#include "base/rng.h"

namespace kvasir {

std::array<uint32_t, 4> Philox4x32(uint64_t key, std::array<uint32_t, 4> c) {
  // Multipliers and Weyl constants of the paper, section 3.3 and table 2.
  constexpr uint64_t kM0 = 0xD2511F53, kM1 = 0xCD9E8D57;
  constexpr uint32_t kW0 = 0x9E3779B9, kW1 = 0xBB67AE85;
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kM0 * c[0], p1 = kM1 * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += kW0;
    k1 += kW1;
  }
  return c;
}

double RandomStream::Uniform(uint64_t position, uint32_t draw) const {
  const auto r = Philox4x32(
      key, {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), stream, draw});
  const uint64_t bits = (uint64_t{r[0]} << 32 | r[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace kvasir
