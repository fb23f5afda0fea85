#include "app/bench_kernel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>

#include "base/aligned_buffer.h"
#include "base/clock.h"
#include "base/rng.h"
#include "kv/manager.h"
#include "sample/sampler.h"

namespace kvasir {
namespace {

/// Bytes of which every format makes finite numbers of ordinary size.
constexpr int kByte = 0x2c;
constexpr double kLeastSeconds = 0.05;  // of an operation's runs together
constexpr int kLeastRuns = 3;

class Bench {
 public:
  Bench(const KernelBenchOptions& options, std::unique_ptr<Backend> backend, Isa isa)
      : o_(options), backend_(std::move(backend)), isa_(isa) {}

  Result<KernelBench> Run() {
    out_.backend = backend_->description();
    KV_ASSIGN(out_.bandwidth_gb_s,
              ReadBandwidthProbe(backend_->threads(), &SteadyClock(), size_t{2} << 30));
    out_.peak = PeakProbe(isa_, backend_->threads(), &SteadyClock());
    if (o_.probes_only) return std::move(out_);
    const int32_t most = *std::max_element(o_.rows.begin(), o_.rows.end());
    const int64_t longest = *std::max_element(o_.contexts.begin(), o_.contexts.end()) + kChunk;
    KV_RETURN_IF_ERROR(backend_->ReserveScratch(
        std::max(most, kChunk), std::max(o_.inputs, o_.outputs), o_.heads, o_.head_dim, longest));
    const int32_t most_head = *std::max_element(o_.head_rows.begin(), o_.head_rows.end());
    x_.assign(static_cast<size_t>(std::max(most, most_head)) * o_.inputs, 0.5f);
    y_.assign(static_cast<size_t>(
                  std::max({most * o_.outputs, most * o_.inputs, most_head * HeadOutputs()})),
              0.5f);
    for (const DType format : o_.formats) {
      KV_RETURN_IF_ERROR(MatMul(format));
      KV_RETURN_IF_ERROR(FeedForward(format));
    }
    for (const DType format : o_.head_formats) {
      if (std::find(o_.formats.begin(), o_.formats.end(), format) != o_.formats.end())
        KV_RETURN_IF_ERROR(Head(format));
    }
    for (const KvDType dtype : o_.kv_dtypes) {
      for (const int32_t context : o_.contexts) KV_RETURN_IF_ERROR(Attention(dtype, context));
    }
    for (const int32_t rows : o_.rows) RowOps(rows);
    Sampling();
    return std::move(out_);
  }

 private:
  static constexpr int32_t kChunk = 512;  // rows of a prefill step
  static constexpr int32_t kSequences = 8;

  /// The vocabulary, as far as its matrix stays within 2 GiB of bf16.
  int64_t HeadOutputs() const { return std::min(o_.vocab, (int64_t{1} << 30) / o_.inputs); }

  /// Seconds of the fastest of several runs.
  template <typename F>
  double Best(const F& run) {
    const StepScope step(backend_.get());
    double best = std::numeric_limits<double>::infinity(), all = 0;
    for (int i = 0; i < kLeastRuns || all < kLeastSeconds; ++i) {
      const int64_t begin = SteadyClock().NowNs();
      run();
      const double seconds = SecondsBetween(begin, SteadyClock().NowNs());
      best = std::min(best, seconds);
      all += seconds;
    }
    return best;
  }

  void Add(const std::string& op, const std::string& what, int32_t rows, double seconds,
           double operations, double peak_gops, double bytes) {
    const double least = std::max(bytes / (out_.bandwidth_gb_s * 1e9),
                                  peak_gops > 0 ? operations / (peak_gops * 1e9) : 0);
    out_.rows.push_back({.op = op,
                         .what = what,
                         .rows = rows,
                         .us = seconds * 1e6,
                         .gops = operations / seconds * 1e-9,
                         .gb_s = bytes / seconds * 1e-9,
                         .limit_pct = 100 * least / seconds});
  }

  Result<Matrix> MakeWeights(DType format, int64_t outputs, int64_t inputs) {
    TensorView view{.dtype = format, .rows = outputs, .cols = inputs};
    const std::vector<uint8_t> bytes(view.bytes(), kByte);
    view.data = bytes.data();
    return backend_->Pack(view);
  }

  /// Products with each of the matrices in turn.
  void Products(const char* op, const std::vector<Matrix>& weights, std::span<const int32_t> rows) {
    const int64_t outputs = weights[0].rows;
    for (const int32_t count : rows) {
      size_t next = 0;
      const double seconds = Best([&] {
        const MatMulOutput output{&weights[next++ % weights.size()], nullptr, y_.data(), outputs,
                                  false};
        backend_->MatMul(x_.data(), o_.inputs, count, {&output, 1});
      });
      const double operations =
          2.0 * count * static_cast<double>(o_.inputs) * static_cast<double>(outputs);
      Add(op, std::string(NameOf(weights[0].source)), count, seconds, operations,
          out_.peak.Products(weights[0].source, o_.fast), static_cast<double>(weights[0].bytes()));
    }
  }

  Status MatMul(DType format) {
    // Several matrices in turn, more than the caches hold: in a model each is read once a token.
    constexpr size_t kBeyondCaches = size_t{256} << 20, kMostMatrices = 128;
    std::vector<Matrix> weights;
    do {
      KV_ASSIGN(Matrix m, MakeWeights(format, o_.outputs, o_.inputs));
      weights.push_back(std::move(m));
    } while (weights.size() < kMostMatrices && weights.size() * weights[0].bytes() < kBeyondCaches);
    Products("matmul", weights, o_.rows);
    return {};
  }

  /// Gate and up, the activation, and down, whose inputs must be whole blocks of the format.
  Status FeedForward(DType format) {
    if (!backend_->PackedBytes(format, o_.inputs, o_.outputs).ok()) return {};
    KV_ASSIGN(const Matrix gate, MakeWeights(format, o_.outputs, o_.inputs));
    KV_ASSIGN(const Matrix up, MakeWeights(format, o_.outputs, o_.inputs));
    KV_ASSIGN(const Matrix down, MakeWeights(format, o_.inputs, o_.outputs));
    const auto bytes = static_cast<double>(gate.bytes() + up.bytes() + down.bytes());
    for (const int32_t rows : o_.rows) {
      FeedForwardArgs args;
      args.x = x_.data();
      args.x_stride = o_.inputs;
      args.rows = rows;
      args.gate = &gate;
      args.up = &up;
      args.down = {&down, nullptr, y_.data(), o_.inputs, false};
      const double operations =
          6.0 * rows * static_cast<double>(o_.inputs) * static_cast<double>(o_.outputs);
      Add("feed-forward", std::string(NameOf(format)), rows,
          Best([&] { backend_->FeedForward(args); }), operations,
          out_.peak.Products(format, o_.fast), bytes);
    }
    return {};
  }

  /// The head is larger than caches by itself.
  Status Head(DType format) {
    std::vector<Matrix> head;
    KV_ASSIGN(Matrix m, MakeWeights(format, HeadOutputs(), o_.inputs));
    head.push_back(std::move(m));
    Products("head", head, o_.head_rows);
    for (const int32_t rows : o_.rows) {
      // Far from one another, as tokens of a text are in the table.
      std::vector<int32_t> tokens(static_cast<size_t>(rows));
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(i * 7919 % static_cast<size_t>(head[0].rows));
      std::vector<float> out(tokens.size() * static_cast<size_t>(o_.inputs));
      const double row_bytes =
          static_cast<double>(head[0].bytes()) / static_cast<double>(head[0].rows);
      Add("embedding", std::string(NameOf(format)), rows,
          Best([&] { backend_->Embed(head[0], tokens, 1, out.data()); }), 0, 0, rows * row_bytes);
    }
    return {};
  }

  Status Attention(KvDType dtype, int32_t context) {
    KV_ASSIGN(const KvLayout layout, KvLayout::Create({.window = {0},
                                                       .kv_heads = o_.kv_heads,
                                                       .head_dim = o_.head_dim,
                                                       .block_tokens = 32,
                                                       .dtype = dtype}));
    const int32_t blocks = kSequences * ((context + kChunk) / layout.block_tokens + 1);
    KvManager manager(layout, blocks);
    KV_ASSIGN(const AlignedBuffer memory,
              AlignedBuffer::Allocate(layout.block_bytes * static_cast<size_t>(blocks),
                                      MemoryOwner::kProbe, "the keys and values of a benchmark"));
    const KvStorage storage{&layout, memory.data(), blocks};
    std::vector<SequenceKv> sequences;
    for (int32_t i = 0; i < kSequences; ++i) {
      sequences.push_back(manager.NewSequence());
      CHECK(manager.Grow(sequences.back(), context + kChunk));
    }
    const int64_t q_dim = int64_t{o_.heads} * o_.head_dim,
                  kv_dim = int64_t{o_.kv_heads} * o_.head_dim;
    std::vector<float> q(static_cast<size_t>(kChunk * q_dim), 0.1f), out(q.size());
    std::vector<float> k(static_cast<size_t>(kChunk * kv_dim), 0.1f), v(k);
    const std::vector<float> cos(static_cast<size_t>(kChunk) * o_.head_dim / 2, 1),
        sin(cos.size(), 0);
    // `rows` tokens after `position` of the first `count` sequences.
    std::vector<int32_t> tokens, positions;
    std::vector<BatchSlice> slices;
    std::vector<TableView> tables;
    const auto batch_of = [&](int32_t count, int32_t position, int32_t rows) {
      tokens.assign(static_cast<size_t>(count) * rows, 0);
      positions.clear();
      slices.clear();
      tables.clear();
      for (int32_t s = 0; s < count; ++s) {
        slices.push_back({s * rows, rows, position});
        tables.push_back(sequences[s].tables[0].view());
        for (int32_t r = 0; r < rows; ++r) positions.push_back(position + r);
      }
      return Batch{.tokens = tokens, .positions = positions, .slices = slices, .tables = tables};
    };
    const auto append = [&](const Batch& batch) {
      backend_->RopeAppend({.batch = &batch,
                            .kv = &storage,
                            .heads = o_.heads,
                            .kv_heads = o_.kv_heads,
                            .head_dim = o_.head_dim,
                            .q = q.data(),
                            .k = k.data(),
                            .v = v.data(),
                            .q_stride = q_dim,
                            .kv_stride = kv_dim,
                            .cos = cos.data(),
                            .sin = sin.data(),
                            .rope_dims = o_.head_dim});
    };
    constexpr int32_t kEach = kChunk / kSequences;
    for (int32_t at = 0; at < context + kChunk; at += kEach)
      append(batch_of(kSequences, at, std::min(kEach, context + kChunk - at)));
    const auto measure = [&](const char* name, const Batch& batch) {
      const OpCounters before = backend_->counters();
      int64_t runs = 0;
      const double seconds = Best([&] {
        backend_->Attention({.batch = &batch,
                             .kv = &storage,
                             .heads = o_.heads,
                             .q = q.data(),
                             .out = out.data(),
                             .q_stride = q_dim,
                             .out_stride = q_dim});
        ++runs;
      });
      const OpCounters work = backend_->counters() - before;
      const auto each = [&](uint64_t n) {
        return static_cast<double>(n) / static_cast<double>(runs);
      };
      Add(name, fmt::format("{} after {}", NameOf(dtype), context), batch.rows(), seconds,
          each(work.attention_flops), out_.peak.Attention(dtype), each(work.kv_bytes_read));
    };
    measure("attention, decode", batch_of(1, context, 1));
    measure("attention, decode", batch_of(kSequences, context, 1));
    measure("attention, prefill", batch_of(1, context, kChunk));
    const Batch chunk = batch_of(1, context, kChunk);
    const double bytes = static_cast<double>(kChunk) * layout.bytes_per_token();
    Add("rope+append", std::string(NameOf(dtype)), kChunk, Best([&] { append(chunk); }), 0, 0,
        bytes);
    return {};
  }

  void RowOps(int32_t rows) {
    const auto dim = static_cast<int32_t>(o_.inputs);
    const std::vector<float> weight(static_cast<size_t>(dim), 1);
    std::vector<float> out(static_cast<size_t>(rows) * dim);
    const double bytes = 8.0 * rows * dim;
    Add("norm", "f32", rows,
        Best([&] { backend_->RmsNorm(x_.data(), rows, dim, weight.data(), 1e-5f, out.data()); }), 0,
        0, bytes);
  }

  void Sampling() {
    constexpr size_t kVocab = 128'256;  // of the 1B shape
    // As a model's: about normal, with some tokens that stand out.
    std::vector<float> made(kVocab), logits(kVocab);
    for (size_t i = 0; i < kVocab; ++i) {
      float sum = 0;
      for (const uint32_t x : Philox4x32(1, {static_cast<uint32_t>(i)})) {
        sum += static_cast<float>(x >> 8) * 0x1p-24f - 0.5f;
      }
      made[i] = 3 * sum + (i % 1000 == 0 ? static_cast<float>(i / 1000) * 0.1f : 0.0f);
    }
    const std::pair<const char*, SamplingParams> kinds[] = {
        {"greedy", {}},
        {"temperature", {.temperature = 0.8f}},
        {"top-p", {.temperature = 0.8f, .top_p = 0.95f}},
        {"top-k", {.temperature = 0.8f, .top_k = 40}},
        {"repetition", {.repetition_penalty = 1.1f}},
        {"5 logprobs", {.logprobs = 5}},
    };
    SamplerScratch scratch;
    const int32_t prompt = 1;
    const SampleContext context{{&prompt, 1}, 1, {}};
    for (const auto& [name, params] : kinds) {
      const double seconds = Best([&, &p = params] {
        logits = made;
        CHECK(Sample(logits, p, context, scratch).ok());
      });
      Add("sampling", name, 1, seconds, 0, 0, 4.0 * kVocab);
    }
  }

  const KernelBenchOptions& o_;
  std::unique_ptr<Backend> backend_;
  Isa isa_;
  KernelBench out_;
  std::vector<float> x_, y_;
};

}  // namespace

Result<KernelBench> RunKernelBench(const KernelBenchOptions& options) {
  KV_ASSIGN(const Isa isa, ChooseIsa());
  KV_ASSIGN(std::unique_ptr<Backend> backend,
            MakeCpuBackend({.threads = options.threads, .fast = options.fast}));
  return Bench(options, std::move(backend), isa).Run();
}

}  // namespace kvasir
