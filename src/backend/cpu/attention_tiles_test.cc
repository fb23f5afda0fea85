// Attention by matrix instructions against the scalar code that defines its arithmetic, split by
// split, bit for bit.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/emulated_kernels.h"
#include "base/aligned_buffer.h"
#include "base/cpu.h"
#include "kv/layout.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

#if defined(__x86_64__)

struct Case {
  KvDType dtype;
  int32_t head_dim, block_tokens;
  std::vector<int32_t> begin, end;  // by row
  float score_scale = 1;
  int32_t bad_token = -1;  // whose V is not finite
};

std::string Describe(const Case& c) {
  return fmt::format("{} head_dim {} blocks of {} rows {} [{},{}) to [{},{}) q {}", NameOf(c.dtype),
                     c.head_dim, c.block_tokens, c.begin.size(), c.begin.front(), c.end.front(),
                     c.begin.back(), c.end.back(), c.score_scale);
}

struct Result3 {
  std::vector<uint8_t> q;
  std::vector<float> m, l, acc;
};

/// One split in blocks in shuffled order, full of NaN where nothing was written.
class SplitUnderTest {
 public:
  explicit SplitUnderTest(const Case& c)
      : c_(c),
        layout_(*KvLayout::Create({.window = {0},
                                   .kv_heads = 2,
                                   .head_dim = c.head_dim,
                                   .block_tokens = c.block_tokens,
                                   .dtype = c.dtype})),
        least_(*std::min_element(c.begin.begin(), c.begin.end())),
        most_(*std::max_element(c.end.begin(), c.end.end())) {
    const int32_t count = kSplitTokens / c.block_tokens;
    memory_ = *AlignedBuffer::Allocate(layout_.block_bytes * static_cast<size_t>(count),
                                       MemoryOwner::kKv, "a test");
    std::memset(memory_.data(), 0xFF, memory_.size());
    std::vector<int32_t> order(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) order[static_cast<size_t>(i)] = i;
    std::shuffle(order.begin(), order.end(), random_);
    for (int32_t i = 0; i < count; ++i) {
      const bool held = (i + 1) * c.block_tokens > least_ && i * c.block_tokens < most_;
      blocks_.push_back(held ? memory_.data() + static_cast<size_t>(order[static_cast<size_t>(i)]) *
                                                    layout_.block_bytes
                             : nullptr);
    }
    Fill();
    const auto rows = static_cast<int32_t>(c.begin.size());
    q_.resize(static_cast<size_t>(rows) * layout_.head_dim_padded);
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < c.head_dim; ++i) {
        q_[static_cast<size_t>(r) * layout_.head_dim_padded + i] =
            normal_(random_) * c.score_scale / std::sqrt(static_cast<float>(c.head_dim));
      }
    }
  }

  Result3 Run(const SplitKernel& kernel) const {
    const auto rows = static_cast<int32_t>(c_.begin.size());
    AlignedBuffer scratch =
        *AlignedBuffer::Allocate(kSplitScratchBytes, MemoryOwner::kScratch, "a test");
    AlignedBuffer q = *AlignedBuffer::Allocate(SplitQueryBytes(layout_.head_dim_padded),
                                               MemoryOwner::kScratch, "a test");
    std::memset(scratch.data(), 0xFF, scratch.size());
    Result3 out;
    out.m.resize(kSplitRows);
    out.l.resize(kSplitRows);
    out.acc.resize(static_cast<size_t>(kSplitRows) * layout_.head_dim_padded);
    kernel.queries(q_.data(), rows, layout_.head_dim_padded, q.data());
    SplitArgs a;
    std::copy(blocks_.begin(), blocks_.end(), a.kv.blocks);
    a.kv.k_offset = layout_.KOffset(0, 1);
    a.kv.v_offset = layout_.VOffset(0, 1);
    a.kv.k_scale_offset = layout_.KScaleOffset(0, 1);
    a.kv.v_scale_offset = layout_.VScaleOffset(0, 1);
    a.block_tokens = layout_.block_tokens;
    a.head_dim_padded = layout_.head_dim_padded;
    a.channels = c_.head_dim;
    a.rows = rows;
    a.q = q.data();
    a.begin = c_.begin.data();
    a.end = c_.end.data();
    a.least = least_;
    a.most = most_;
    a.m = out.m.data();
    a.l = out.l.data();
    a.acc = out.acc.data();
    a.scratch = scratch.data();
    kernel.split(a);
    for (int32_t r = 0; r < kSplitRows; ++r) {
      if (r < rows && c_.begin[static_cast<size_t>(r)] < c_.end[static_cast<size_t>(r)]) continue;
      if (r >= rows) out.m[static_cast<size_t>(r)] = out.l[static_cast<size_t>(r)] = 0;
      std::fill_n(&out.acc[static_cast<size_t>(r) * layout_.head_dim_padded],
                  layout_.head_dim_padded, 0.0f);
    }
    return out;
  }

 private:
  void Fill() {
    for (int32_t t = least_; t < most_; ++t) {
      uint8_t* block = blocks_[static_cast<size_t>(t / layout_.block_tokens)];
      const int32_t slot = t % layout_.block_tokens;
      for (int32_t c = 0; c < layout_.head_dim_padded; ++c) {
        const bool inside = c < c_.head_dim;
        const float k = inside ? normal_(random_) : 0, v = inside ? normal_(random_) : 0;
        uint8_t* k_at = block + layout_.KOffset(0, 1) +
                        layout_.KIndex(slot, c) * static_cast<size_t>(layout_.element_bytes());
        uint8_t* v_at = block + layout_.VOffset(0, 1) +
                        layout_.VIndex(slot, c) * static_cast<size_t>(layout_.element_bytes());
        if (c_.dtype == KvDType::kBF16) {
          const uint16_t bits[2] = {F32ToBf16(k), F32ToBf16(t == c_.bad_token ? INFINITY : v)};
          std::memcpy(k_at, &bits[0], 2);
          std::memcpy(v_at, &bits[1], 2);
        } else {
          *k_at = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(k * 40, -127.0f, 127.0f)));
          *v_at = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(v * 40, -127.0f, 127.0f)));
        }
      }
      if (c_.dtype != KvDType::kInt8) continue;
      const float scales[2] = {std::exp(normal_(random_)) * 0.02f,
                               t == c_.bad_token ? NAN : std::exp(2 * normal_(random_)) * 0.02f};
      std::memcpy(block + layout_.KScaleOffset(0, 1) + slot * 4, &scales[0], 4);
      std::memcpy(block + layout_.VScaleOffset(0, 1) + slot * 4, &scales[1], 4);
    }
  }

  Case c_;
  KvLayout layout_;
  int32_t least_, most_;
  AlignedBuffer memory_;
  std::vector<uint8_t*> blocks_;
  std::vector<float> q_;
  std::mt19937 random_{1};
  std::normal_distribution<float> normal_;
};

/// Equal bits; all NaNs are one, and so are both zeros (a maximum may be either).
bool Same(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if ((std::isnan(a[i]) && std::isnan(b[i])) || (a[i] == 0 && b[i] == 0)) continue;
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i])) return false;
  }
  return a.size() == b.size();
}

struct NamedKernel {
  std::string name;
  SplitKernel kernel;
  SplitKernel twin;  ///< the scalar code that defines its arithmetic
};

/// The kernels of such an arithmetic that this machine can run.
std::vector<NamedKernel> KernelsOf(KvDType dtype) {
  std::vector<NamedKernel> out;
  const auto type = static_cast<size_t>(dtype);
  const auto add = [&](std::string_view name, const AttentionKernels& kernels,
                       const AttentionKernels& twins) {
    if (kernels.of[type].split != nullptr)
      out.push_back({std::string(name), kernels.of[type], twins.of[type]});
  };
  for (const Isa isa : AvailableIsas()) {
    if (isa == Isa::kAmx) add(NameOf(isa), amx::kTileAttention, scalar::kTileAttention);
    if (isa == Isa::kAvx512) add(NameOf(isa), avx512::kAttention, scalar::kTileAttention);
    if (isa == Isa::kAvx512Bf16) add(NameOf(isa), avx512bf16::kAttention, scalar::kPairAttention);
    if (isa != Isa::kAvx2) continue;
    add("emulated AVX-512", emulated::kVnniAttention, scalar::kTileAttention);
    add("emulated AVX512-BF16", emulated::kPairAttention, scalar::kPairAttention);
    add("emulated tiles", emulated::kTileAttention, scalar::kTileAttention);
  }
  return out;
}

void ExpectSameAsScalar(const Case& c) {
  const SplitUnderTest split(c);
  for (const auto& [name, kernel, twin] : KernelsOf(c.dtype)) {
    const Result3 expected = split.Run(twin);
    const Result3 got = split.Run(kernel);
    EXPECT_TRUE(Same(got.m, expected.m)) << name << " " << Describe(c);
    EXPECT_TRUE(Same(got.l, expected.l)) << name << " " << Describe(c);
    EXPECT_TRUE(Same(got.acc, expected.acc)) << name << " " << Describe(c);
  }
}

constexpr KvDType kDTypes[] = {KvDType::kBF16, KvDType::kInt8};

/// Skips what no kernel of this machine is for.
#define SKIP_WITHOUT_KERNELS()                                                \
  if (KernelsOf(KvDType::kBF16).empty() && KernelsOf(KvDType::kInt8).empty()) \
  GTEST_SKIP() << "this machine has no AVX2"

/// Rows of `heads` heads and consecutive tokens, the last at `last`.
Case Rows(KvDType dtype, int32_t head_dim, int32_t block_tokens, int32_t heads, int32_t rows,
          int32_t last, int32_t window, int32_t offset) {
  Case c{dtype, head_dim, block_tokens, {}, {}};
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t position = last - (rows - 1 + offset) / heads + (r + offset) / heads;
    const int32_t begin = std::clamp(window > 0 ? position - window + 1 : 0, 0, kSplitTokens);
    c.begin.push_back(begin);
    c.end.push_back(std::clamp(position + 1, begin, kSplitTokens));
  }
  return c;
}

TEST(TileAttention, EveryShapeHasTheBitsOfTheScalarArithmetic) {
  SKIP_WITHOUT_KERNELS();
  for (const KvDType dtype : kDTypes) {
    if (KernelsOf(dtype).empty()) continue;
    for (const int32_t head_dim : {8, 34, 64, 80, 96, 128, 256}) {
      for (const int32_t block : {16, 32, 64, 512}) {
        ExpectSameAsScalar(Rows(dtype, head_dim, block, 4, 4, 100, 0, 0));
        ExpectSameAsScalar(Rows(dtype, head_dim, block, 3, 32, 77, 0, 1));
        ExpectSameAsScalar(Rows(dtype, head_dim, block, 7, 23, 66, 30, 2));
      }
    }
  }
}

TEST(TileAttention, EveryNumberOfRowsAndEveryTailHasTheBitsOfTheScalarArithmetic) {
  SKIP_WITHOUT_KERNELS();
  for (const KvDType dtype : kDTypes) {
    if (KernelsOf(dtype).empty()) continue;
    for (const int32_t heads : {1, 3, 4, 7, 8}) {
      for (int32_t rows = 1; rows <= kSplitRows; ++rows)
        ExpectSameAsScalar(Rows(dtype, 64, 32, heads, rows, 35 + rows, 0, rows % heads));
      for (int32_t last = 0; last < 66; ++last) {
        ExpectSameAsScalar(Rows(dtype, 48, 16, heads, heads, last, 0, 0));
        ExpectSameAsScalar(Rows(dtype, 64, 64, heads, heads, last + 400, 33, 0));
      }
    }
    // Rows that lie before the split, after it, or have left it.
    ExpectSameAsScalar(Rows(dtype, 64, 32, 2, 32, 5, 0, 0));
    ExpectSameAsScalar(Rows(dtype, 64, 32, 1, 32, 530, 24, 0));
    ExpectSameAsScalar(Rows(dtype, 64, 32, 4, 32, 700, 0, 0));
  }
}

TEST(TileAttention, LargeScoresAndNumbersThatAreNotFiniteHaveTheBitsOfTheScalarArithmetic) {
  SKIP_WITHOUT_KERNELS();
  for (const KvDType dtype : kDTypes) {
    if (KernelsOf(dtype).empty()) continue;
    for (const float scale : {0.0f, 1e-38f, 1e-30f, 20.0f, 100.0f, 1e30f, INFINITY}) {
      Case c = Rows(dtype, 64, 32, 4, 32, 390, 0, 0);
      c.score_scale = scale;
      ExpectSameAsScalar(c);
    }
    for (const int32_t bad : {3, 86, 90}) {
      Case c = Rows(dtype, 64, 32, 4, 32, 90, 0, 0);
      c.bad_token = bad;
      ExpectSameAsScalar(c);
    }
  }
}

TEST(TileAttention, OnlyRowsThatAttendToAValueThatIsNotFiniteShowIt) {
  SKIP_WITHOUT_KERNELS();
  for (const KvDType dtype : kDTypes) {
    if (KernelsOf(dtype).empty()) continue;
    Case c = Rows(dtype, 64, 32, 4, 32, 90, 0, 0);
    c.bad_token = 87;
    for (const auto& [name, kernel, twin] : KernelsOf(dtype)) {
      const Result3 got = SplitUnderTest(c).Run(kernel);
      for (size_t r = 0; r < c.begin.size(); ++r) {
        for (size_t i = 0; i < 64; ++i)
          EXPECT_EQ(std::isfinite(got.acc[r * 64 + i]), c.end[r] <= c.bad_token) << r << " " << i;
      }
    }
  }
}

#endif

}  // namespace
}  // namespace kvasir
