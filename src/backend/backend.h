#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "backend/matrix.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "kv/layout.h"
#include "tensor/dtype.h"

namespace kvasir {

/// Consecutive rows of a batch that are consecutive tokens of one sequence.
struct BatchSlice {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_pos = 0;  ///< position of the first row's token in its sequence
};

/// The rows of one step, flat. Plain views, valid during the step.
struct Batch {
  std::span<const int32_t> tokens;     ///< [rows]
  std::span<const int32_t> positions;  ///< [rows]
  std::span<const BatchSlice> slices;
  std::span<const TableView> tables;  ///< [group][slice]
  int32_t table_slices = 0;  ///< slices of each group in `tables`, where more than these; 0: these

  int32_t rows() const { return static_cast<int32_t>(tokens.size()); }
  const TableView& table(int32_t group, int32_t slice) const {
    const size_t stride = table_slices > 0 ? static_cast<size_t>(table_slices) : slices.size();
    return tables[static_cast<size_t>(group) * stride + slice];
  }
};

/// kMatMul: with the conversion of inputs, and the activation between the products of FeedForward.
enum class Op { kEmbed, kNorm, kMatMul, kRopeAppend, kAttention };
inline constexpr int kOps = 5;
/// "matmul" and so on.
const char* NameOf(Op op);

/// What the ops really did, added up by the backend. `explain` and the benchmarks read it.
struct OpCounters {
  uint64_t projections = 0;      ///< (row, matrix) products of Q, K, V, output, FFN and head
  uint64_t matmul_flops = 0;     ///< 2 * rows * n * k
  uint64_t weight_bytes = 0;     ///< packed bytes read, once for each MatMul
  uint64_t attention_ops = 0;    ///< (query head, key) pairs scored
  uint64_t attention_flops = 0;  ///< 4 * head_dim for each pair: q.k and p.v
  uint64_t kv_bytes_read =
      0;  ///< K and V bytes that the scored tokens occupy, once a kv head, query tile not counted
  uint64_t kv_bytes_written = 0;
  int64_t op_ns[kOps] = {};  ///< time by Op

  OpCounters& operator+=(const OpCounters& o);
  friend OpCounters operator-(OpCounters a, const OpCounters& b);
};

/// What a machine can do at most, as measured now. 0: not known.
struct MachineLimits {
  double bytes_per_s = 0;  ///< read from memory
  double flops_per_s = 0;  ///< of products with weights of a type
};

/// One product of MatMul: out[row][0..w->rows) = W x[row] (+ bias) (+ out, when add is set).
struct MatMulOutput {
  const Matrix* weight = nullptr;
  const float* bias = nullptr;  ///< [weight->rows] or nullptr
  float* out = nullptr;
  int64_t out_stride = 0;  ///< floats between rows
  bool add = false;        ///< adds onto what `out` holds (the residual stream)
};

/// Rotates q and k (after their optional RMSNorm), and appends k and v to the cache.
struct RopeAppendArgs {
  const Batch* batch = nullptr;
  const KvStorage* kv = nullptr;
  int32_t layer = 0;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  float* q = nullptr;  ///< [rows][q_stride], heads * head_dim used; rotated in place; nullptr: only
                       ///< k and v
  float* k = nullptr;  ///< [rows][kv_stride]; scratch afterwards
  const float* v = nullptr;       ///< [rows][kv_stride]
  uint8_t* not_finite = nullptr;  ///< [rows]; set to 1 where K or V is not finite, or would not be
                                  ///< as the cache keeps it
  int64_t q_stride = 0, kv_stride = 0;
  const float* q_norm = nullptr;  ///< [head_dim] or nullptr
  const float* k_norm = nullptr;
  float norm_eps = 0;
  const float* cos = nullptr;  ///< [rows][rope_dims / 2]
  const float* sin = nullptr;
  int32_t rope_dims = 0;
  bool neox = false;  ///< pairs (i, i + rope_dims/2), else (2i, 2i + 1)
  float q_scale = 1;  ///< multiplies q after rotating (the attention scale)
};

/// Attention of every row over its sequence's cached tokens, its own included.
struct AttentionArgs {
  const Batch* batch = nullptr;
  const KvStorage* kv = nullptr;
  int32_t layer = 0;
  int32_t heads = 0;
  const float* q = nullptr;  ///< [rows][q_stride], rotated and scaled
  float* out = nullptr;      ///< [rows][out_stride], heads * head_dim
  int64_t q_stride = 0, out_stride = 0;
  /// Rows whose result is wanted, by slice: rows before first_wanted[slice] (counted within the
  /// slice) are skipped. nullptr: all.
  const int32_t* first_wanted = nullptr;
  /// Calls with the same number and the same `batch` have the same tables and wanted rows: their
  /// work is divided among threads once for all layers of a KV group. A number is never used again;
  /// 0: no other call is like this one.
  uint64_t forward = 0;
};

enum class GateActivation { kSilu, kGeluTanh };

/// A gated feed-forward network: down of activation(gate x + its bias) * (up x + its bias), for
/// each row of x [rows][x_stride].
struct FeedForwardArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int32_t rows = 0;
  const Matrix *gate = nullptr, *up = nullptr;           ///< of the same shape
  const float *gate_bias = nullptr, *up_bias = nullptr;  ///< or nullptr
  GateActivation activation = GateActivation::kSilu;
  MatMulOutput down;
};

/// The operations of the forward pass on one device. All activations are f32, row-major. Every op
/// computes a row from that row (and the cache) alone, in an order that depends only on absolute
/// positions: the same bits in any batch, chunking, paging or number of threads.
class Backend {
 public:
  virtual ~Backend() = default;

  /// For people: "cpu avx2, 2 threads".
  virtual std::string description() const = 0;
  virtual int threads() const = 0;

  /// Bytes that Pack will allocate for such a matrix; an Error when the format or shape is not
  /// supported. Allocates nothing.
  virtual Result<size_t> PackedBytes(DType dtype, int64_t rows, int64_t cols) const = 0;
  /// Room for matrices that are packed next, their FrontBytes together: in one piece, so that large
  /// pages hold more than one of them. Advice: without it each takes memory of its own.
  virtual Status ReserveWeights(size_t bytes) = 0;
  /// Packs a matrix once, using all threads.
  virtual Result<Matrix> Pack(const TensorView& source) = 0;

  /// Scratch of the ops for steps of at most `max_rows` rows, widths up to `max_dim` inputs of a
  /// MatMul, and contexts up to `max_tokens`.
  virtual size_t ScratchBytes(int32_t max_rows, int64_t max_dim, int32_t heads, int32_t head_dim,
                              int64_t max_tokens) const = 0;
  virtual Status ReserveScratch(int32_t max_rows, int64_t max_dim, int32_t heads, int32_t head_dim,
                                int64_t max_tokens) = 0;

  /// out[i] = scale * row tokens[i] of the packed table. Tokens are already known to be in range.
  virtual void Embed(const Matrix& table, std::span<const int32_t> tokens, float scale,
                     float* out) = 0;
  /// out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight. x and out [rows][dim], may be the same.
  /// With `add`, that is added onto out instead.
  virtual void RmsNorm(const float* x, int32_t rows, int32_t dim, const float* weight, float eps,
                       float* out, bool add = false) = 0;
  /// Several products of the same x [rows][x_stride], k = cols of every weight.
  virtual void MatMul(const float* x, int64_t x_stride, int32_t rows,
                      std::span<const MatMulOutput> outputs) = 0;
  virtual void RopeAppend(const RopeAppendArgs& args) = 0;
  virtual void Attention(const AttentionArgs& args) = 0;
  /// The bits of MatMul with gate and up, the activation, and MatMul with down.
  virtual void FeedForward(const FeedForwardArgs& args) = 0;

  /// A step's beginning and its end: between them the calling thread, which is one of those that
  /// compute, stays on its core.
  virtual void BeginStep() = 0;
  virtual void EndStep() = 0;

  /// Runs fn(0) .. fn(threads() - 1) on the threads that compute here, between ops; returns when
  /// all are done, and throws what one of them threw.
  virtual void OnThreads(WorkerFn fn) = 0;

  virtual OpCounters counters() const = 0;
  /// Some hundredths of a second, between steps; `buffer_bytes` are read, and given back.
  virtual MachineLimits MeasureLimits(DType weights, size_t buffer_bytes) = 0;
};

/// A step of a backend, however it is left.
class StepScope {
 public:
  explicit StepScope(Backend* backend) : backend_(backend) { backend_->BeginStep(); }
  StepScope(const StepScope&) = delete;
  StepScope& operator=(const StepScope&) = delete;
  ~StepScope() { backend_->EndStep(); }

 private:
  Backend* backend_;
};

}  // namespace kvasir
