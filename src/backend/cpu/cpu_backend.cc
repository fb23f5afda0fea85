#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_matmul.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/ops.h"
#include "backend/cpu/probe.h"
#include "backend/cpu/vector_kernels.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/thread_pool.h"

namespace kvasir {
namespace {

const VectorKernels& VectorKernelsFor(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return avx2::kVector;
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
    case Isa::kAmx:
      return avx512::kVector;
#elif defined(__aarch64__)
    case Isa::kNeon:
    case Isa::kNeonDot:
      return neon::kVector;
#endif
    default:
      return scalar::kVector;
  }
}

const AttentionKernels& AttentionKernelsFor(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAmx) return amx::kTileAttention;
  if (isa == Isa::kAvx512Bf16) return avx512bf16::kAttention;
  if (isa == Isa::kAvx512) return avx512::kAttention;
#endif
  (void)isa;
  return kFloatAttention;
}

/// Rows of cheap work below which waking the other threads costs more than it saves (about 5 us
/// against a microsecond for a row of a few hundred elements).
constexpr int32_t kRowsToShare = 8;

/// Adds the time of a scope to its op.
class OpTimer {
 public:
  OpTimer(OpCounters* counters, Op op)
      : ns_(&counters->op_ns[static_cast<int>(op)]), begin_(SteadyClock().NowNs()) {}
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;
  ~OpTimer() { *ns_ += SteadyClock().NowNs() - begin_; }

 private:
  int64_t* ns_;
  int64_t begin_;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(Isa isa, int threads, bool pin, bool fast)
      : isa_(isa),
        fast_(fast),
        pool_(threads, pin),
        kernels_(VectorKernelsFor(isa)),
        matmul_(&MatMulKernelsFor(isa), &pool_, fast),
        attention_(&AttentionKernelsFor(isa), &kernels_, &pool_) {}

  std::string description() const override {
    return fmt::format("cpu {}, {} thread{}{}", NameOf(isa_), pool_.size(),
                       pool_.size() == 1 ? "" : "s", fast_ ? ", faster mode" : "");
  }
  int threads() const override { return pool_.size(); }

  Result<size_t> PackedBytes(DType dtype, int64_t rows, int64_t cols) const override {
    return matmul_.PackedBytes(dtype, rows, cols);
  }
  Status ReserveWeights(size_t bytes) override { return matmul_.ReserveWeights(bytes); }
  Result<Matrix> Pack(const TensorView& source) override { return matmul_.Pack(source); }

  size_t ScratchBytes(int32_t max_rows, int64_t max_dim, int32_t, int32_t head_dim,
                      int64_t max_tokens) const override {
    return matmul_.ScratchBytes(max_rows, max_dim) +
           CpuAttention::ScratchBytes(pool_.size(), head_dim, max_tokens);
  }
  Status ReserveScratch(int32_t max_rows, int64_t max_dim, int32_t, int32_t head_dim,
                        int64_t max_tokens) override {
    KV_RETURN_IF_ERROR(matmul_.ReserveScratch(max_rows, max_dim));
    return attention_.ReserveScratch(head_dim, max_tokens);
  }

  void Embed(const Matrix& table, std::span<const int32_t> tokens, float scale,
             float* out) override {
    const OpTimer timer(&counters_, Op::kEmbed);
    ForRows(static_cast<int32_t>(tokens.size()), [&](int32_t r) {
      matmul_.Row(table, tokens[static_cast<size_t>(r)], scale, out + r * table.cols);
    });
  }

  void RmsNorm(const float* x, int32_t rows, int32_t dim, const float* weight, float eps,
               float* out, bool add) override {
    const OpTimer timer(&counters_, Op::kNorm);
    ForRows(rows, [&](int32_t r) {
      RmsNormRow(x + int64_t{r} * dim, dim, weight, eps, out + int64_t{r} * dim, add);
    });
  }

  void MatMul(const float* x, int64_t x_stride, int32_t rows,
              std::span<const MatMulOutput> outputs) override {
    const OpTimer timer(&counters_, Op::kMatMul);
    matmul_.Run(x, x_stride, rows, outputs, counters_);
  }

  void RopeAppend(const RopeAppendArgs& args) override {
    const OpTimer timer(&counters_, Op::kRopeAppend);
    CHECK_EQ(args.kv_heads, args.kv->layout->kv_heads);
    CHECK_EQ(args.head_dim, args.kv->layout->head_dim);
    const std::span<const BatchSlice> slices = args.batch->slices;
    ForRows(args.batch->rows(), [&](int32_t row) {
      // The slice of a row: the last that begins at or before it.
      const auto it =
          std::upper_bound(slices.begin(), slices.end(), row,
                           [](int32_t r, const BatchSlice& s) { return r < s.first_row; });
      RopeAppendRow(args, static_cast<int32_t>(it - slices.begin()) - 1, row, kernels_);
    });
    counters_.kv_bytes_written += static_cast<uint64_t>(args.batch->rows()) *
                                  (args.kv->layout->layer_bytes / args.kv->layout->block_tokens);
  }

  void Attention(const AttentionArgs& args) override {
    const OpTimer timer(&counters_, Op::kAttention);
    attention_.Run(args, counters_);
  }

  void FeedForward(const FeedForwardArgs& args) override {
    const OpTimer timer(&counters_, Op::kMatMul);
    matmul_.FeedForward(
        args, args.activation == GateActivation::kSilu ? kernels_.silu : kernels_.gelu, counters_);
  }

  void BeginStep() override { step_.emplace(pool_); }
  void EndStep() override { step_.reset(); }
  void OnThreads(WorkerFn fn) override { pool_.Run(fn); }

  OpCounters counters() const override { return counters_; }

  MachineLimits MeasureLimits(DType weights, size_t buffer_bytes) override {
    constexpr double kGiga = 1e9;
    const Result<double> bandwidth = ReadBandwidthProbe(&pool_, &SteadyClock(), buffer_bytes);
    const PeakRates peak = PeakProbe(isa_, &pool_, &SteadyClock());
    return {.bytes_per_s = bandwidth.ok() ? *bandwidth * kGiga : 0,
            .flops_per_s = peak.Products(weights, fast_) * kGiga};
  }

 private:
  template <typename F>
  void ForRows(int32_t rows, const F& fn) {
    if (rows < kRowsToShare) {
      for (int32_t r = 0; r < rows; ++r) fn(r);
      return;
    }
    pool_.Run([&](int worker) {
      const Range range = Split(static_cast<size_t>(rows), worker, pool_.size());
      for (size_t r = range.begin; r < range.end; ++r) fn(static_cast<int32_t>(r));
    });
  }

  Isa isa_;
  bool fast_;
  ThreadPool pool_;
  std::optional<CallerStays> step_;
  const VectorKernels& kernels_;
  CpuMatMul matmul_;
  CpuAttention attention_;
  OpCounters counters_;
};

}  // namespace

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  Isa isa = Isa::kScalar;
  if (options.isa) {
    const std::vector<Isa> available = AvailableIsas();
    if (std::find(available.begin(), available.end(), *options.isa) == available.end()) {
      return MakeError(ErrorCode::kInvalid, "this machine has no {}", NameOf(*options.isa));
    }
    isa = *options.isa;
  } else {
    KV_ASSIGN(isa, ChooseIsa());
  }
  constexpr int kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return MakeError(ErrorCode::kInvalid, "{} threads; 1 to {} are allowed, or 0 for one a core",
                     options.threads, kMaxThreads);
  }
  const int threads =
      options.threads > 0 ? options.threads : static_cast<int>(PhysicalCpus().size());
  if (options.fast && MatMulKernelsFor(isa).quantize_blocks == nullptr) {
    return FlagError(
        "--fast has kernels for AVX-512 and AMX, and this runs with {}; leave --fast out",
        NameOf(isa));
  }
  return std::unique_ptr<Backend>(
      std::make_unique<CpuBackend>(isa, threads, options.pin, options.fast));
}

}  // namespace kvasir
