#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/cpu_backend.h"
#include "base/aligned_buffer.h"
#include "kv/manager.h"
#include "tensor/half.h"

namespace kvasir {
namespace {

struct Shape {
  int32_t heads, kv_heads, head_dim;
  int32_t window;
  KvDType dtype;
  int32_t block_tokens;
};

/// One sequence's keys and values in a pool, appended as a step would. The pool is full of NaN
/// first: what is read without having been written shows.
class Cache {
 public:
  Cache(const Shape& shape, Isa isa, int threads, int32_t tokens)
      : shape_(shape),
        manager_(*KvLayout::Create({.window = {shape.window},
                                    .kv_heads = shape.kv_heads,
                                    .head_dim = shape.head_dim,
                                    .block_tokens = shape.block_tokens,
                                    .dtype = shape.dtype}),
                 tokens / shape.block_tokens + 2 + kSpareBlocks),
        sequence_(manager_.NewSequence()) {
    // Emulators of other processors may have no threads (tools/test_aarch64.sh).
    if (std::getenv("KVASIR_TEST_ONE_THREAD") != nullptr) threads = 1;
    backend_ = std::move(*MakeCpuBackend({.threads = threads, .pin = false, .isa = isa}));
    EXPECT_TRUE(backend_->ReserveScratch(tokens, 64, shape.heads, shape.head_dim, tokens).ok());
    const KvLayout& l = manager_.layout();
    const size_t bytes = l.block_bytes * static_cast<size_t>(manager_.pool().total());
    memory_ = std::move(*AlignedBuffer::Allocate(bytes, MemoryOwner::kKv, "a test"));
    std::memset(memory_.data(), 0xFF, bytes);
    storage_ = {&l, memory_.data(), manager_.pool().total()};
  }

  /// Appends rows [from, to) of k and v and gives the attention of q's rows to all so far.
  std::vector<float> Step(const std::vector<float>& q, const std::vector<float>& k,
                          const std::vector<float>& v, int32_t from, int32_t to,
                          int32_t first_wanted = 0) {
    const int32_t rows = to - from, q_dim = shape_.heads * shape_.head_dim,
                  kv_dim = shape_.kv_heads * shape_.head_dim;
    EXPECT_TRUE(manager_.Grow(sequence_, to));
    std::vector<int32_t> tokens(rows), positions(rows);
    for (int32_t r = 0; r < rows; ++r) positions[r] = from + r;
    const BatchSlice slice{0, rows, from};
    const TableView table = sequence_.tables[0].view();
    const Batch batch{tokens, positions, {&slice, 1}, {&table, 1}};
    const auto rows_of = [&](const std::vector<float>& all, int32_t dim) {
      std::vector<float> some(static_cast<size_t>(off_));
      some.insert(some.end(), all.begin() + int64_t{from} * dim, all.begin() + int64_t{to} * dim);
      return some;
    };
    std::vector<float> q_rows = rows_of(q, q_dim), k_rows = rows_of(k, kv_dim),
                       v_rows = rows_of(v, kv_dim);
    const std::vector<float> cos(static_cast<size_t>(rows), 1.0f),
        sin(static_cast<size_t>(rows), 0.0f);
    backend_->RopeAppend({.batch = &batch,
                          .kv = &storage_,
                          .heads = shape_.heads,
                          .kv_heads = shape_.kv_heads,
                          .head_dim = shape_.head_dim,
                          .q = q_rows.data() + off_,
                          .k = k_rows.data() + off_,
                          .v = v_rows.data() + off_,
                          .q_stride = q_dim,
                          .kv_stride = kv_dim,
                          .cos = cos.data(),
                          .sin = sin.data(),
                          .rope_dims = 2});
    std::vector<float> out(static_cast<size_t>(off_ + rows * q_dim), 0.0f);
    backend_->Attention({.batch = &batch,
                         .kv = &storage_,
                         .heads = shape_.heads,
                         .q = q_rows.data() + off_,
                         .out = out.data() + off_,
                         .q_stride = q_dim,
                         .out_stride = q_dim,
                         .first_wanted = &first_wanted});
    manager_.Advance(sequence_, to);
    out.erase(out.begin(), out.begin() + off_);
    return out;
  }

  /// From now on rows of q, k, v and results lie so many floats behind where a vector begins.
  void LieOffBy(int32_t floats) { off_ = floats; }

  /// The attention of q's row at the last position of `tokens` by kernels that this machine need
  /// not be one for.
  std::vector<float> LastRowBy(const AttentionKernels& kernels, const std::vector<float>& q,
                               int32_t tokens) {
    const int32_t q_dim = shape_.heads * shape_.head_dim, token = 0, position = tokens - 1;
    const BatchSlice slice{0, 1, position};
    const TableView table = sequence_.tables[0].view();
    const Batch batch{{&token, 1}, {&position, 1}, {&slice, 1}, {&table, 1}};
    ThreadPool pool(1, false);
    CpuAttention attention(&kernels, &scalar::kVector, &pool);
    EXPECT_TRUE(attention.ReserveScratch(shape_.head_dim, tokens).ok());
    std::vector<float> out(static_cast<size_t>(q_dim));
    OpCounters counters;
    attention.Run({.batch = &batch,
                   .kv = &storage_,
                   .heads = shape_.heads,
                   .q = q.data() + int64_t{position} * q_dim,
                   .out = out.data(),
                   .q_stride = q_dim,
                   .out_stride = q_dim},
                  counters);
    return out;
  }

  /// The attention of `rows` tokens from each position on, of as many sequences that end there and
  /// begin with the blocks of this one. Of sequence i block copied[i] is a copy (-1: none), as if
  /// the sequences parted there. Each alone, or all in one step. Every step has so many layers, all
  /// alike, and before each, if there are several, all but the last sequence pass one alone; the
  /// last layer's result.
  std::vector<float> Sequences(const std::vector<float>& q, const std::vector<int32_t>& positions,
                               const std::vector<int32_t>& copied, int32_t rows, bool together,
                               uint64_t* bytes_read = nullptr, int layers = 1) {
    const int32_t q_dim = shape_.heads * shape_.head_dim;
    const size_t block_bytes = manager_.layout().block_bytes;
    const TableView own = sequence_.tables[0].view();
    std::vector<std::vector<BlockId>> blocks;
    std::vector<TableView> tables;
    std::vector<BatchSlice> slices;
    std::vector<float> q_rows;
    int32_t spare = manager_.pool().total();
    for (size_t i = 0; i < positions.size(); ++i) {
      blocks.emplace_back(own.blocks, own.blocks + own.count);
      if (copied[i] >= 0) {
        --spare;
        std::memcpy(memory_.data() + spare * block_bytes,
                    memory_.data() + own.blocks[copied[i]] * block_bytes, block_bytes);
        for (size_t at = 0; at < block_bytes; at += 2)
          memory_.data()[spare * block_bytes + at] ^= 1;
        blocks[i][copied[i]] = spare;
      }
      slices.push_back({static_cast<int32_t>(i) * rows, rows, positions[i]});
      const auto from = q.begin() + int64_t{positions[i]} * q_dim;
      q_rows.insert(q_rows.end(), from, from + int64_t{rows} * q_dim);
    }
    for (const auto& b : blocks) tables.push_back({b.data(), 0, own.count});
    std::vector<float> out(q_rows.size());
    const uint64_t before = backend_->counters().kv_bytes_read;
    const size_t step = together ? positions.size() : 1;
    for (size_t i = 0; i < positions.size(); i += step) {
      std::vector<BatchSlice> some(slices.begin() + i, slices.begin() + i + step);
      const auto first = static_cast<size_t>(some[0].first_row);
      for (BatchSlice& s : some) s.first_row -= static_cast<int32_t>(first);
      const std::vector<int32_t> tokens(step * rows);
      const Batch batch{tokens, tokens, some, {tables.data() + i, step}};
      Batch others = batch;
      others.slices = batch.slices.first(step - 1);
      others.table_slices = static_cast<int32_t>(step);
      ++forward_;
      const auto attend = [&](const Batch& who, float* to) {
        std::fill_n(to, step * rows * q_dim, 0.0f);
        backend_->Attention({.batch = &who,
                             .kv = &storage_,
                             .heads = shape_.heads,
                             .q = q_rows.data() + first * q_dim,
                             .out = to,
                             .q_stride = q_dim,
                             .out_stride = q_dim,
                             .forward = forward_});
      };
      std::vector<float> of_others(step * rows * q_dim);
      for (int layer = 0; layer < layers; ++layer) {
        if (layers > 1 && step > 1) attend(others, of_others.data());
        attend(batch, out.data() + first * q_dim);
      }
    }
    if (bytes_read != nullptr) *bytes_read = backend_->counters().kv_bytes_read - before;
    return out;
  }

  std::vector<float> InChunks(const std::vector<float>& q, const std::vector<float>& k,
                              const std::vector<float>& v, int32_t tokens, int32_t chunk) {
    std::vector<float> out;
    for (int32_t at = 0; at < tokens; at += chunk) {
      const std::vector<float> part = Step(q, k, v, at, std::min(at + chunk, tokens));
      out.insert(out.end(), part.begin(), part.end());
    }
    return out;
  }

 private:
  static constexpr int32_t kSpareBlocks = 4;
  Shape shape_;
  KvManager manager_;
  SequenceKv sequence_;
  std::unique_ptr<Backend> backend_;
  AlignedBuffer memory_;
  KvStorage storage_;
  uint64_t forward_ = 0;
  int32_t off_ = 0;
};

std::vector<float> Random(size_t n, uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(n);
  for (float& x : out) x = normal(random);
  return out;
}

/// What storing a head's vector leaves of it.
void Store(KvDType dtype, float* x, int32_t n) {
  float largest = 0;
  for (int32_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  for (int32_t i = 0; i < n; ++i) {
    if (dtype == KvDType::kF16) x[i] = F16ToF32(F32ToF16(x[i]));
    if (dtype == KvDType::kBF16) x[i] = Bf16ToF32(F32ToBf16(x[i]));
    if (dtype == KvDType::kInt8)
      x[i] = std::nearbyintf(x[i] * (127.0f / largest)) * (largest / 127.0f);
  }
}

/// The definition, in double: softmax over the window of q.k, times v.
std::vector<float> Reference(const Shape& s, std::vector<float> q, std::vector<float> k,
                             std::vector<float> v, int32_t tokens) {
  const int32_t d = s.head_dim;
  for (auto* kv : {&k, &v}) {
    for (int32_t i = 0; i < tokens * s.kv_heads; ++i)
      Store(s.dtype, kv->data() + int64_t{i} * d, d);
  }
  std::vector<float> out(static_cast<size_t>(tokens) * s.heads * d);
  for (int32_t t = 0; t < tokens; ++t) {
    const int32_t low = s.window == 0 ? 0 : std::max(0, t - s.window + 1);
    for (int32_t h = 0; h < s.heads; ++h) {
      const int32_t kv_head = h / (s.heads / s.kv_heads);
      std::vector<double> p(t + 1);
      double most = -1e300, sum = 0;
      for (int32_t j = low; j <= t; ++j) {
        for (int32_t c = 0; c < d; ++c) {
          p[j] += static_cast<double>(q[(int64_t{t} * s.heads + h) * d + c]) *
                  k[(int64_t{j} * s.kv_heads + kv_head) * d + c];
        }
        most = std::max(most, p[j]);
      }
      for (int32_t j = low; j <= t; ++j) sum += p[j] = std::exp(p[j] - most);
      for (int32_t c = 0; c < d; ++c) {
        double value = 0;
        for (int32_t j = low; j <= t; ++j) {
          value += p[j] / sum * v[(int64_t{j} * s.kv_heads + kv_head) * d + c];
        }
        out[(int64_t{t} * s.heads + h) * d + c] = static_cast<float>(value);
      }
    }
  }
  return out;
}

std::string Describe(const Shape& s) {
  return fmt::format("{} heads, {} for kv, of {}, window {}, {}, blocks of {}", s.heads, s.kv_heads,
                     s.head_dim, s.window, NameOf(s.dtype), s.block_tokens);
}

const std::vector<Shape>& Shapes() {
  static const std::vector<Shape> shapes = [] {
    std::vector<Shape> out;
    for (const KvDType dtype : {KvDType::kF32, KvDType::kF16, KvDType::kBF16, KvDType::kInt8}) {
      out.push_back({1, 1, 16, 0, dtype, 16});
      out.push_back({3, 1, 64, 0, dtype, 32});
      out.push_back({8, 2, 64, 40, dtype, 16});
      out.push_back({7, 1, 80, 0, dtype, 64});
      out.push_back({8, 1, 128, 17, dtype, 32});
      out.push_back({4, 4, 8, 5, dtype, 16});
      out.push_back({4, 1, 256, 100, dtype, 16});
      out.push_back({2, 1, 34, 0, dtype, 32});
      out.push_back({8, 1, 96, 0, dtype, 32});
    }
    return out;
  }();
  return shapes;
}

struct Inputs {
  std::vector<float> q, k, v;
  Inputs(const Shape& s, int32_t tokens)
      : q(Random(static_cast<size_t>(tokens) * s.heads * s.head_dim, 1,
                 1.0f / std::sqrt(static_cast<float>(s.head_dim)))),
        k(Random(static_cast<size_t>(tokens) * s.kv_heads * s.head_dim, 2, 1)),
        v(Random(static_cast<size_t>(tokens) * s.kv_heads * s.head_dim, 3, 1)) {}
};

/// Sum of squared differences over the sum of squares.
double Nmse(const std::vector<float>& got, const std::vector<float>& expected) {
  double error = got.size() == expected.size() ? 0 : INFINITY, all = 0;
  for (size_t i = 0; i < got.size() && i < expected.size(); ++i) {
    const double d = static_cast<double>(got[i]) - expected[i];
    error += d * d;
    all += static_cast<double>(expected[i]) * expected[i];
  }
  return error / all;
}

/// Whether the set computes this type with instructions for it, in an arithmetic of their own.
bool HasOwnArithmetic(Isa isa, KvDType dtype) {
  if (dtype == KvDType::kBF16) return isa == Isa::kAmx || isa == Isa::kAvx512Bf16;
  if (dtype != KvDType::kInt8) return false;
  return isa == Isa::kAmx || isa == Isa::kAvx512Bf16 || isa == Isa::kAvx512;
}

double WorstDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - b[i]);
    worst = d <= worst ? worst : d;  // a NaN counts
  }
  return worst;
}

void ExpectClose(Isa isa, const Shape& s, const std::vector<float>& got,
                 const std::vector<float>& expected) {
  if (HasOwnArithmetic(isa, s.dtype)) {
    EXPECT_LE(Nmse(got, expected), 1e-5) << Describe(s);
  } else {
    EXPECT_LE(WorstDifference(got, expected), 2e-5) << Describe(s);
  }
}

bool Same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(Attention, IsItsDefinitionOverWhatTheCacheHolds) {
  constexpr int32_t kTokens = 140;
  for (const Shape& s : Shapes()) {
    const Inputs in(s, kTokens);
    const std::vector<float> expected = Reference(s, in.q, in.k, in.v, kTokens);
    for (const Isa isa : {Isa::kScalar, AvailableIsas().back()}) {
      Cache cache(s, isa, 2, kTokens);
      ExpectClose(isa, s, cache.InChunks(in.q, in.k, in.v, kTokens, 50), expected);
    }
  }
}

TEST(Attention, ChunksThreadsBlocksAndInstructionSetsOfOneArithmeticDoNotChangeABit) {
  constexpr int32_t kTokens = 150;
  for (const Shape& s : Shapes()) {
    const Inputs in(s, kTokens);
    const std::vector<float> expected =
        Cache(s, Isa::kScalar, 1, kTokens).InChunks(in.q, in.k, in.v, kTokens, kTokens);
    for (const Isa isa : AvailableIsas()) {
      const bool tiles = HasOwnArithmetic(isa, s.dtype);
      const std::vector<float> own =
          tiles ? Cache(s, isa, 1, kTokens).InChunks(in.q, in.k, in.v, kTokens, kTokens) : expected;
      for (const int32_t chunk : {1, 7, 64, kTokens}) {
        for (const int threads : {1, 2}) {
          Shape other = s;
          other.block_tokens = chunk == 7 ? 128 : s.block_tokens;
          EXPECT_TRUE(Same(
              Cache(other, isa, threads, kTokens).InChunks(in.q, in.k, in.v, kTokens, chunk), own))
              << Describe(other) << " " << NameOf(isa) << " chunk " << chunk << " threads "
              << threads;
        }
      }
    }
  }
}

TEST(Attention, LongContextsAreSplitAtFixedPlaces) {
  constexpr int32_t kTokens = 1300;
  for (const KvDType dtype : {KvDType::kBF16, KvDType::kInt8}) {
    for (const int32_t window : {0, 700}) {
      const Shape s{2, 1, 32, window, dtype, 32};
      const Inputs in(s, kTokens);
      const std::vector<float> expected = Reference(s, in.q, in.k, in.v, kTokens);
      std::vector<float> whole;
      for (const Isa isa : AvailableIsas()) {
        if (whole.empty() || HasOwnArithmetic(isa, dtype)) {
          const Isa by =
              isa == Isa::kScalar && AvailableIsas().size() > 1 ? AvailableIsas()[1] : isa;
          whole = Cache(s, by, 2, kTokens).InChunks(in.q, in.k, in.v, kTokens, kTokens);
          ExpectClose(isa, s, whole, expected);
        }
        EXPECT_TRUE(Same(Cache(s, isa, 1, kTokens).InChunks(in.q, in.k, in.v, kTokens, 333), whole))
            << NameOf(isa);
        if (isa == Isa::kScalar) continue;
        EXPECT_TRUE(Same(Cache(s, isa, 2, kTokens).InChunks(in.q, in.k, in.v, kTokens, 1), whole))
            << NameOf(isa);
      }
    }
  }
}

TEST(Attention, BlocksThatSequencesShareAreReadOnceAndNoBitChanges) {
  constexpr int32_t kTokens = 1700;
  for (const KvDType dtype : {KvDType::kBF16, KvDType::kInt8, KvDType::kF16}) {
    for (const int32_t heads : {6, 32}) {  // groups of 3 and 16: five and one sequence an item
      const Shape s{heads, 2, 32, 0, dtype, 32};
      const Inputs in(s, kTokens);
      for (const Isa isa : AvailableIsas()) {
        if (isa == Isa::kScalar && AvailableIsas().size() > 1) continue;
        for (const int threads : {1, 2}) {
          Cache cache(s, isa, threads, kTokens);
          cache.InChunks(in.q, in.k, in.v, kTokens, kTokens);
          // Splits of 512 tokens are 16 blocks. Some end early, one has another first block, two
          // part from the others in the second and in the third split, one has less than a split.
          const std::vector<int32_t> positions = {1600, 1650, 700,  1540, 1601, 1690, 300,
                                                  1602, 513,  1603, 1500, 1604, 1605};
          const std::vector<int32_t> copied = {-1, -1, -1, 0, 20, 40, -1, -1, -1, -1, -1, 50, -1};
          const int32_t rows = heads == 6 ? 2 : 1;
          uint64_t alone_bytes = 0, together_bytes = 0;
          const auto alone = cache.Sequences(in.q, positions, copied, rows, false, &alone_bytes);
          const auto together =
              cache.Sequences(in.q, positions, copied, rows, true, &together_bytes);
          EXPECT_TRUE(Same(together, alone)) << Describe(s) << " " << NameOf(isa);
          EXPECT_LT(together_bytes, alone_bytes * 6 / 10);
          const std::vector<float> chunk = cache.Sequences(in.q, {1600}, {-1}, rows, true);
          EXPECT_TRUE(std::equal(chunk.begin(), chunk.end(), alone.begin()));
        }
      }
    }
  }
}

TEST(Attention, EveryLayerOfAForwardHasTheBitsAndTheCountsOfOneAlone) {
  constexpr int32_t kTokens = 1700;
  const Shape s{8, 2, 32, 0, KvDType::kBF16, 32};
  const Inputs in(s, kTokens);
  for (const int threads : {1, 2}) {
    Cache cache(s, AvailableIsas().back(), threads, kTokens);
    cache.InChunks(in.q, in.k, in.v, kTokens, kTokens);
    // Shared splits, and one sequence, whose items are cut.
    for (const std::vector<int32_t>& positions : {std::vector<int32_t>{1600, 1650, 1200}, {1690}}) {
      const std::vector<int32_t> copied(positions.size(), -1);
      uint64_t one = 0, three = 0;
      const auto expected = cache.Sequences(in.q, positions, copied, 2, true, &one);
      EXPECT_TRUE(Same(cache.Sequences(in.q, positions, copied, 2, true, &three, 3), expected));
      if (positions.size() == 1) {
        EXPECT_EQ(three, 3 * one);
      }
    }
  }
}

TEST(Attention, SinksAndOutlierChannelsKeepTheirAccuracy) {
  constexpr int32_t kTokens = 700;
  for (const KvDType dtype : {KvDType::kBF16, KvDType::kInt8}) {
    const Shape s{4, 2, 64, 0, dtype, 32};
    Inputs in(s, kTokens);
    const auto d = static_cast<size_t>(s.head_dim), q_dim = d * 4, kv_dim = d * 2;
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t h = 0; h < 2; ++h) {
        // A first token that all attend to most, of small value; channels far above the others.
        if (t == 0) {
          for (size_t c = 0; c < d; ++c) {
            in.k[h * d + c] = c == 1 ? 60.0f : 0.1f;
            in.v[h * d + c] *= 0.02f;
          }
        }
        in.k[t * kv_dim + h * d + 5] *= 15;
        in.v[t * kv_dim + h * d + 9] *= 30;
      }
      for (size_t h = 0; h < 4; ++h) in.q[t * q_dim + h * d + 1] = 0.12f;
    }
    const std::vector<float> expected = Reference(s, in.q, in.k, in.v, kTokens);
    for (const Isa isa : {Isa::kScalar, AvailableIsas().back()}) {
      Cache cache(s, isa, 2, kTokens);
      EXPECT_LE(Nmse(cache.InChunks(in.q, in.k, in.v, kTokens, kTokens), expected), 5e-5)
          << NameOf(dtype) << " " << NameOf(isa);
    }
  }
}

TEST(Attention, RowsNeedNotBeAligned) {
  constexpr int32_t kTokens = 70;
  for (const Shape& s : Shapes()) {
    const Inputs in(s, kTokens);
    for (const Isa isa : AvailableIsas()) {
      Cache aligned(s, isa, 2, kTokens), off(s, isa, 2, kTokens);
      off.LieOffBy(1);
      EXPECT_TRUE(Same(off.InChunks(in.q, in.k, in.v, kTokens, 50),
                       aligned.InChunks(in.q, in.k, in.v, kTokens, 50)))
          << Describe(s) << " " << NameOf(isa);
    }
  }
}

TEST(Attention, Int8HeadsOfAnyWidthHaveSumsThatFit) {
  constexpr int32_t kTokens = 20;
  for (const int32_t head_dim : {512, 528, 1024}) {
    const Shape s{2, 1, head_dim, 0, KvDType::kInt8, 16};
    Inputs in(s, kTokens);
    // Keys and queries whose channels are all alike: every integer is the largest there is.
    const auto d = static_cast<size_t>(head_dim);
    for (size_t i = 0; i < in.q.size(); ++i) in.q[i] = 1.0f / static_cast<float>(head_dim);
    for (size_t i = 0; i < in.k.size(); ++i) in.k[i] = in.k[i / d * d];
    const std::vector<float> expected = Reference(s, in.q, in.k, in.v, kTokens);
    for (const Isa isa : AvailableIsas()) {
      Cache cache(s, isa, 2, kTokens);
      EXPECT_LE(Nmse(cache.InChunks(in.q, in.k, in.v, kTokens, kTokens), expected), 1e-5)
          << head_dim << " " << NameOf(isa);
    }
    // The arithmetic of AVX-512 and AMX, where there is neither.
    Cache cache(s, Isa::kScalar, 1, kTokens);
    cache.InChunks(in.q, in.k, in.v, kTokens, kTokens);
    EXPECT_LE(Nmse(cache.LastRowBy(scalar::kTileAttention, in.q, kTokens),
                   {expected.end() - 2 * head_dim, expected.end()}),
              1e-5)
        << head_dim;
  }
}

TEST(Attention, OnlyWantedRowsAreComputed) {
  const Shape s{4, 2, 32, 0, KvDType::kBF16, 16};
  const Inputs in(s, 60);
  Cache all(s, AvailableIsas().back(), 2, 60), some(s, AvailableIsas().back(), 2, 60);
  const std::vector<float> a = all.Step(in.q, in.k, in.v, 0, 60),
                           b = some.Step(in.q, in.k, in.v, 0, 60, 57);
  const size_t row = 4 * 32;
  EXPECT_TRUE(Same({a.begin() + 57 * static_cast<ptrdiff_t>(row), a.end()},
                   {b.begin() + 57 * static_cast<ptrdiff_t>(row), b.end()}));
  for (size_t i = 0; i < 57 * row; ++i) EXPECT_EQ(b[i], 0.0f);
}

}  // namespace
}  // namespace kvasir
