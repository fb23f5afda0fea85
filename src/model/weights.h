#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend/backend.h"
#include "base/result.h"
#include "model/config.h"
#include "model/gguf.h"

namespace kvasir {

/// A weight matrix with its optional bias.
struct Linear {
  Matrix weight;
  std::vector<float> bias;  ///< [weight.rows] or empty

  const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
};

/// Weights of one layer. Vectors that a model does not have are empty.
struct LayerWeights {
  std::vector<float> attention_norm, ffn_norm;            ///< [dim], before attention and FFN
  std::vector<float> post_attention_norm, post_ffn_norm;  ///< [dim], before the residual
  std::vector<float> q_norm, k_norm;                      ///< [head_dim]
  Linear q, k, v, output;
  Linear gate, up, down;
};

/// All weights of a model, packed by the backend; small vectors as f32.
struct ModelWeights {
  Matrix head;           ///< [vocab][dim]; with a tied head also the embedding table
  TensorView embedding;  ///< untied: the table in the mapped file, read row by row; else rows = 0
  std::vector<float> output_norm;
  std::vector<LayerWeights> layers;

  size_t bytes() const;  ///< resident: matrices and vectors
};

/// Called with the bytes packed so far and in all.
using LoadProgress = std::function<void(uint64_t done, uint64_t total)>;

/// Packs all tensors of a checked file (ReadModelConfig succeeded), dropping the file's pages as it
/// goes, so that a weight is resident once.
Result<ModelWeights> LoadWeights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                                 const LoadProgress& progress);

/// Bytes that LoadWeights will make resident, and those it leaves in the mapped file. An Error when
/// the backend does not support a tensor's format.
struct WeightSizes {
  uint64_t packed_bytes = 0;
  uint64_t mapped_bytes = 0;
};
Result<WeightSizes> PlanWeights(const GgufFile& file, const ModelConfig& config,
                                const Backend& backend);

}  // namespace kvasir
