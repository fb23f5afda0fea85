#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_matmul.h"
#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "base/cpu.h"
#include "base/thread_pool.h"
#include "tensor/blocks.h"
#include "tensor/dequant.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

constexpr DType kFormats[] = {DType::kF32,  DType::kF16,    DType::kBF16,  DType::kQ4_0,
                              DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,  DType::kQ8_0,
                              DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,  DType::kQ5_K,
                              DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS};

/// Byte offsets of the halves in a block, which random bytes would make NaN or huge.
std::vector<size_t> HalfOffsets(DType dtype) {
  switch (dtype) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

/// Random valid blocks of a format: n rows of k.
std::vector<uint8_t> RandomWeights(DType dtype, int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  const DTypeInfo& info = InfoOf(dtype);
  const TensorView shape{dtype, n, k, nullptr};
  std::vector<uint8_t> data(shape.bytes());
  if (info.block_elements == 1) {
    for (size_t i = 0; i < data.size() / info.block_bytes; ++i) {
      const float v = normal(random);
      const uint16_t half = dtype == DType::kF16 ? F32ToF16(v) : F32ToBf16(v);
      std::memcpy(&data[i * info.block_bytes],
                  dtype == DType::kF32 ? static_cast<const void*>(&v) : &half, info.block_bytes);
    }
    return data;
  }
  for (uint8_t& b : data) b = static_cast<uint8_t>(random());
  for (size_t block = 0; block < data.size(); block += info.block_bytes) {
    for (const size_t at : HalfOffsets(dtype)) {
      const uint16_t half = F32ToF16(normal(random));
      std::memcpy(&data[block + at], &half, 2);
    }
  }
  return data;
}

std::vector<float> RandomRows(int64_t rows, int64_t stride, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(static_cast<size_t>(rows * stride));
  for (float& v : x) v = normal(random);
  return x;
}

struct NamedKernels {
  std::string name;
  const MatMulKernels* kernels;
  const MatMulKernels* twin;  ///< the scalar kernels that define their arithmetic
  bool one_thread = false;
  bool in_tiles() const { return twin == &scalar::kMatMulTiles; }
  bool in_pairs() const { return twin == &scalar::kMatMulPairs; }
};

/// Those of all instruction sets here, the scalar ones first; with AVX2 also those of wider ones,
/// emulated.
std::vector<NamedKernels> AllKernels() {
  std::vector<NamedKernels> out;
  for (const Isa isa : AvailableIsas()) {
    out.push_back({std::string(NameOf(isa)), &MatMulKernelsFor(isa),
                   isa == Isa::kAmx          ? &scalar::kMatMulTiles
                   : isa == Isa::kAvx512Bf16 ? &scalar::kMatMulPairs
                                             : &scalar::kMatMul});
#if defined(__x86_64__)
    if (isa != Isa::kAvx2) continue;
    out.push_back({"emulated AVX-VNNI", &emulated::kVnni256, &scalar::kMatMul});
    out.push_back({"emulated AVX-512", &emulated::kVnni512, &scalar::kMatMul});
    out.push_back({"emulated AVX512-BF16", &emulated::kPairs, &scalar::kMatMulPairs});
    // There is one set of emulated tiles.
    out.push_back({"emulated tiles", &emulated::kTiles, &scalar::kMatMulTiles, true});
#endif
  }
  return out;
}

/// With plain C++ of every arithmetic, whatever this machine has.
std::vector<NamedKernels> KernelsAndTwins() {
  std::vector<NamedKernels> all = AllKernels();
  all.push_back({"pairs", &scalar::kMatMulPairs, &scalar::kMatMulPairs});
  all.push_back({"tiles", &scalar::kMatMulTiles, &scalar::kMatMulTiles});
  return all;
}

/// More rows than one block of a tile kernel has (kMostTileRows), and than two.
constexpr int32_t kRowsBeyondABlock[] = {513, 1040};

struct Problem {
  DType dtype;
  int64_t n, k;
  std::vector<uint8_t> data;
  TensorView view() const { return {dtype, n, k, data.data()}; }
};

Problem MakeProblem(DType dtype, int64_t n, int64_t k, uint32_t seed) {
  return {dtype, n, k, RandomWeights(dtype, n, k, seed)};
}

std::vector<float> Multiply(const MatMulKernels& kernels, int threads, const Problem& p,
                            const std::vector<float>& x, int64_t x_stride, int32_t rows,
                            int32_t rows_per_call = 1 << 20, const float* bias = nullptr,
                            const std::vector<float>* add_to = nullptr, bool fast = false) {
  ThreadPool pool(threads, false);
  CpuMatMul mm(&kernels, &pool, fast);
  EXPECT_TRUE(mm.ReserveScratch(rows, p.k).ok());
  const Result<Matrix> m = mm.Pack(p.view());
  EXPECT_TRUE(m.ok());
  std::vector<float> out(static_cast<size_t>(rows) * p.n);
  if (add_to != nullptr) out = *add_to;
  OpCounters counters;
  for (int32_t r = 0; r < rows; r += rows_per_call) {
    const MatMulOutput o{&*m, bias, out.data() + static_cast<size_t>(r) * p.n, p.n,
                         add_to != nullptr};
    mm.Run(x.data() + r * x_stride, x_stride, std::min(rows_per_call, rows - r), {&o, 1}, counters);
  }
  return out;
}

void ExpectSameBits(const std::vector<float>& a, const std::vector<float>& b,
                    const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i]))
        << what << ", element " << i << ": " << a[i] << " against " << b[i];
  }
}

std::vector<int64_t> WidthsOf(DType dtype) {
  if (InfoOf(dtype).block_elements == 256) return {256, 768};
  if (InfoOf(dtype).block_elements == 32) return {32, 96, 576};
  return {1, 31, 64, 577};
}

/// Products of `rows` rows by each set have the bits of its scalar kernels.
void ExpectBitsOfTheirTwins(const std::vector<NamedKernels>& all, const Problem& p,
                            const std::vector<float>& x, int64_t x_stride, int32_t rows) {
  std::map<const MatMulKernels*, std::vector<float>> expected;
  for (const NamedKernels& kernels : all) {
    auto [twin, is_new] = expected.try_emplace(kernels.twin);
    if (is_new) twin->second = Multiply(*kernels.twin, 1, p, x, x_stride, rows);
    ExpectSameBits(
        Multiply(*kernels.kernels, 1, p, x, x_stride, rows), twin->second,
        fmt::format("{} {} n={} k={} rows={}", kernels.name, NameOf(p.dtype), p.n, p.k, rows));
  }
}

TEST(MatMul, EveryInstructionSetGivesTheBitsOfItsScalarKernels) {
  for (const DType dtype : kFormats) {
    for (const int64_t k : WidthsOf(dtype)) {
      for (const int64_t n : {1, 15, 16, 17, 50}) {
        const Problem p = MakeProblem(dtype, n, k, static_cast<uint32_t>(n * 1000 + k));
        const int64_t stride = k + 3;
        for (const int32_t rows : {1, 2, 3, 5, 8, 13, 16, 17, 37}) {
          const auto x = RandomRows(rows, stride, static_cast<uint32_t>(rows));
          ExpectBitsOfTheirTwins(AllKernels(), p, x, stride, rows);
        }
      }
    }
  }
}

TEST(MatMul, ManyRowsOfManyPanelsHaveTheBitsOfTheScalarKernels) {
  for (const DType dtype : {DType::kBF16, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const int64_t k = dtype == DType::kBF16 ? 1061 : 1280;  // three slabs
    const Problem p = MakeProblem(dtype, 16 * 19 - 3, k, 17);
    for (const int32_t rows : {33, 70, 131}) {
      const auto x = RandomRows(rows, k, static_cast<uint32_t>(rows));
      ExpectBitsOfTheirTwins(AllKernels(), p, x, k, rows);
    }
  }
}

TEST(MatMul, ARowDoesNotDependOnItsCompanyNorOnThreads) {
  for (const NamedKernels& kernels : AllKernels()) {
    for (const DType dtype : kFormats) {
      const Problem p = MakeProblem(dtype, 100, 512, 5);
      const auto x = RandomRows(40, 512, 6);
      const auto together = Multiply(*kernels.kernels, 1, p, x, 512, 40);
      for (const int32_t rows : {1, 3, 7, 16, 39}) {
        ExpectSameBits(Multiply(*kernels.kernels, kernels.one_thread ? 1 : 2, p, x, 512, 40, rows),
                       together,
                       fmt::format("{} {} in calls of {} rows", kernels.name, NameOf(dtype), rows));
      }
    }
  }
}

TEST(MatMul, RowsThatThreadsTakeForThemselvesKeepTheirBits) {
  constexpr int32_t kRows = 301;
  const auto x = RandomRows(kRows, 288, 25);
  for (const NamedKernels& kernels : AllKernels()) {
    if (kernels.one_thread) continue;
    for (const bool fast : {false, true}) {
      if (fast && kernels.kernels->quantize_blocks == nullptr) continue;
      for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_0}) {
        const Problem p = MakeProblem(dtype, 50, 288, 26);
        const auto by = [&](int threads, int32_t rows_per_call) {
          return Multiply(*kernels.kernels, threads, p, x, 288, kRows, rows_per_call, nullptr,
                          nullptr, fast);
        };
        ExpectSameBits(by(2, kRows), by(1, 16),
                       fmt::format("{} {} {}", kernels.name, NameOf(dtype), fast));
      }
    }
  }
}

TEST(MatMul, RowsOfEveryBlockHaveTheBitsTheyHaveInSmallCalls) {
  const std::vector<NamedKernels> all = KernelsAndTwins();
  for (const DType dtype : {DType::kBF16, DType::kQ4_0, DType::kQ6_K}) {
    const Problem p = MakeProblem(dtype, 18, 256, 29);
    for (const int32_t rows : kRowsBeyondABlock) {
      const auto x = RandomRows(rows, 256, static_cast<uint32_t>(rows));
      std::vector<float> expected;
      const MatMulKernels* twin = nullptr;
      for (const NamedKernels& kernels : all) {
        if (twin != kernels.twin) {
          twin = kernels.twin;
          expected = Multiply(*twin, 1, p, x, 256, rows, 16);
        }
        // Threads that share rows have fewer each: so that the most are one thread's.
        const int threads = kernels.one_thread || rows > 1000 ? 1 : 2;
        ExpectSameBits(Multiply(*kernels.kernels, threads, p, x, 256, rows), expected,
                       fmt::format("{} {} rows={}", kernels.name, NameOf(dtype), rows));
      }
    }
  }
}

TEST(MatMul, RowsNeedNotBeAligned) {
  constexpr int32_t kRows = 21;
  constexpr int64_t kInputs = 256, kOutputs = 35;
  const auto x = RandomRows(kRows, kInputs, 30);
  std::vector<float> off = {0};  // the same one float further on
  off.insert(off.end(), x.begin(), x.end());
  for (const NamedKernels& kernels : AllKernels()) {
    for (const DType dtype : kFormats) {
      const Problem p = MakeProblem(dtype, kOutputs, kInputs, 31);
      ThreadPool pool(1, false);
      CpuMatMul mm(kernels.kernels, &pool);
      ASSERT_TRUE(mm.ReserveScratch(kRows, kInputs).ok());
      const Result<Matrix> m = mm.Pack(p.view());
      ASSERT_TRUE(m.ok());
      std::vector<float> got(1 + kRows * kOutputs);
      const MatMulOutput o{&*m, nullptr, got.data() + 1, kOutputs, false};
      OpCounters counters;
      mm.Run(off.data() + 1, kInputs, kRows, {&o, 1}, counters);
      got.erase(got.begin());
      ExpectSameBits(got, Multiply(*kernels.kernels, 1, p, x, kInputs, kRows),
                     fmt::format("{} {}", kernels.name, NameOf(dtype)));
    }
  }
}

TEST(MatMul, PackedWeightsTakeAtMostAFewHundredthsMoreThanTheFile) {
  ThreadPool pool(1, false);
  const CpuMatMul mm(&scalar::kMatMul, &pool);
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                            DType::kQ8_0, DType::kBF16, DType::kF16}) {
    const TensorView view{dtype, 2048, 2048, nullptr};
    const Result<size_t> packed = mm.PackedBytes(dtype, view.rows, view.cols);
    ASSERT_TRUE(packed.ok());
    EXPECT_LE(static_cast<double>(*packed), 1.05 * static_cast<double>(view.bytes()))
        << NameOf(dtype);
  }
}

TEST(MatMul, AddsBiasAndResidual) {
  for (const NamedKernels& kernels : AllKernels()) {
    for (const DType dtype : {DType::kF32, DType::kQ4_1, DType::kQ8_0}) {
      const Problem p = MakeProblem(dtype, 37, 64, 7);
      const auto x = RandomRows(6, 64, 8), bias = RandomRows(1, 37, 9),
                 residual = RandomRows(6, 37, 10);
      const auto plain = Multiply(*kernels.kernels, 1, p, x, 64, 6);
      const auto got = Multiply(*kernels.kernels, 1, p, x, 64, 6, 6, bias.data(), &residual);
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_EQ(got[i], residual[i] + (plain[i] + bias[i % 37]));
    }
  }
}

void MultiplyUp(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = std::max(gate[i], -0.25f) * up[i];
}

struct FeedForwardFormats {
  DType gate, up, down;
};

/// In one call what it is in three.
void ExpectFeedForwardInSteps(const NamedKernels& kernels, const FeedForwardFormats& formats,
                              int64_t dim, int64_t wide, int32_t rows, int threads, bool fast) {
  const Problem gate = MakeProblem(formats.gate, wide, dim, 41),
                up = MakeProblem(formats.up, wide, dim, 42),
                down = MakeProblem(formats.down, dim, wide, 43);
  const auto x = RandomRows(rows, dim + 5, 44), gate_bias = RandomRows(1, wide, 45),
             up_bias = RandomRows(1, wide, 48), down_bias = RandomRows(1, dim, 46),
             residual = RandomRows(rows, dim, 47);
  const auto by = [&](const Problem& p, const std::vector<float>& in, int64_t stride,
                      const float* bias, const std::vector<float>* add) {
    return Multiply(*kernels.kernels, 1, p, in, stride, rows, 1 << 20, bias, add, fast);
  };
  std::vector<float> inner = by(gate, x, dim + 5, gate_bias.data(), nullptr);
  const std::vector<float> ups = by(up, x, dim + 5, up_bias.data(), nullptr);
  MultiplyUp(inner.data(), ups.data(), static_cast<int64_t>(inner.size()));
  const std::vector<float> expected = by(down, inner, wide, down_bias.data(), &residual);

  ThreadPool pool(threads, false);
  CpuMatMul mm(kernels.kernels, &pool, fast);
  ASSERT_TRUE(mm.ReserveScratch(rows, std::max(dim, wide)).ok());
  const Result<Matrix> g = mm.Pack(gate.view()), u = mm.Pack(up.view()), d = mm.Pack(down.view());
  ASSERT_TRUE(g.ok() && u.ok() && d.ok());
  std::vector<float> got = residual;
  OpCounters counters;
  FeedForwardArgs args;
  args.x = x.data();
  args.x_stride = dim + 5;
  args.rows = rows;
  args.gate = &*g;
  args.up = &*u;
  args.gate_bias = gate_bias.data();
  args.up_bias = up_bias.data();
  args.down = {&*d, down_bias.data(), got.data(), dim, true};
  mm.FeedForward(args, MultiplyUp, counters);
  ExpectSameBits(got, expected,
                 fmt::format("{} {} {} {} {} x {} rows={} threads={} fast={}", kernels.name,
                             NameOf(formats.gate), NameOf(formats.up), NameOf(formats.down), dim,
                             wide, rows, threads, fast));
  EXPECT_EQ(counters.projections, 3 * static_cast<uint64_t>(rows));
  EXPECT_EQ(counters.matmul_flops, 6 * static_cast<uint64_t>(rows * dim * wide));
  EXPECT_EQ(counters.weight_bytes, g->bytes() + u->bytes() + d->bytes());
}

TEST(MatMul, AFeedForwardNetworkHasTheBitsOfItsProductsOneAfterAnother) {
  constexpr DType kQ = DType::kQ4_0, kB = DType::kBF16, kF = DType::kF32;
  for (const NamedKernels& kernels : KernelsAndTwins()) {
    for (const bool fast : {false, true}) {
      if (fast && kernels.kernels->quantize_blocks == nullptr) continue;
      for (const int32_t rows : {1, 17, 70, 300}) {
        const int threads = kernels.one_thread || rows == 70 ? 1 : 2;
        ExpectFeedForwardInSteps(kernels, {kQ, kQ, DType::kQ4_K}, 64, 768, rows, threads, fast);
      }
      ExpectFeedForwardInSteps(kernels, {DType::kQ4_K, DType::kQ6_K, kQ}, 256, 320, 5, 1, fast);
      // More blocks than threads, and more rows than one block of them.
      ExpectFeedForwardInSteps(kernels, {kQ, kQ, kQ}, 32, 4384, 3, kernels.one_thread ? 1 : 2,
                               fast);
      ExpectFeedForwardInSteps(kernels, {kQ, kQ, kB}, 32, 288, kRowsBeyondABlock[0], 1, fast);
      // Gate and up that take other inputs than each other, or than down.
      for (const DType gate : {kQ, kB, kF}) {
        for (const DType up : {kQ, kB, kF}) {
          for (const DType down : {kQ, kB, DType::kF16}) {
            ExpectFeedForwardInSteps(kernels, {gate, up, down}, 64, 160, 37,
                                     kernels.one_thread ? 1 : 2, fast);
          }
        }
      }
      ExpectFeedForwardInSteps(kernels, {kF, kF, kB}, 33, 77, 19, 1, fast);
    }
  }
}

/// Mean square error against f64, relative to the mean square of the result.
double NormalizedError(const Problem& p, const std::vector<float>& x, int32_t rows,
                       const std::vector<float>& got) {
  std::vector<float> w(static_cast<size_t>(p.k));
  double error = 0, total = 0;
  for (int64_t n = 0; n < p.n; ++n) {
    Dequantize(p.dtype, p.view().row(n), w);
    for (int32_t r = 0; r < rows; ++r) {
      double exact = 0;
      for (int64_t i = 0; i < p.k; ++i)
        exact += static_cast<double>(w[i]) * static_cast<double>(x[r * p.k + i]);
      const double d = exact - static_cast<double>(got[static_cast<size_t>(r * p.n + n)]);
      error += d * d;
      total += exact * exact;
    }
  }
  return error / total;
}

TEST(MatMul, IsAsAccurateAsItsArithmeticAllows) {
  for (const DType dtype : kFormats) {
    const Problem p = MakeProblem(dtype, 64, 2048, 11);
    const auto x = RandomRows(8, 2048, 12);
    const bool quantized = InfoOf(dtype).block_elements > 1;
    for (const NamedKernels& kernels : AllKernels()) {
      const double error = NormalizedError(p, x, 8, Multiply(*kernels.kernels, 1, p, x, 2048, 8));
      // int8 activations in groups of 32, or bf16; floats lose nothing but rounding.
      const bool bf16 = (kernels.in_tiles() && quantized) ||
                        ((kernels.in_tiles() || kernels.in_pairs()) && dtype == DType::kBF16);
      EXPECT_LE(error, bf16 ? 1e-5 : quantized ? 1e-4 : 1e-11) << kernels.name << NameOf(dtype);
    }
  }
}

TEST(MatMul, APackedRowIsTheDequantizedRow) {
  ThreadPool pool(1, false);
  CpuMatMul mm(&scalar::kMatMul, &pool);
  for (const DType dtype : kFormats) {
    for (const float scale : {1.0f, 3.7f}) {
      const int64_t k = InfoOf(dtype).block_elements == 1 ? 33 : 768;
      const Problem p = MakeProblem(dtype, 35, k, 13);
      const Result<Matrix> m = mm.Pack(p.view());
      ASSERT_TRUE(m.ok());
      EXPECT_EQ(m->bytes(), *mm.PackedBytes(dtype, 35, k));
      std::vector<float> expected(static_cast<size_t>(k)), got(expected.size());
      for (int64_t r = 0; r < 35; ++r) {
        Dequantize(dtype, p.view().row(r), expected);
        for (float& v : expected) v *= scale;
        mm.Row(*m, r, scale, got.data());
        ExpectSameBits(got, expected, fmt::format("{} row {}", NameOf(dtype), r));
      }
    }
  }
}

TEST(MatMul, NotFiniteActivationsShowInTheResult) {
  for (const NamedKernels& kernels : AllKernels()) {
    const Problem p = MakeProblem(DType::kQ4_0, 16, 64, 14);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      auto x = RandomRows(2, 64, 15);
      x[64 + 40] = bad;
      const auto out = Multiply(*kernels.kernels, 1, p, x, 64, 2);
      for (int i = 0; i < 16; ++i) {
        EXPECT_TRUE(std::isfinite(out[i])) << "the other row must not change";
        EXPECT_FALSE(std::isfinite(out[16 + i])) << kernels.name;
      }
    }
  }
}

TEST(MatMul, ExtremeActivationsKeepTheirBitsEverywhere) {
  const Problem p = MakeProblem(DType::kQ4_1, 16, 128, 16);
  std::vector<float> x(128, 0.0f);  // zeros, subnormals, the smallest and the largest
  for (int i = 32; i < 64; ++i) x[i] = std::ldexp(1.0f, -149 + i % 20);
  for (int i = 64; i < 96; ++i) x[i] = std::ldexp(1.0f, -126);
  for (const float large : {1.0e20f, 3.0e38f}) {  // tiles have no room for the second
    for (int i = 96; i < 128; ++i) x[i] = i % 2 == 0 ? large : -large;
    for (const NamedKernels& kernels : AllKernels()) {
      const auto got = Multiply(*kernels.kernels, 1, p, x, 128, 1);
      if (kernels.in_tiles() && large > 1e30f) {
        for (const float v : got) EXPECT_FALSE(std::isfinite(v)) << "no plausible number";
      } else {
        ExpectSameBits(got, Multiply(*kernels.twin, 1, p, x, 128, 1), kernels.name);
      }
    }
  }
}

TEST(MatMul, Bf16WeightsOfAnyBitsGiveThoseOfTheScalarKernels) {
  std::mt19937 random(27);
  Problem p = MakeProblem(DType::kBF16, 64, 34, 28);
  std::vector<float> x(5 * 34);
  // Ranges of exponents, of weights and activations: ordinary, subnormal numbers and products,
  // those that overflow, and all there are.
  constexpr unsigned kRanges[][4] = {{120, 134, 120, 134}, {100, 154, 100, 154}, {0, 10, 120, 134},
                                     {55, 70, 60, 70},     {120, 185, 200, 254}, {0, 255, 0, 255}};
  for (const auto& [w_from, w_to, x_from, x_to] : kRanges) {
    const auto exponent = [&](unsigned from, unsigned to) {
      return static_cast<uint32_t>(from + random() % (to - from + 1));
    };
    for (size_t i = 0; i < p.data.size(); i += 2) {
      const auto bits = static_cast<uint16_t>((random() & 0x807f) | exponent(w_from, w_to) << 7);
      std::memcpy(&p.data[i], &bits, 2);
    }
    for (float& v : x)
      v = std::bit_cast<float>(static_cast<uint32_t>(random() & 0x807fffffu) |
                               exponent(x_from, x_to) << 23);
    for (const NamedKernels& kernels : AllKernels()) {
      const auto got = Multiply(*kernels.kernels, 1, p, x, 34, 5);
      const auto expected = Multiply(*kernels.twin, 1, p, x, 34, 5);
      for (size_t i = 0; i < got.size(); ++i) {
        if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
        ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]))
            << kernels.name << " weights 2^" << w_from << " to " << w_to;
      }
    }
  }
}

TEST(MatMul, WeightsOfAnySizeKeepTheirBitsAndTheirAccuracy) {
  for (const NamedKernels& kernels : AllKernels()) {
    for (const float size : {1e-5f, 1.0f, 2000.0f}) {
      for (const DType dtype :
           {DType::kQ4_0, DType::kQ4_1, DType::kQ5_1, DType::kQ4_K, DType::kQ6_K, DType::kQ8_0}) {
        Problem p = MakeProblem(dtype, 32, 512, 18);
        for (size_t block = 0; block < p.data.size(); block += InfoOf(dtype).block_bytes) {
          for (const size_t at : HalfOffsets(dtype)) {
            const uint16_t half = F32ToF16(size * static_cast<float>(1 + block % 7) / 7);
            std::memcpy(&p.data[block + at], &half, 2);
          }
        }
        const auto x = RandomRows(3, 512, 19);
        const auto got = Multiply(*kernels.kernels, 1, p, x, 512, 3);
        ExpectSameBits(got, Multiply(*kernels.twin, 1, p, x, 512, 3), kernels.name);
        EXPECT_LE(NormalizedError(p, x, 3, got), kernels.in_tiles() ? 1e-5 : 1e-4)
            << kernels.name << " " << NameOf(dtype) << " " << size;
      }
    }
  }
}

TEST(MatMul, AScaleThatIsNoNumberShowsInTheResult) {
  for (const NamedKernels& kernels : AllKernels()) {
    for (const DType dtype : {DType::kQ4_0, DType::kQ6_K}) {
      Problem p = MakeProblem(dtype, 1, 256, 20);
      const uint16_t bad = 0x7e00;
      std::memcpy(&p.data[HalfOffsets(dtype)[0]], &bad, 2);
      EXPECT_TRUE(std::isnan(Multiply(*kernels.kernels, 1, p, RandomRows(1, 256, 21), 256, 1)[0]))
          << kernels.name << " " << NameOf(dtype);
    }
  }
}

TEST(MatMul, RefusesShapesItCannotPack) {
  ThreadPool pool(1, false);
  for (const bool fast : {false, true}) {
    const CpuMatMul mm(&scalar::kMatMul, &pool, fast);
    EXPECT_FALSE(mm.PackedBytes(DType::kQ4_K, 16, 128).ok());
    EXPECT_FALSE(mm.PackedBytes(DType::kQ8_0, 16, 33).ok());
    EXPECT_FALSE(mm.PackedBytes(DType::kI32, 16, 32).ok());
    EXPECT_FALSE(mm.PackedBytes(DType::kF32, int64_t{1} << 40, int64_t{1} << 32).ok());
  }
}

/// Those that have the faster mode, the scalar ones first.
std::vector<NamedKernels> AllFastKernels() {
  std::vector<NamedKernels> all = AllKernels();
  std::erase_if(all, [](const NamedKernels& k) { return k.kernels->quantize_blocks == nullptr; });
  return all;
}

std::vector<float> FastMultiply(const NamedKernels& k, int threads, const Problem& p,
                                const std::vector<float>& x, int64_t x_stride, int32_t rows,
                                int32_t rows_per_call = 1 << 20) {
  return Multiply(*k.kernels, k.one_thread ? 1 : threads, p, x, x_stride, rows, rows_per_call,
                  nullptr, nullptr, true);
}

TEST(FastMatMul, EveryInstructionSetGivesTheBitsOfTheScalarKernels) {
  const std::vector<NamedKernels> all = AllFastKernels();
  for (const DType dtype : kFormats) {
    if (InfoOf(dtype).block_elements == 1) continue;
    const bool super = InfoOf(dtype).block_elements == 256;
    for (const int64_t k : super ? std::vector<int64_t>{256, 768}
                                 : std::vector<int64_t>{32, 96, 256, 288, 576, 1312}) {
      for (const int64_t n : {1, 17, 50}) {
        const Problem p = MakeProblem(dtype, n, k, static_cast<uint32_t>(n * 1000 + k));
        for (const int32_t rows : {1, 2, 4, 5, 13, 16, 17, 37}) {
          const auto x = RandomRows(rows, k + 3, static_cast<uint32_t>(rows));
          const auto expected = FastMultiply(all[0], 1, p, x, k + 3, rows);
          for (size_t i = 1; i < all.size(); ++i) {
            ExpectSameBits(
                FastMultiply(all[i], 1, p, x, k + 3, rows), expected,
                fmt::format("{} {} n={} k={} rows={}", all[i].name, NameOf(dtype), n, k, rows));
          }
        }
      }
    }
  }
}

TEST(FastMatMul, ManyRowsOfManyPanelsHaveTheBitsOfTheScalarKernels) {
  const std::vector<NamedKernels> all = AllFastKernels();
  for (const DType dtype : {DType::kQ4_0, DType::kQ8_0}) {
    const Problem p = MakeProblem(dtype, 16 * 19 - 3, 1056, 17);
    for (const int32_t rows : {64, 65, 101}) {
      const auto x = RandomRows(rows, 1056, static_cast<uint32_t>(rows));
      const auto expected = FastMultiply(all[0], 2, p, x, 1056, rows);
      for (size_t i = 1; i < all.size(); ++i) {
        ExpectSameBits(FastMultiply(all[i], 2, p, x, 1056, rows), expected,
                       fmt::format("{} {} rows={}", all[i].name, NameOf(dtype), rows));
      }
    }
  }
}

TEST(FastMatMul, RowsOfEveryBlockHaveTheBitsTheyHaveInSmallCalls) {
  const std::vector<NamedKernels> all = AllFastKernels();
  const Problem p = MakeProblem(DType::kQ4_0, 35, 288, 29);
  for (const int32_t rows : kRowsBeyondABlock) {
    const auto x = RandomRows(rows, 288, static_cast<uint32_t>(rows));
    const auto expected = FastMultiply(all[0], 1, p, x, 288, rows, 16);
    for (const NamedKernels& kernels : all) {
      ExpectSameBits(FastMultiply(kernels, 2, p, x, 288, rows), expected,
                     fmt::format("{} rows={}", kernels.name, rows));
    }
  }
}

TEST(FastMatMul, WhatALargerProductLeftInTheScratchDoesNotShow) {
  const Problem large = MakeProblem(DType::kQ4_0, 64, 1312, 22);
  const Problem small = MakeProblem(DType::kQ4_0, 64, 288, 23);  // ends with half a tile
  const auto x = RandomRows(20, 1312, 24);
  const auto expected = FastMultiply(AllFastKernels()[0], 1, small, x, 1312, 20);
  for (const NamedKernels& kernels : AllFastKernels()) {
    ThreadPool pool(1, false);
    CpuMatMul mm(kernels.kernels, &pool, true);
    ASSERT_TRUE(mm.ReserveScratch(20, 1312).ok());
    std::vector<float> out(20 * 64);
    for (const Problem* p : {&large, &small}) {
      const Result<Matrix> m = mm.Pack(p->view());
      ASSERT_TRUE(m.ok());
      const MatMulOutput o{&*m, nullptr, out.data(), 64, false};
      OpCounters counters;
      mm.Run(x.data(), 1312, 20, {&o, 1}, counters);
    }
    ExpectSameBits(out, expected, kernels.name);
  }
}

TEST(FastMatMul, ARowDoesNotDependOnItsCompanyNorOnThreads) {
  for (const NamedKernels& kernels : AllFastKernels()) {
    for (const DType dtype : {DType::kQ4_1, DType::kQ4_K, DType::kQ6_K, DType::kQ8_0}) {
      const Problem p = MakeProblem(dtype, 100, 512, 5);
      const auto x = RandomRows(40, 512, 6);
      const auto together = FastMultiply(kernels, 1, p, x, 512, 40);
      for (const int32_t rows : {1, 3, 7, 16, 39}) {
        ExpectSameBits(FastMultiply(kernels, 2, p, x, 512, 40, rows), together,
                       fmt::format("{} {} in calls of {} rows", kernels.name, NameOf(dtype), rows));
      }
    }
  }
}

/// Weights as quantizers make them: normal numbers, each group by its largest.
Problem QuantizedNormals(DType dtype, int64_t n, int64_t k, uint32_t seed) {
  Problem p{dtype, n, k, std::vector<uint8_t>(TensorView{dtype, n, k, nullptr}.bytes())};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  for (size_t at = 0; at < p.data.size(); at += InfoOf(dtype).block_bytes) {
    float w[32], most = 0;
    for (float& v : w) {
      v = normal(random);
      most = std::fabs(v) > std::fabs(most) ? v : most;
    }
    const bool four = dtype == DType::kQ4_0;
    const float d = four ? most / -8 : std::fabs(most) / 127;
    const uint16_t half = F32ToF16(d);
    std::memcpy(&p.data[at], &half, 2);
    for (int i = 0; i < 32; ++i) {
      const float q = std::nearbyintf(w[i] / d);
      if (four) {
        const auto nibble = static_cast<uint8_t>(std::clamp(q + 8, 0.0f, 15.0f));
        uint8_t& byte = p.data[at + 2 + static_cast<size_t>(i % 16)];
        byte = static_cast<uint8_t>(i < 16 ? (byte & 0xf0) | nibble : (byte & 15) | nibble << 4);
      } else {
        p.data[at + 2 + static_cast<size_t>(i)] = static_cast<uint8_t>(static_cast<int8_t>(q));
      }
    }
  }
  return p;
}

TEST(FastMatMul, IsAsAccurateAsIntegersWithOneScaleFor256Are) {
  for (const DType dtype : {DType::kQ4_0, DType::kQ8_0}) {
    const Problem p = QuantizedNormals(dtype, 64, 2048, 11);
    const auto x = RandomRows(8, 2048, 12);
    for (const NamedKernels& kernels : AllFastKernels()) {
      const double error = NormalizedError(p, x, 8, FastMultiply(kernels, 1, p, x, 2048, 8));
      // Activations alone have 5e-4 at most; scales of four bits are rounded to a seventeenth.
      EXPECT_LE(error, dtype == DType::kQ4_0 ? 1e-3 : 5e-4) << kernels.name << NameOf(dtype);
      EXPECT_GT(error, 1e-6) << "no activation was rounded";
      RecordProperty("nmse_" + std::string(NameOf(dtype)), std::to_string(error));
    }
  }
}

TEST(FastMatMul, APackedRowIsNearTheDequantizedOneAndFloatsStayAsTheyAre) {
  ThreadPool pool(2, false);
  CpuMatMul mm(&scalar::kMatMul, &pool, true);
  for (const DType dtype : kFormats) {
    const bool quantized = InfoOf(dtype).block_elements > 1;
    const int64_t k = quantized ? 768 : 33;
    const Problem p = MakeProblem(dtype, 35, k, 13);
    const Result<Matrix> m = mm.Pack(p.view());
    ASSERT_TRUE(m.ok());
    EXPECT_EQ(m->bytes(), *mm.PackedBytes(dtype, 35, k));
    std::vector<float> expected(static_cast<size_t>(k)), got(expected.size());
    double error = 0, all = 0;
    for (int64_t r = 0; r < 35; ++r) {
      Dequantize(dtype, p.view().row(r), expected);
      mm.Row(*m, r, 1, got.data());
      for (size_t i = 0; i < got.size(); ++i) {
        const double d = static_cast<double>(got[i]) - static_cast<double>(expected[i]);
        error += d * d;
        all += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
      }
    }
    // The groups of these have scales of any size beside one another.
    EXPECT_LE(error, (quantized ? 5e-3 : 0) * all) << NameOf(dtype);
  }
}

TEST(FastMatMul, NumbersThatAreNotFiniteAndExtremesShow) {
  for (const NamedKernels& kernels : AllFastKernels()) {
    Problem p = MakeProblem(DType::kQ4_0, 16, 576, 14);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      auto x = RandomRows(7, 576, 15);
      x[576 + 540] = bad;
      const auto out = FastMultiply(kernels, 1, p, x, 576, 7);
      for (size_t i = 0; i < out.size(); ++i)
        EXPECT_EQ(std::isfinite(out[i]), i / 16 != 1) << kernels.name << " " << i;
    }
    std::vector<float> x(576, 0.0f);  // blocks of zeros, of subnormals, and of both extremes
    for (int i = 256; i < 512; ++i) x[i] = std::ldexp(1.0f, -149 + i % 20);
    for (int i = 512; i < 576; ++i) x[i] = i % 2 == 0 ? 3e38f : -1e-38f;
    ExpectSameBits(FastMultiply(kernels, 1, p, x, 576, 1),
                   FastMultiply(AllFastKernels()[0], 1, p, x, 576, 1), kernels.name);
    const uint16_t nan = 0x7e00;
    std::memcpy(p.data.data(), &nan, 2);
    EXPECT_TRUE(std::isnan(FastMultiply(kernels, 1, p, RandomRows(1, 576, 21), 576, 1)[0]));
  }
}

}  // namespace
}  // namespace kvasir
