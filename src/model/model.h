#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/aligned_buffer.h"
#include "base/result.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/weights.h"

namespace kvasir {

/// Rows of a slice whose logits are wanted: [begin, end), counted within the slice.
struct WantedRows {
  int32_t begin = 0, end = 0;
  int32_t count() const { return end - begin; }
};

/// Layers of the last slice that a pass computes: from `first` on, `count` of them; 0: all that are
/// left. The other slices pass through all layers.
struct LayerRange {
  int32_t first = 0, count = 0;
};

/// How large a step may be.
struct StepLimits {
  int32_t max_rows = 512;        ///< tokens of one step
  int32_t max_logit_rows = 1;    ///< rows of one step whose logits are wanted
  int64_t max_tokens = 0;        ///< longest sequence
  int32_t max_layered_rows = 0;  ///< rows of a slice that passes some layers only; 0: none does
};

/// A decoder: one forward pass for all architectures, written once over the backend's ops. What
/// differs between families is data in ModelConfig. Owns the activations of a step.
class Model {
 public:
  /// `backend` must outlive the model.
  static Result<Model> Create(ModelConfig config, ModelWeights weights, StepLimits limits,
                              Backend* backend);
  /// Bytes of activations that Create allocates, the backend's scratch included.
  static size_t ScratchBytes(const ModelConfig& config, const StepLimits& limits,
                             const Backend& backend);

  const ModelConfig& config() const { return config_; }
  Backend& backend() { return *backend_; }
  const Backend& backend() const { return *backend_; }

  /// Computes the rows of `batch`: appends their K and V to the cache, and returns the logits of
  /// the wanted rows, [sum of wanted[i].count()][vocab], valid until the next call. At the last
  /// layer only K and V are computed for rows whose logits nobody wants: Cache = Dec_kv(x).
  /// With `last`, the last slice passes through some of the layers only, and its rows are kept for
  /// the pass that goes on with them: it must be the next that has such a range.
  std::span<float> Forward(const Batch& batch, std::span<const WantedRows> wanted,
                           const KvStorage& kv, LayerRange last = {});
  /// Of each row of the last Forward: not 0 where K or V of a layer came out as no finite number.
  /// Nobody else may go on from such a row.
  std::span<const uint8_t> not_finite() const { return not_finite_; }

 private:
  Model() = default;
  void Embed(const Batch& batch);
  void AttentionBlock(int32_t layer, const Batch& batch, const KvStorage& kv);
  void LastAttentionBlock(const Batch& batch, std::span<const WantedRows> wanted,
                          const KvStorage& kv);
  void RopeAppend(int32_t layer, const Batch& batch, const KvStorage& kv, bool with_queries);
  void Attend(int32_t layer, const Batch& batch, const KvStorage& kv, const int32_t* first_wanted);
  void OutputProjection(const LayerWeights& w, const float* attended, int32_t rows, float* x);
  void FeedForward(const LayerWeights& w, int32_t rows, float* x);

  ModelConfig config_;
  ModelWeights weights_;
  StepLimits limits_;
  Backend* backend_ = nullptr;
  RopeTable rope_, rope_local_;
  AlignedBuffer memory_;
  // Views into memory_, [rows][width]; BufferSizes in model.cc has the widths.
  float *x_ = nullptr, *held_ = nullptr, *normed_ = nullptr, *q_ = nullptr, *k_ = nullptr,
        *v_ = nullptr, *attended_ = nullptr, *projected_ = nullptr, *cos_ = nullptr,
        *sin_ = nullptr, *cos_local_ = nullptr, *sin_local_ = nullptr, *logits_ = nullptr;
  std::vector<int32_t> first_wanted_;
  std::vector<uint8_t> not_finite_;
  uint64_t forward_ = 0;  // as AttentionArgs::forward
};

}  // namespace kvasir
