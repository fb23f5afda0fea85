#include "backend/cpu/cpu_matmul.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "base/check.h"
#include "base/checked.h"

namespace kvasir {
namespace {

/// Activations of one row block: they are read once for every panel and should stay in the second
/// level cache (512 KiB and more on the machines of the last ten years).
constexpr int64_t kRowBlockBytes = 192 << 10;
/// A thread takes this part of its share of what is left, at least: long runs of memory first,
/// short ones last, so that all end together.
constexpr int64_t kShareTaken = 2;
/// Of so many rows for each thread, a thread takes its own, as it does in everything else that is
/// done row by row: their activations stay in its caches. SmolLM2's products of 512 rows take 1.58
/// s instead of 1.74 where the cores share no cache, and as long as before where they do; with 32
/// rows 64 rows take 1.06 times as long, since the weights are unpacked twice (2 threads, EPYC with
/// AVX-512, 2026-11-27, runs in turn).
constexpr int64_t kRowsOfAPart = 128;

/// Where the activations of a step lie in the scratch buffer: as int8 with scales and sums, or as
/// tiles; then each thread's own scratch.
struct Scratch {
  int8_t* q;
  float* d;
  int32_t* sum;

  Scratch(uint8_t* base, int32_t rows, int64_t k) {
    const size_t n = static_cast<size_t>(rows) * k;
    q = reinterpret_cast<int8_t*>(base);
    d = reinterpret_cast<float*>(base + RoundUp(n, 64));
    sum = reinterpret_cast<int32_t*>(base + RoundUp(n, 64) + RoundUp(n / kGroup * 4, 64));
  }
  static size_t Bytes(int32_t rows, int64_t k) {
    const size_t n = static_cast<size_t>(rows) * RoundUp(static_cast<size_t>(k), kGroup);
    return RoundUp(n, 64) + RoundUp(n / kGroup * 4, 64) + RoundUp(n / kGroup * 8, 64);
  }
};

/// The same for the faster mode: tiles of bytes, then scales, then sums.
struct BlockOffsets {
  size_t d, sum, end;
  BlockOffsets(int32_t rows, int64_t k) {
    d = DivUp(static_cast<size_t>(rows), kTileRows) * static_cast<size_t>(ByteTiles(k)) *
        kTileBytes;
    sum = d + RoundUp(static_cast<size_t>(rows) * DivUp(static_cast<size_t>(k), kBlock) * 4, 64);
    end = sum + RoundUp(static_cast<size_t>(rows) * static_cast<size_t>(k / kGroup) * 4, 64);
  }
};
ByteBlocks BlocksIn(uint8_t* base, int32_t rows, int64_t k) {
  const BlockOffsets at(rows, k);
  return {reinterpret_cast<int8_t*>(base), reinterpret_cast<float*>(base + at.d),
          reinterpret_cast<int32_t*>(base + at.sum)};
}

/// The rows of a part, whole tiles of them (the faster mode's activations lie in such).
Range PartOf(size_t rows, int index, int parts) {
  constexpr auto kUnit = static_cast<size_t>(kTileRows);
  const Range units = Split(DivUp(rows, kUnit), index, parts);
  return {units.begin * kUnit, std::min(units.end * kUnit, rows)};
}

PackFormat FormatOf(const Matrix& m) { return static_cast<PackFormat>(m.format); }

#if defined(__x86_64__)
MatMulKernels WithPairs(MatMulKernels kernels) {
  kernels.panels[static_cast<int>(PackFormat::kBF16)] = avx512bf16::Panels;
  kernels.to_pairs = avx512bf16::ToPairs;
  kernels.bf16_peak = avx512bf16::Bf16Peak;
  return kernels;
}
#endif

}  // namespace

const MatMulKernels& MatMulKernelsFor(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
      return avx2::kMatMul;
    case Isa::kAvxVnni:
      return avxvnni::kMatMul;
    case Isa::kAvx512:
      return avx512::kMatMul;
    case Isa::kAvx512Bf16: {
      static const MatMulKernels kernels = WithPairs(avx512::kMatMul);
      return kernels;
    }
    case Isa::kAmx:
      return amx::kMatMul;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return neon::kMatMul;
    case Isa::kNeonDot:
      return neondot::kMatMul;
#endif
    default:
      return scalar::kMatMul;
  }
}

/// The activations of one call as its kernels take them.
struct CpuMatMul::Prepared {
  Input input = Input::kFloats;
  const float* x = nullptr;
  int64_t x_stride = 0, k = 0;
  int32_t rows = 0;
};

CpuMatMul::CpuMatMul(const MatMulKernels* kernels, ThreadPool* pool, bool fast)
    : kernels_(kernels), pool_(pool), fast_(fast), next_(static_cast<size_t>(pool->size())) {
  CHECK(!fast || kernels->quantize_blocks != nullptr);
}

int32_t CpuMatMul::FormatFor(DType dtype) const {
  const PackFormat format = PackFormatOf(dtype);
  return static_cast<int32_t>(fast_ ? BlockedFormatOf(format) : format);
}

Result<size_t> CpuMatMul::PackedBytes(DType dtype, int64_t rows, int64_t cols) const {
  if (dtype == DType::kI8 || dtype == DType::kI32) {
    return MakeError(ErrorCode::kUnsupported, "{} is no weight format", NameOf(dtype));
  }
  const auto format = static_cast<PackFormat>(FormatFor(dtype));
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

Status CpuMatMul::ReserveWeights(size_t bytes) {
  KV_ASSIGN(reserved_, AlignedBuffer::Allocate(bytes, MemoryOwner::kWeights, "weights"));
  return {};
}

Result<Matrix> CpuMatMul::Pack(const TensorView& source) {
  KV_ASSIGN(const size_t bytes, PackedBytes(source.dtype, source.rows, source.cols));
  Matrix m;
  m.source = source.dtype;
  m.rows = source.rows;
  m.cols = source.cols;
  m.format = FormatFor(source.dtype);
  if (AlignedBuffer::FrontBytes(bytes) <= reserved_.size()) {
    m.data = reserved_.TakeFront(bytes);
  } else {
    KV_ASSIGN(m.data, AlignedBuffer::Allocate(bytes, MemoryOwner::kWeights, "weights"));
  }
  const size_t panels = DivUp(static_cast<size_t>(source.rows), kPanel);
  const size_t panel_bytes = PanelBytes(FormatOf(m), source.cols);
  const PackFormat as_it_is = PackFormatOf(source.dtype);
  const bool blocked = IsBlocked(FormatOf(m));
  const size_t plain_bytes = blocked ? PanelBytes(as_it_is, source.cols) : 0;
  KV_ASSIGN(const AlignedBuffer plain,
            AlignedBuffer::Allocate(static_cast<size_t>(pool_->size()) * RoundUp(plain_bytes, 64),
                                    MemoryOwner::kScratch, "panels of weights"));
  std::atomic<size_t> next{0};
  pool_->Run([&](int worker) {
    constexpr size_t kChunk = 4;
    for (size_t p = next.fetch_add(kChunk); p < panels; p = next.fetch_add(kChunk)) {
      for (size_t i = p; i < std::min(panels, p + kChunk); ++i) {
        uint8_t* const to = m.data.data() + i * panel_bytes;
        if (!blocked) {
          PackPanel(source, static_cast<int64_t>(i), to);
          continue;
        }
        uint8_t* const panel =
            plain.data() + static_cast<size_t>(worker) * RoundUp(plain_bytes, 64);
        std::memset(panel, 0, plain_bytes);
        PackPanel(source, static_cast<int64_t>(i), panel);
        PackBlocks(as_it_is, panel, source.cols, to);
      }
    }
  });
  return m;
}

/// Of activations in all the ways in which the kernels take them, one at a time.
size_t CpuMatMul::ActivationBytes(int32_t max_rows, int64_t max_cols) const {
  const size_t blocks = fast_ ? BlockOffsets(max_rows, max_cols).end : 0;
  const size_t usual = kernels_->to_tiles != nullptr ? TilesBytes(max_rows, max_cols)
                                                     : Scratch::Bytes(max_rows, max_cols);
  const size_t pairs = kernels_->to_pairs != nullptr
                           ? RoundUp(static_cast<size_t>(max_rows) * PairBytes(max_cols), 64)
                           : 0;
  return std::max({blocks, usual, pairs});
}

size_t CpuMatMul::ScratchBytes(int32_t max_rows, int64_t max_cols) const {
  const size_t each = kernels_->to_tiles != nullptr ? TileScratchBytes(max_rows) : 0;
  return ActivationBytes(max_rows, max_cols) + static_cast<size_t>(pool_->size()) * each;
}

Status CpuMatMul::ReserveScratch(int32_t max_rows, int64_t max_cols) {
  if (max_rows <= max_rows_ && max_cols <= max_cols_) return {};
  max_rows_ = std::max(max_rows, max_rows_);
  max_cols_ = std::max(max_cols, max_cols_);
  KV_ASSIGN(scratch_,
            AlignedBuffer::Allocate(ScratchBytes(max_rows_, max_cols_), MemoryOwner::kScratch,
                                    "the activations of products"));
  return {};
}

void CpuMatMul::Row(const Matrix& m, int64_t r, float scale, float* out) const {
  CHECK(r >= 0 && r < m.rows);
  const size_t panel_bytes = PanelBytes(FormatOf(m), m.cols);
  UnpackColumn(FormatOf(m), m.data.data() + static_cast<size_t>(r / kPanel) * panel_bytes,
               static_cast<int>(r % kPanel), m.cols, scale, out);
}

CpuMatMul::Input CpuMatMul::InputOf(const Matrix& m) const {
  const PackFormat format = FormatOf(m);
  const bool tiles = kernels_->to_tiles != nullptr;
  if (IsBlocked(format)) return Input::kByteBlocks;
  if (IsQuantized(format)) return tiles ? Input::kPackedTiles : Input::kInt8;
  if (format != PackFormat::kBF16) return Input::kFloats;
  if (kernels_->to_pairs != nullptr) return Input::kPairs;
  return tiles ? Input::kAscendingTiles : Input::kFloats;
}

CpuMatMul::Prepared CpuMatMul::Prepare(Input input, const float* x, int64_t x_stride, int32_t rows,
                                       int64_t k) {
  const Prepared prepared{input, x, x_stride, k, rows};
  if (input == Input::kFloats) return prepared;
  CHECK_LE(rows, max_rows_);
  CHECK_LE(k, max_cols_);
  const int64_t groups = k / kGroup;
  const Scratch s(scratch_.data(), rows, k);
  const ByteBlocks blocks = fast_ ? BlocksIn(scratch_.data(), rows, k) : ByteBlocks{};
  const bool by_rows =
      input == Input::kInt8 || input == Input::kPairs || input == Input::kByteBlocks;
  const auto convert = [&](int64_t i) {
    if (input == Input::kByteBlocks) {
      kernels_->quantize_blocks(x + i * x_stride, k, i, blocks);
    } else if (input == Input::kInt8) {
      kernels_->quantize(x + i * x_stride, k, s.q + i * k, s.d + i * groups,
                         s.sum + i * groups * 2);
    } else if (input == Input::kPairs) {
      kernels_->to_pairs(x + i * x_stride, k,
                         scratch_.data() + static_cast<size_t>(i) * PairBytes(k));
    } else {
      kernels_->to_tiles(x, x_stride, rows, k,
                         input == Input::kPackedTiles ? TileOrder::kPacked : TileOrder::kAscending,
                         i, scratch_.data());
    }
  };
  const auto items =
      by_rows ? static_cast<size_t>(rows) : DivUp(static_cast<size_t>(rows), kTileRows);
  if (rows < 8) {  // waking the others takes longer
    for (size_t i = 0; i < items; ++i) convert(static_cast<int64_t>(i));
  } else {
    pool_->Run([&](int worker) {
      const Range range = Split(items, worker, pool_->size());
      for (size_t i = range.begin; i < range.end; ++i) convert(static_cast<int64_t>(i));
    });
  }
  return prepared;
}

void CpuMatMul::Multiply(const Prepared& in, std::span<const MatMulOutput> outputs) {
  const int64_t k = in.k, rows = in.rows, groups = k / kGroup;
  const Scratch s(scratch_.data(), in.rows, k);
  const ByteBlocks blocks = fast_ ? BlocksIn(scratch_.data(), in.rows, k) : ByteBlocks{};
  const int64_t scales = (k + kBlock - 1) / kBlock;  // of a row, in blocks
  const bool bytes = in.input == Input::kByteBlocks;
  const bool tiles = kernels_->to_tiles != nullptr && in.input != Input::kFloats;
  const int64_t element_bytes = in.input == Input::kFloats ? 4 : in.input == Input::kPairs ? 2 : 1;
  int64_t panels = 0;  // of all outputs
  for (const MatMulOutput& o : outputs) {
    if (InputOf(*o.weight) == in.input)
      panels += static_cast<int64_t>(DivUp(static_cast<size_t>(o.weight->rows), kPanel));
  }
  // Tile kernels unpack weights once for a block of rows.
  const auto tile_blocks = static_cast<int64_t>(DivUp(rows, kMostTileRows));
  const int64_t row_block =
      tiles ? static_cast<int64_t>(RoundUp(DivUp(rows, tile_blocks), 2 * kTileRows))
            : std::clamp<int64_t>(kRowBlockBytes / (element_bytes * k) / 16 * 16, 16, 1 << 20);
  // Tile kernels unpack weights for all rows at once.
  const int parts = !tiles && rows >= kRowsOfAPart * pool_->size() ? pool_->size() : 1;
  // Tile kernels take two panels together, and of many rows so many at most that their sums fit.
  const int64_t unit = tiles ? 2 : 1;
  const int64_t most = tiles && rows > kTileRows ? int64_t{kTilePanels} : panels + unit;
  const auto chunk_at = [&](int64_t begin, int64_t end) {
    const int64_t share = (end - begin) * parts / (kShareTaken * pool_->size());
    return std::min(std::clamp((share + unit - 1) / unit * unit, unit, most),
                    panels - begin % panels);
  };
  // Work item: a chunk of panels (counted over all outputs) and a block of rows, panels fastest, so
  // that a block of activations stays in the cache while the weights stream past it.
  const auto run_item = [&](Range part, int64_t first, int64_t chunk, int worker) {
    const int64_t row0 = static_cast<int64_t>(part.begin) + first / panels * row_block;
    const int64_t block_rows = std::min(row_block, static_cast<int64_t>(part.end) - row0);
    int64_t begin = first % panels, end = begin + chunk;
    for (const MatMulOutput& o : outputs) {
      if (InputOf(*o.weight) != in.input) continue;
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
        a.d = s.d + row0 * groups;
        a.sum = s.sum + row0 * groups * 2;
        if (in.input == Input::kPairs)
          a.pairs = scratch_.data() + static_cast<size_t>(row0) * PairBytes(k);
        a.first_block = row0 / kTileRows;
        if (bytes) {
          a.byte_tiles = blocks.q;
          a.d = blocks.d + row0 * scales;
          a.sum = blocks.sum + row0 * groups;
        }
        if (tiles) {
          a.tiles = scratch_.data();
          a.tile_blocks = static_cast<int64_t>(DivUp(rows, kTileRows));
          a.scratch = scratch_.data() + ActivationBytes(max_rows_, max_cols_) +
                      static_cast<size_t>(worker) * TileScratchBytes(max_rows_);
        }
        a.x = in.x + row0 * in.x_stride;
        a.x_stride = in.x_stride;
        a.out = o.out + row0 * o.out_stride + from * kPanel;
        a.out_stride = o.out_stride;
        a.bias = o.bias == nullptr ? nullptr : o.bias + from * kPanel;
        a.add = o.add;
        kernels_->panels[o.weight->format](a);
      }
      begin -= count;
      end -= count;
    }
  };
  for (Next& n : next_) n.at.store(0, std::memory_order_relaxed);
  pool_->Run([&](int worker) {
    // Its own part, then what others have left of theirs.
    for (int i = 0; i < parts; ++i) {
      const int index = (worker + i) % parts;
      const Range part = PartOf(static_cast<size_t>(rows), index, parts);
      const auto row_blocks =
          static_cast<int64_t>(DivUp(part.end - part.begin, static_cast<size_t>(row_block)));
      std::atomic<int64_t>& next = next_[static_cast<size_t>(index)].at;
      for (int64_t at = next.load(); at < panels * row_blocks;) {
        const int64_t count = chunk_at(at, panels * row_blocks);
        if (!next.compare_exchange_weak(at, at + count)) continue;
        run_item(part, at, count, worker);
        at = next.load();
      }
    }
  });
}

void CpuMatMul::Run(const float* x, int64_t x_stride, int32_t rows,
                    std::span<const MatMulOutput> outputs, OpCounters& counters) {
  if (rows == 0 || outputs.empty()) return;
  const int64_t k = outputs[0].weight->cols;
  for (const MatMulOutput& o : outputs) {
    CHECK_EQ(o.weight->cols, k);
    counters.projections += static_cast<uint64_t>(rows);
    counters.matmul_flops +=
        2 * static_cast<uint64_t>(rows) * static_cast<uint64_t>(o.weight->rows * k);
    counters.weight_bytes += o.weight->bytes();
  }
  for (const Input input : {Input::kFloats, Input::kInt8, Input::kPairs, Input::kAscendingTiles,
                            Input::kPackedTiles, Input::kByteBlocks}) {
    const bool wanted = std::any_of(outputs.begin(), outputs.end(), [&](const MatMulOutput& o) {
      return InputOf(*o.weight) == input;
    });
    if (wanted) Multiply(Prepare(input, x, x_stride, rows, k), outputs);
  }
}

}  // namespace kvasir
