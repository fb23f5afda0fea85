#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// What a step costs on a machine: step_s + tokens / prefill_tokens_per_s + key_s for each cached
/// key that a decoding token reads + prompt_key_s for each pair of a prompt's token and a key. The
/// defaults belong together: 60,000 tokens/s of the 1B shape are about 150 TFLOP/s, and machines
/// that compute so much read about 3 TB/s: 0.7 GB of weights in 0.25 ms, and the 32 KiB of a
/// token's K and V in 11 ns.
struct MachineProfile {
  double step_s = 0.00025;               ///< reading all weights once
  double prefill_tokens_per_s = 60'000;  ///< beyond that
  double key_s = 11e-9;
  double prompt_key_s = 0;
};

/// What a model keeps of a token.
struct ModelShape {
  std::vector<int32_t> windows = std::vector<int32_t>(16, 0);  ///< by layer; the 1B shape
  int32_t kv_heads = 8, head_dim = 64;
};

/// A file that `kvasir bench batch --profile` writes: a machine, and the model it was measured
/// with.
nlohmann::ordered_json ProfileJson(const MachineProfile& machine, const ModelShape& shape,
                                   const std::string& about);
/// Errors name the file and the field.
Status ReadProfile(const std::string& path, MachineProfile* machine, ModelShape* shape);

}  // namespace kvasir
