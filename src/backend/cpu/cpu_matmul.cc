#include "backend/cpu/cpu_matmul.h"

#include <algorithm>
#include <atomic>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "base/check.h"
#include "base/checked.h"

namespace kvasir {
namespace {

/// Activations of one row block: they are read once for every panel and should stay in the second
/// level cache (512 KiB and more on the machines of the last ten years).
constexpr int64_t kRowBlockBytes = 192 << 10;
/// Chunks of work that a thread takes at a time: enough that the last ones end together, few enough
/// that taking one costs nothing.
constexpr int64_t kChunksPerThread = 8;

/// Where the quantized activations of a step lie in the scratch buffer.
struct Scratch {
  int8_t* q;
  int16_t* q16;
  float* d;
  int32_t* sum;

  Scratch(uint8_t* base, int32_t rows, int64_t k) {
    const size_t n = static_cast<size_t>(rows) * k;
    q = reinterpret_cast<int8_t*>(base);
    q16 = reinterpret_cast<int16_t*>(base + RoundUp(n, 64));
    d = reinterpret_cast<float*>(base + RoundUp(n, 64) + RoundUp(2 * n, 64));
    sum = reinterpret_cast<int32_t*>(base + RoundUp(n, 64) + RoundUp(2 * n, 64) +
                                     RoundUp(n / kGroup * 4, 64));
  }
};

PackFormat FormatOf(const Matrix& m) { return static_cast<PackFormat>(m.format); }

}  // namespace

const MatMulKernels& MatMulKernelsFor(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
      return avx2::kMatMul;
    case Isa::kAvx512:
      return avx512::kMatMul;
    case Isa::kAmx:
      return amx::kMatMul;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return neon::kMatMul;
#endif
    default:
      return scalar::kMatMul;
  }
}

CpuMatMul::CpuMatMul(Isa isa, ThreadPool* pool) : isa_(isa), pool_(pool) {}

Result<size_t> CpuMatMul::PackedBytes(DType dtype, int64_t rows, int64_t cols) {
  if (dtype == DType::kI8 || dtype == DType::kI32) {
    return MakeError(ErrorCode::kUnsupported, "{} is no weight format", NameOf(dtype));
  }
  const PackFormat format = PackFormatOf(dtype);
  const int64_t unit = IsQuantized(format) ? InfoOf(dtype).block_elements : 1;
  if (rows < 1 || cols < 1 || cols % unit != 0 || cols > (int64_t{1} << 32)) {
    return MakeError(
        ErrorCode::kUnsupported,
        "a {} matrix of {} x {} is not supported; the row length must be a multiple of {}",
        NameOf(dtype), rows, cols, unit);
  }
  const CheckedSize bytes =
      CheckedSize(DivUp(static_cast<size_t>(rows), kPanel)) * PanelBytes(format, cols);
  if (!bytes.AtMost(uint64_t{1} << 46)) {
    return MakeError(ErrorCode::kUnsupported, "a {} matrix of {} x {} is too large", NameOf(dtype),
                     rows, cols);
  }
  return static_cast<size_t>(*bytes.Get());
}

Result<Matrix> CpuMatMul::Pack(const TensorView& source) {
  KV_ASSIGN(const size_t bytes, PackedBytes(source.dtype, source.rows, source.cols));
  Matrix m;
  m.source = source.dtype;
  m.rows = source.rows;
  m.cols = source.cols;
  m.format = static_cast<int32_t>(PackFormatOf(source.dtype));
  KV_ASSIGN(m.data, AlignedBuffer::Allocate(bytes, MemoryOwner::kWeights, "weights"));
  const size_t panels = DivUp(static_cast<size_t>(source.rows), kPanel);
  const size_t panel_bytes = PanelBytes(FormatOf(m), source.cols);
  std::atomic<size_t> next{0};
  pool_->Run([&](int) {
    constexpr size_t kChunk = 4;
    for (size_t p = next.fetch_add(kChunk); p < panels; p = next.fetch_add(kChunk)) {
      for (size_t i = p; i < std::min(panels, p + kChunk); ++i) {
        PackPanel(source, static_cast<int64_t>(i), m.data.data() + i * panel_bytes);
      }
    }
  });
  return m;
}

size_t CpuMatMul::ScratchBytes(int32_t max_rows, int64_t max_cols) {
  const size_t n = static_cast<size_t>(max_rows) * RoundUp(static_cast<size_t>(max_cols), kGroup);
  return RoundUp(n, 64) + RoundUp(2 * n, 64) + RoundUp(n / kGroup * 4, 64) +
         RoundUp(n / kGroup * 8, 64);
}

Status CpuMatMul::ReserveScratch(int32_t max_rows, int64_t max_cols) {
  if (max_rows <= max_rows_ && max_cols <= max_cols_) return {};
  max_rows_ = std::max(max_rows, max_rows_);
  max_cols_ = std::max(max_cols, max_cols_);
  KV_ASSIGN(scratch_, AlignedBuffer::Allocate(ScratchBytes(max_rows_, max_cols_),
                                              MemoryOwner::kScratch, "quantized activations"));
  return {};
}

void CpuMatMul::Row(const Matrix& m, int64_t r, float scale, float* out) const {
  CHECK(r >= 0 && r < m.rows);
  const size_t panel_bytes = PanelBytes(FormatOf(m), m.cols);
  UnpackColumn(FormatOf(m), m.data.data() + static_cast<size_t>(r / kPanel) * panel_bytes,
               static_cast<int>(r % kPanel), m.cols, scale, out);
}

void CpuMatMul::Run(const float* x, int64_t x_stride, int32_t rows,
                    std::span<const MatMulOutput> outputs, OpCounters& counters) {
  if (rows == 0 || outputs.empty()) return;
  const MatMulKernels& kernels = MatMulKernelsFor(isa_);
  const int64_t k = outputs[0].weight->cols;
  bool quantized = false;
  int64_t panels = 0;  // of all outputs
  for (const MatMulOutput& o : outputs) {
    CHECK_EQ(o.weight->cols, k);
    quantized = quantized || IsQuantized(FormatOf(*o.weight));
    panels += static_cast<int64_t>(DivUp(static_cast<size_t>(o.weight->rows), kPanel));
    counters.projections += static_cast<uint64_t>(rows);
    counters.matmul_flops +=
        2 * static_cast<uint64_t>(rows) * static_cast<uint64_t>(o.weight->rows * k);
    counters.weight_bytes += o.weight->bytes();
  }
  if (quantized) {
    CHECK_LE(rows, max_rows_);
    CHECK_LE(k, max_cols_);
  }
  const Scratch s(scratch_.data(), rows, quantized ? k : 0);
  const int64_t groups = k / kGroup;
  const auto quantize = [&](int64_t r) {
    kernels.quantize(x + r * x_stride, k, s.q + r * k, s.q16 + r * k, s.d + r * groups,
                     s.sum + r * groups * 2);
  };
  if (quantized && rows < 8) {  // waking the others takes longer
    for (int64_t r = 0; r < rows; ++r) quantize(r);
  } else if (quantized) {
    pool_->Run([&](int worker) {
      const Range range = Split(static_cast<size_t>(rows), worker, pool_->size());
      for (size_t r = range.begin; r < range.end; ++r) quantize(static_cast<int64_t>(r));
    });
  }

  const int64_t row_block =
      std::clamp<int64_t>(kRowBlockBytes / (quantized ? k : 4 * k) / 16 * 16, 16, 1 << 20);
  const int64_t row_blocks = (rows + row_block - 1) / row_block;
  const int64_t chunk = std::max<int64_t>(1, panels / (kChunksPerThread * pool_->size()));
  const int64_t chunks = (panels + chunk - 1) / chunk;
  // Work item: a chunk of panels (counted over all outputs) and a block of rows, panels fastest, so
  // that a block of activations stays in the cache while the weights stream past it.
  const auto run_item = [&](int64_t item) {
    const int64_t row0 = item / chunks * row_block;
    const int64_t block_rows = std::min(row_block, rows - row0);
    int64_t begin = item % chunks * chunk, end = std::min(panels, begin + chunk);
    for (const MatMulOutput& o : outputs) {
      const auto count = static_cast<int64_t>(DivUp(static_cast<size_t>(o.weight->rows), kPanel));
      const int64_t from = std::max<int64_t>(begin, 0), to = std::min(end, count);
      if (from < to) {
        PanelArgs a;
        a.panel_bytes = PanelBytes(FormatOf(*o.weight), k);
        a.weights = o.weight->data.data() + static_cast<size_t>(from) * a.panel_bytes;
        a.k = k;
        a.panels = static_cast<int32_t>(to - from);
        a.columns = o.weight->rows - from * kPanel;
        a.rows = block_rows;
        a.q = s.q + row0 * k;
        a.q16 = s.q16 + row0 * k;
        a.d = s.d + row0 * groups;
        a.sum = s.sum + row0 * groups * 2;
        a.x = x + row0 * x_stride;
        a.x_stride = x_stride;
        a.out = o.out + row0 * o.out_stride + from * kPanel;
        a.out_stride = o.out_stride;
        a.bias = o.bias == nullptr ? nullptr : o.bias + from * kPanel;
        a.add = o.add;
        kernels.panels[o.weight->format](a);
      }
      begin -= count;
      end -= count;
    }
  };
  std::atomic<int64_t> next{0};
  pool_->Run([&](int) {
    for (int64_t item = next.fetch_add(1); item < chunks * row_blocks; item = next.fetch_add(1))
      run_item(item);
  });
}

}  // namespace kvasir
