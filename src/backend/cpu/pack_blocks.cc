#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/pack.h"

// Weights of the faster mode. Those of 4 bits keep their nibbles: only the scales of a block's
// groups become small multiples of one, so that a weight is an exact int8 by one multiplication
// and one addition of bytes.
namespace kvasir {
namespace {

constexpr int kMostScale = 17;  // 15 * 17 is a byte

/// 32 weights d q + m of one column, q from 0 to 15 and d >= 0, and sums over them.
struct Group4 {
  double d = 0, m = 0;
  uint8_t q[kGroup] = {};
  int least = 15, most = 0;
  double sum = 0, squares = 0;
};

Group4 ReadGroup4(PackFormat format, const uint8_t* panel, int n, int64_t g) {
  Group4 out;
  const int offset = format == PackFormat::kQ4 ? 8 : 0;
  const PackedGroup group = PackedGroupAt(format, panel, n, g);
  out.d = static_cast<double>(group.d[0]);
  out.m = static_cast<double>(group.m[0]) - offset * out.d;
  const bool negative = out.d < 0;
  if (negative) {  // d q + m = -d (15 - q) + (m + 15 d)
    out.m += 15 * out.d;
    out.d = -out.d;
  }
  for (int i = 0; i < kGroup; ++i) {
    int q = static_cast<int>(group.q[i]) + offset;
    if (negative) q = 15 - q;
    out.q[i] = static_cast<uint8_t>(q);
    out.least = std::min(out.least, q);
    out.most = std::max(out.most, q);
    out.sum += q;
    out.squares += q * q;
  }
  return out;
}

/// Integers for a block of groups, and how far they are from it.
struct Choice {
  double scale = 0, error = 0;
  int s[kBlockGroups] = {}, o[kBlockGroups] = {};
};

/// The best integers for one scale.
Choice Choose(const Group4* groups, int64_t count, double scale) {
  Choice c{.scale = scale};
  for (int64_t i = 0; i < count; ++i) {
    const Group4& g = groups[i];
    const double s = std::clamp(std::nearbyint(g.d / scale), 0.0, double{kMostScale});
    // The offset that brings the mean right, as far as all weights stay bytes.
    const double wanted = std::nearbyint((g.d * g.sum / kGroup + g.m) / scale - s * g.sum / kGroup);
    c.s[i] = static_cast<int>(s);
    const int low = std::max(-128, -128 - c.s[i] * g.least);
    c.o[i] = static_cast<int>(std::clamp(wanted, double(low), double(127 - c.s[i] * g.most)));
    const double slope = g.d - c.s[i] * scale, offset = g.m - c.o[i] * scale;
    c.error += slope * slope * g.squares + 2 * slope * offset * g.sum + offset * offset * kGroup;
  }
  return c;
}

Choice BestOf(const Group4* groups, int64_t count) {
  double most_scale = 0, most_weight = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Group4& g = groups[i];
    most_scale = std::max(most_scale, g.d);
    most_weight =
        std::max({most_weight, std::fabs(g.d * g.least + g.m), std::fabs(g.d * g.most + g.m)});
  }
  if (most_weight == 0) return {};
  constexpr int kLeastScale = 10;  // smaller ones leave the scales too few bits
  Choice best = Choose(groups, count, most_weight / 127);
  for (int s = kLeastScale; s <= kMostScale && most_scale > 0; ++s) {
    const Choice c = Choose(groups, count, most_scale / s);
    if (c.error < best.error) best = c;
  }
  return best;
}

void PackBlock4(PackFormat format, const uint8_t* panel, int64_t first, int64_t count, int n,
                uint8_t* record) {
  Group4 groups[kBlockGroups];
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    groups[i] = ReadGroup4(format, panel, n, first + i);
    finite = finite && std::isfinite(groups[i].d) && std::isfinite(groups[i].m);
  }
  const Choice c = finite ? BestOf(groups, count) : Choice{};
  const auto in = static_cast<size_t>(count);
  for (size_t i = 0; i < in; ++i) {
    const uint8_t* q = groups[i].q;
    for (int b = 0; b < 16; ++b)
      record[i * 256 + b / 4 * 64 + n * 4 + b % 4] = static_cast<uint8_t>(q[b] | q[b + 16] << 4);
    record[in * 256 + i * 16 + n] = static_cast<uint8_t>(c.s[i]);
    record[in * (256 + 16) + i * 16 + n] = static_cast<uint8_t>(static_cast<int8_t>(c.o[i]));
  }
  const float d = finite ? static_cast<float>(c.scale) : NAN;
  std::memcpy(record + BlockBytes(PackFormat::kI4, count) - kPanel * 4 + n * 4, &d, 4);
}

void PackBlock8(const float* w, int64_t count, int n, uint8_t* record) {
  float most = 0;
  bool finite = true;
  for (int64_t i = 0; i < count * kGroup; ++i) {
    finite = finite && std::isfinite(w[i]);
    most = std::max(most, std::fabs(w[i]));
  }
  const float d = finite ? most / 127 : NAN;
  for (int64_t i = 0; i < count * kGroup; ++i) {
    const float q = finite && d > 0 ? std::clamp(std::nearbyintf(w[i] / d), -127.0f, 127.0f) : 0;
    record[i / 4 * 64 + n * 4 + i % 4] = static_cast<uint8_t>(static_cast<int8_t>(q));
  }
  std::memcpy(record + BlockBytes(PackFormat::kI8, count) - kPanel * 4 + n * 4, &d, 4);
}

}  // namespace

void PackBlocks(PackFormat format, const uint8_t* panel, int64_t k, uint8_t* out) {
  const PackFormat to = BlockedFormatOf(format);
  const int64_t groups = k / kGroup, whole = static_cast<int64_t>(BlockBytes(to, kBlockGroups));
  const auto record = [&](int64_t first) { return out + first / kBlockGroups * whole; };
  const auto count = [&](int64_t first) { return std::min(kBlockGroups, groups - first); };
  std::vector<float> w(to == PackFormat::kI8 ? static_cast<size_t>(k) : 0);
  for (int n = 0; n < kPanel; ++n) {
    if (to == PackFormat::kI8) UnpackColumn(format, panel, n, k, 1, w.data());
    for (int64_t first = 0; first < groups; first += kBlockGroups) {
      if (to == PackFormat::kI8)
        PackBlock8(w.data() + first * kGroup, count(first), n, record(first));
      else
        PackBlock4(format, panel, first, count(first), n, record(first));
    }
  }
}

}  // namespace kvasir
