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

/// Of each half of the gated part of a feed-forward network, what a thread computes before it
/// activates and converts it: as much as tile kernels take together, which pass all activations for
/// it, otherwise what stays in a second level cache (64 KiB and 256 take as long: SmolLM2, prompts
/// of 512, 2 threads, EPYC with AVX2, 2026-11-28, runs in turn).
constexpr size_t kGatedBytes = 128 << 10;
constexpr size_t GatedBytesOfTiles(int32_t max_rows) {
  const size_t rows = std::min<size_t>(RoundUp(max_rows, 2 * kTileRows), kMostTileRows);
  return std::max(rows * kTilePanels * kPanel * sizeof(float), kGatedBytes);
}

/// Where activations as int8 lie in their memory, with scales and sums.
struct Scratch {
  int8_t* q;
  float* d;
  int32_t* sum;

  Scratch(uint8_t* base, int64_t rows, int64_t k) {
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
  BlockOffsets(int64_t rows, int64_t k) {
    d = DivUp(static_cast<size_t>(rows), kTileRows) * static_cast<size_t>(ByteTiles(k)) *
        kTileBytes;
    sum = d + RoundUp(static_cast<size_t>(rows) * DivUp(static_cast<size_t>(k), kBlock) * 4, 64);
    end = sum + RoundUp(static_cast<size_t>(rows) * static_cast<size_t>(k / kGroup) * 4, 64);
  }
};
ByteBlocks BlocksIn(uint8_t* base, int64_t rows, int64_t k) {
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
int64_t PanelsOf(const Matrix& m) {
  return static_cast<int64_t>(DivUp(static_cast<size_t>(m.rows), kPanel));
}

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
  uint8_t* at = nullptr;     // of this form; floats that nobody converted lie elsewhere
  const float* x = nullptr;  // the floats
  int64_t x_stride = 0, k = 0;
  int32_t rows = 0;
};

/// What threads share: rows of all panels, in items of some panels for a block of rows.
struct CpuMatMul::Work {
  int64_t rows = 0, row_block = 0;  // multiples of kTileRows, but for the last rows
  int64_t panels = 0;
  int64_t unit = 1, most = 0;  // panels of an item: a multiple, and at most
  int parts = 1;               // of the rows, one for each thread, or 1
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

CpuMatMul::Layout CpuMatMul::LayoutFor(int32_t max_rows, int64_t max_cols) const {
  const bool tiles = kernels_->to_tiles != nullptr;
  const size_t floats = RoundUp(static_cast<size_t>(max_rows) * max_cols * sizeof(float), 64);
  Layout layout;
  layout.second = ActivationBytes(max_rows, max_cols);
  layout.inner = 2 * layout.second;
  layout.threads = layout.inner + std::max(layout.second, floats);
  layout.gated = tiles ? GatedBytesOfTiles(max_rows) : kGatedBytes;
  layout.each = 2 * layout.gated + (tiles ? TileScratchBytes(max_rows) : 0);
  layout.end = layout.OwnOf(pool_->size());
  return layout;
}

size_t CpuMatMul::ScratchBytes(int32_t max_rows, int64_t max_cols) const {
  return LayoutFor(max_rows, max_cols).end;
}

Status CpuMatMul::ReserveScratch(int32_t max_rows, int64_t max_cols) {
  if (max_rows <= max_rows_ && max_cols <= max_cols_) return {};
  max_rows_ = std::max(max_rows, max_rows_);
  max_cols_ = std::max(max_cols, max_cols_);
  layout_ = LayoutFor(max_rows_, max_cols_);
  KV_ASSIGN(scratch_, AlignedBuffer::Allocate(layout_.end, MemoryOwner::kScratch,
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

/// A part of `rows` rows of x, of which the first is row `row0` of `to` (in tiles the first of a
/// block), in its form. x begins with the part's first input. Parts are whole groups of what shares
/// a scale or a tile, and pairs, but for a row's last.
void CpuMatMul::Convert(const Prepared& to, const float* x, int64_t x_stride, int64_t row0,
                        int64_t rows, InputPart part) const {
  const int64_t count = part.end - part.begin;
  if (InTiles(to.input)) {
    const TileOrder order =
        to.input == Input::kPackedTiles ? TileOrder::kPacked : TileOrder::kAscending;
    for (int64_t r = 0; r < rows; r += kTileRows) {
      kernels_->to_tiles(x + r * x_stride, x_stride, std::min(kTileRows, rows - r), part, order,
                         (row0 + r) / kTileRows, static_cast<int64_t>(DivUp(to.rows, kTileRows)),
                         to.at);
    }
    return;
  }
  const int64_t groups = part.k / kGroup;
  const Scratch s(to.at, to.rows, part.k);
  for (int64_t i = row0; i < row0 + rows; ++i, x += x_stride) {
    const int64_t group = i * groups + part.begin / kGroup;
    switch (to.input) {
      case Input::kInt8:
        kernels_->quantize(x, count, s.q + i * part.k + part.begin, s.d + group, s.sum + group * 2);
        break;
      case Input::kPairs:
        kernels_->to_pairs(x, count,
                           to.at + static_cast<size_t>(i) * PairBytes(part.k) + part.begin * 2);
        break;
      case Input::kByteBlocks:
        kernels_->quantize_blocks(x, part, i, BlocksIn(to.at, to.rows, part.k));
        break;
      default:
        std::memcpy(to.at + (i * part.k + part.begin) * sizeof(float), x, count * sizeof(float));
    }
  }
}

CpuMatMul::Prepared CpuMatMul::Prepare(Input input, const float* x, int64_t x_stride, int32_t rows,
                                       int64_t k, size_t offset) {
  const Prepared prepared{input, scratch_.data() + offset, x, x_stride, k, rows};
  if (input == Input::kFloats) return prepared;
  CHECK_LE(rows, max_rows_);
  CHECK_LE(k, max_cols_);
  const int64_t together = InTiles(input) ? kTileRows : 1;
  const auto convert = [&](size_t i) {
    const int64_t row = static_cast<int64_t>(i) * together;
    Convert(prepared, x + row * x_stride, x_stride, row, std::min(together, rows - row), {k, 0, k});
  };
  const size_t items = DivUp(static_cast<size_t>(rows), static_cast<size_t>(together));
  if (rows < 8) {  // waking the others takes longer
    for (size_t i = 0; i < items; ++i) convert(i);
  } else {
    pool_->Run([&](int worker) {
      const Range range = Split(items, worker, pool_->size());
      for (size_t i = range.begin; i < range.end; ++i) convert(i);
    });
  }
  return prepared;
}

/// The product of rows [row0, row0 + rows) with panels [from, to) of a matrix, but for where its
/// results go.
PanelArgs CpuMatMul::ArgsOf(const Prepared& in, const Matrix& weight, int64_t from, int64_t to,
                            int64_t row0, int64_t rows, int worker) const {
  const int64_t k = in.k, groups = k / kGroup;
  PanelArgs a;
  a.panel_bytes = PanelBytes(FormatOf(weight), k);
  a.weights = weight.data.data() + static_cast<size_t>(from) * a.panel_bytes;
  a.k = k;
  a.panels = static_cast<int32_t>(to - from);
  a.columns = weight.rows - from * kPanel;
  a.rows = rows;
  a.first_block = row0 / kTileRows;
  if (in.input == Input::kFloats) {
    a.x = in.x + row0 * in.x_stride;
    a.x_stride = in.x_stride;
  } else if (in.input == Input::kPairs) {
    a.pairs = in.at + static_cast<size_t>(row0) * PairBytes(k);
  } else if (in.input == Input::kInt8) {
    const Scratch s(in.at, in.rows, k);
    a.q = s.q + row0 * k;
    a.d = s.d + row0 * groups;
    a.sum = s.sum + row0 * groups * 2;
  } else if (in.input == Input::kByteBlocks) {
    const ByteBlocks blocks = BlocksIn(in.at, in.rows, k);
    a.byte_tiles = blocks.q;
    a.d = blocks.d + row0 * static_cast<int64_t>(DivUp(static_cast<size_t>(k), kBlock));
    a.sum = blocks.sum + row0 * groups;
  } else {
    a.tiles = in.at;
    a.tile_blocks = static_cast<int64_t>(DivUp(static_cast<size_t>(in.rows), kTileRows));
  }
  if (kernels_->to_tiles != nullptr)
    a.scratch = scratch_.data() + layout_.OwnOf(worker) + 2 * layout_.gated;
  return a;
}

CpuMatMul::Work CpuMatMul::WorkOf(const Prepared& in, int64_t panels) const {
  const bool tiles = kernels_->to_tiles != nullptr && in.input != Input::kFloats;
  const int64_t element_bytes = in.input == Input::kFloats ? 4 : in.input == Input::kPairs ? 2 : 1;
  Work w;
  w.rows = in.rows;
  w.panels = panels;
  // Tile kernels unpack weights once for a block of rows.
  const auto tile_blocks = static_cast<int64_t>(DivUp(w.rows, kMostTileRows));
  w.row_block =
      tiles ? static_cast<int64_t>(RoundUp(DivUp(w.rows, tile_blocks), 2 * kTileRows))
            : std::clamp<int64_t>(kRowBlockBytes / (element_bytes * in.k) / 16 * 16, 16, 1 << 20);
  // Tile kernels unpack weights for all rows at once.
  w.parts = !tiles && w.rows >= kRowsOfAPart * pool_->size() ? pool_->size() : 1;
  // Tile kernels take two panels together, and of many rows so many at most that their sums fit.
  w.unit = tiles ? 2 : 1;
  w.most = tiles && w.rows > kTileRows ? int64_t{kTilePanels} : panels + w.unit;
  return w;
}

/// item(first row, rows, first panel, panels, worker) for all of the work, panels fastest, so that
/// a block of activations stays in the cache while the weights stream past it.
template <typename F>
void CpuMatMul::Share(const Work& w, const F& item) {
  const auto chunk_at = [&](int64_t begin, int64_t end) {
    const int64_t share = (end - begin) * w.parts / (kShareTaken * pool_->size());
    return std::min(std::clamp((share + w.unit - 1) / w.unit * w.unit, w.unit, w.most),
                    w.panels - begin % w.panels);
  };
  for (Next& n : next_) n.at.store(0, std::memory_order_relaxed);
  pool_->Run([&](int worker) {
    // Its own part, then what others have left of theirs.
    for (int i = 0; i < w.parts; ++i) {
      const int index = (worker + i) % w.parts;
      const Range part = PartOf(static_cast<size_t>(w.rows), index, w.parts);
      const auto row_blocks =
          static_cast<int64_t>(DivUp(part.end - part.begin, static_cast<size_t>(w.row_block)));
      std::atomic<int64_t>& next = next_[static_cast<size_t>(index)].at;
      for (int64_t at = next.load(); at < w.panels * row_blocks;) {
        const int64_t count = chunk_at(at, w.panels * row_blocks);
        if (!next.compare_exchange_weak(at, at + count)) continue;
        const int64_t row0 = static_cast<int64_t>(part.begin) + at / w.panels * w.row_block;
        item(row0, std::min(w.row_block, static_cast<int64_t>(part.end) - row0), at % w.panels,
             count, worker);
        at = next.load();
      }
    }
  });
}

void CpuMatMul::Multiply(const Prepared& in, std::span<const MatMulOutput> outputs) {
  int64_t panels = 0;  // of all outputs
  for (const MatMulOutput& o : outputs) {
    if (InputOf(*o.weight) == in.input) panels += PanelsOf(*o.weight);
  }
  Share(WorkOf(in, panels),
        [&](int64_t row0, int64_t rows, int64_t first, int64_t count, int worker) {
          int64_t begin = first, end = first + count;
          for (const MatMulOutput& o : outputs) {
            if (InputOf(*o.weight) != in.input) continue;
            const int64_t of_this = PanelsOf(*o.weight);
            const int64_t from = std::max<int64_t>(begin, 0), to = std::min(end, of_this);
            if (from < to) {
              PanelArgs a = ArgsOf(in, *o.weight, from, to, row0, rows, worker);
              a.out = o.out + row0 * o.out_stride + from * kPanel;
              a.out_stride = o.out_stride;
              a.bias = o.bias == nullptr ? nullptr : o.bias + from * kPanel;
              a.add = o.add;
              kernels_->panels[o.weight->format](a);
            }
            begin -= of_this;
            end -= of_this;
          }
        });
}

/// What is between the products becomes the second one's input, part by part as it is computed: it
/// is never in memory as floats. Panels are taken by as many as share a scale of that input, or a
/// tile.
void CpuMatMul::FeedForward(const FeedForwardArgs& args, Activate activate, OpCounters& counters) {
  if (args.rows == 0) return;
  const Matrix &gate = *args.gate, &up = *args.up, &down = *args.down.weight;
  CHECK_EQ(gate.cols, up.cols);
  CHECK_EQ(gate.rows, up.rows);
  CHECK_EQ(gate.rows, down.cols);
  CHECK_LE(args.rows, max_rows_);
  CHECK_LE(down.cols, max_cols_);
  for (const Matrix* m : {&gate, &up, &down}) Count(*m, args.rows, counters);
  const Prepared in = Prepare(InputOf(gate), args.x, args.x_stride, args.rows, gate.cols, 0);
  const Prepared up_in = InputOf(up) == in.input ? in
                                                 : Prepare(InputOf(up), args.x, args.x_stride,
                                                           args.rows, up.cols, layout_.second);
  Work w = WorkOf(in, PanelsOf(gate));
  const Work of_up = WorkOf(up_in, PanelsOf(up));
  const auto half = static_cast<int64_t>(layout_.gated / sizeof(float));
  w.parts = std::min(w.parts, of_up.parts);
  w.row_block = std::min(w.row_block, of_up.row_block);
  // A block of the faster mode is as wide as some threads' shares: then all is converted at the
  // end.
  constexpr int64_t kFairItems = 8;  // of each thread
  const int64_t wide_items = w.panels * kPanel / kBlock * (w.rows / w.row_block + 1);
  const bool apart = InputOf(down) == Input::kByteBlocks && wide_items < kFairItems * pool_->size();
  uint8_t* const inner = scratch_.data() + layout_.inner;
  const Prepared to{apart ? Input::kFloats : InputOf(down),
                    inner,
                    reinterpret_cast<const float*>(inner),
                    down.cols,
                    down.cols,
                    args.rows};
  w.unit = to.input == Input::kByteBlocks ? kBlock / kPanel : kGroup / kPanel;
  w.row_block = std::min(w.row_block, half / (w.unit * kPanel) / kTileRows * kTileRows);
  const int64_t most_rows = std::min(w.row_block, w.rows);
  w.most = std::max(w.unit,
                    std::min({w.most, of_up.most, half / (most_rows * kPanel)}) / w.unit * w.unit);
  Share(w, [&](int64_t row0, int64_t rows, int64_t first, int64_t count, int worker) {
    auto* const gates = reinterpret_cast<float*>(scratch_.data() + layout_.OwnOf(worker));
    float* const ups = gates + half;
    const int64_t stride = count * kPanel, begin = first * kPanel;
    const int64_t columns = std::min(stride, gate.rows - begin);
    const auto multiply = [&](const Prepared& x, const Matrix& m, const float* bias, float* out) {
      PanelArgs a = ArgsOf(x, m, first, first + count, row0, rows, worker);
      a.out = out;
      a.out_stride = stride;
      a.bias = bias == nullptr ? nullptr : bias + begin;
      kernels_->panels[m.format](a);
    };
    multiply(in, gate, args.gate_bias, gates);
    multiply(up_in, up, args.up_bias, ups);
    for (int64_t r = 0; r < rows; ++r) activate(gates + r * stride, ups + r * stride, columns);
    Convert(to, gates, stride, row0, rows, {down.cols, begin, begin + columns});
  });
  Multiply(apart ? Prepare(InputOf(down), to.x, to.x_stride, to.rows, to.k, 0) : to,
           {&args.down, 1});
}

void CpuMatMul::Count(const Matrix& m, int32_t rows, OpCounters& counters) {
  counters.projections += static_cast<uint64_t>(rows);
  counters.matmul_flops += 2 * static_cast<uint64_t>(rows) * static_cast<uint64_t>(m.rows * m.cols);
  counters.weight_bytes += m.bytes();
}

void CpuMatMul::Run(const float* x, int64_t x_stride, int32_t rows,
                    std::span<const MatMulOutput> outputs, OpCounters& counters) {
  if (rows == 0 || outputs.empty()) return;
  const int64_t k = outputs[0].weight->cols;
  for (const MatMulOutput& o : outputs) {
    CHECK_EQ(o.weight->cols, k);
    Count(*o.weight, rows, counters);
  }
  for (const Input input : {Input::kFloats, Input::kInt8, Input::kPairs, Input::kAscendingTiles,
                            Input::kPackedTiles, Input::kByteBlocks}) {
    const bool wanted = std::any_of(outputs.begin(), outputs.end(), [&](const MatMulOutput& o) {
      return InputOf(*o.weight) == input;
    });
    if (wanted) Multiply(Prepare(input, x, x_stride, rows, k, 0), outputs);
  }
}

}  // namespace kvasir
