#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/gguf.h"
#include "text/tokenizer.h"

namespace kvasir {

/// How a head's channels are paired for rotation. kNorm: (0,1), (2,3) ...; kNeox: (i, i + d/2).
enum class RopeStyle { kNorm, kNeox };
enum class RopeScaling { kNone, kLinear, kYarn };
enum class Activation { kSilu, kGeluTanh };

/// Rotary embedding of one kind of layer.
struct RopeConfig {
  RopeStyle style = RopeStyle::kNorm;
  int32_t dims = 0;  ///< rotated channels of a head, the first ones
  double base = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;           ///< linear and YaRN: context extension factor
  int64_t original_context = 0;  ///< YaRN
  double yarn_beta_fast = 32, yarn_beta_slow = 1;
  double attn_factor = 1.0;  ///< multiplies cos and sin, whatever the scaling
  /// llama3 scaling comes as the tensor rope_freqs.weight: one divisor for each pair; empty if
  /// none.
  std::vector<float> freq_divisors;
};

/// Everything about a model but its weights. One description for every architecture: what differs
/// between families is a field here, never a branch on a name in the forward pass.
struct ModelConfig {
  std::string architecture;  ///< general.architecture
  std::string name;          ///< general.name, may be empty
  int32_t layers = 0;
  int32_t dim = 0;  ///< width of the residual stream
  int32_t ffn_dim = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  ///< of queries, keys and values alike
  int32_t vocab = 0;
  int64_t context = 0;  ///< the longest sequence the model was made for
  float norm_eps = 1e-5f;

  RopeConfig rope;              ///< of layers without a window
  RopeConfig rope_local;        ///< of layers with a window (gemma3 rotates them otherwise)
  std::vector<int32_t> window;  ///< per layer: how many last tokens it attends to; 0: all

  float attention_scale = 0;  ///< multiplies q.k
  float embedding_scale = 1;  ///< multiplies the token embedding (gemma3: sqrt(dim))
  Activation activation = Activation::kSilu;
  bool qk_norm = false;  ///< RMSNorm of every head of q and k before rotating (qwen3, gemma3)
  bool post_norms =
      false;  ///< RMSNorm after attention and feed-forward, before the residual (gemma3)
  bool tied_head = false;  ///< the output head is the embedding table (no output.weight)

  /// Adds up to the number of weights' elements.
  int64_t parameters = 0;
};

/// Reads and checks the hyperparameters of `file`: ranges, divisibility (heads by kv_heads, dims by
/// blocks), and that every tensor the forward pass needs is there with the right shape and a weight
/// format that Kvasir has. Unknown architectures and unsupported features (experts, unknown rope
/// scaling, ...) are one line that names what is not supported.
Result<ModelConfig> ReadModelConfig(const GgufFile& file);

/// The chat template of `file`, if it has one.
Result<std::optional<std::string>> ReadChatTemplate(const GgufFile& file);

/// The tokenizer's metadata of `file`, types checked.
Result<VocabData> ReadVocab(const GgufFile& file);

}  // namespace kvasir
