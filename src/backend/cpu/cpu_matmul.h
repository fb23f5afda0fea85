#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/cpu.h"
#include "base/thread_pool.h"

namespace kvasir {

struct MatMulKernels;
struct PanelArgs;
struct InputPart;
/// The kernels of an instruction set that the machine has.
const MatMulKernels& MatMulKernelsFor(Isa isa);

/// Packing of weights and products with them: the CpuBackend's part for matrices. Stateless but for
/// its scratch (activations as the kernels want them).
class CpuMatMul {
 public:
  /// Both must outlive this. `fast`: the faster mode, which the kernels must have.
  CpuMatMul(const MatMulKernels* kernels, ThreadPool* pool, bool fast = false);

  Result<size_t> PackedBytes(DType dtype, int64_t rows, int64_t cols) const;
  Status ReserveWeights(size_t bytes);
  Result<Matrix> Pack(const TensorView& source);
  size_t ScratchBytes(int32_t max_rows, int64_t max_cols) const;
  Status ReserveScratch(int32_t max_rows, int64_t max_cols);

  /// out[0..cols) = row `r` of the packed matrix, widened: bit-equal to Dequantize of that row in
  /// the source times `scale`.
  void Row(const Matrix& m, int64_t r, float scale, float* out) const;

  /// As Backend::MatMul.
  void Run(const float* x, int64_t x_stride, int32_t rows, std::span<const MatMulOutput> outputs,
           OpCounters& counters);

  /// gate[i] = activation(gate[i]) * up[i].
  using Activate = void (*)(float* gate, const float* up, int64_t n);
  /// As Backend::FeedForward.
  void FeedForward(const FeedForwardArgs& args, Activate activate, OpCounters& counters);

 private:
  enum class Input { kFloats, kInt8, kPairs, kAscendingTiles, kPackedTiles, kByteBlocks };
  struct Prepared;
  struct Work;
  /// Where things lie in the scratch: the inputs of a product, those of its second half where they
  /// differ, and what is between the products of a feed-forward network, in any form; then what
  /// each thread has of its own.
  struct Layout {
    size_t second = 0, inner = 0, threads = 0;  ///< offsets
    size_t gated = 0, each = 0, end = 0;        ///< bytes: of half a gated part, a thread, all
    /// Of each thread: both halves of the gated part, then what a tile kernel needs.
    size_t OwnOf(int worker) const { return threads + static_cast<size_t>(worker) * each; }
  };
  struct alignas(64) Next {
    std::atomic<int64_t> at{0};
  };

  int32_t FormatFor(DType dtype) const;
  /// What the kernels of a packed format take.
  Input InputOf(const Matrix& m) const;
  static void Count(const Matrix& m, int32_t rows, OpCounters& counters);
  static bool InTiles(Input input) {
    return input == Input::kPackedTiles || input == Input::kAscendingTiles;
  }
  size_t ActivationBytes(int32_t max_rows, int64_t max_cols) const;
  Layout LayoutFor(int32_t max_rows, int64_t max_cols) const;
  void Convert(const Prepared& to, const float* x, int64_t x_stride, int64_t row0, int64_t rows,
               InputPart part) const;
  /// All rows of x in that form, `offset` bytes into the scratch.
  Prepared Prepare(Input input, const float* x, int64_t x_stride, int32_t rows, int64_t k,
                   size_t offset);
  PanelArgs ArgsOf(const Prepared& in, const Matrix& weight, int64_t from, int64_t to, int64_t row0,
                   int64_t rows, int worker) const;
  Work WorkOf(const Prepared& in, int64_t panels) const;
  template <typename F>
  void Share(const Work& work, const F& item);
  /// The products of the outputs that take this input.
  void Multiply(const Prepared& prepared, std::span<const MatMulOutput> outputs);

  const MatMulKernels* kernels_;
  ThreadPool* pool_;
  bool fast_;
  std::vector<Next> next_;  // work items of each thread's rows, from which others take the rest
  AlignedBuffer reserved_;  // for weights
  AlignedBuffer scratch_;
  Layout layout_;  // of scratch_
  int32_t max_rows_ = 0;
  int64_t max_cols_ = 0;
};

}  // namespace kvasir
