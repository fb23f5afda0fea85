#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "api/loaded_model.h"
#include "exec/direct_sequence.h"

namespace kvasir {

/// The path of a tiny model of tests/data.
inline std::string Tiny(const std::string& name) {
  return KVASIR_SOURCE_DIR "/tests/data/tiny/" + name + ".gguf";
}

struct TestModelOptions {
  KvDType kv_dtype = KvDType::kBF16;
  int32_t block_tokens = 32;
  int32_t step_tokens = 128;
  int32_t logit_rows = 64;
  int32_t context = 0;
  uint64_t kv_bytes = 0;
  int threads = 2;
  std::optional<Isa> isa;
  bool fast = false;
  bool pin = false;
};

inline std::unique_ptr<LoadedModel> LoadTestModel(const std::string& path,
                                                  const TestModelOptions& o) {
  LoadOptions load;
  load.path = path;
  // Emulators of other processors may have no threads (tools/test_aarch64.sh).
  const char* one = std::getenv("KVASIR_TEST_ONE_THREAD");
  load.cpu = {
      .threads = one != nullptr ? 1 : o.threads, .pin = o.pin, .isa = o.isa, .fast = o.fast};
  load.memory = {.context = o.context,
                 .kv_bytes = o.kv_bytes,
                 .kv_dtype = o.kv_dtype,
                 .block_tokens = o.block_tokens,
                 .max_step_tokens = o.step_tokens,
                 .max_logit_rows = o.logit_rows};
  Result<std::unique_ptr<LoadedModel>> model = LoadedModel::Load(load);
  EXPECT_TRUE(model.ok()) << model.error().message;
  return model.ok() ? std::move(*model) : nullptr;
}

/// The logits of the last `wanted` tokens, all computed in slices of `chunk`. A slice that holds
/// wanted rows asks for just those.
inline std::vector<float> LogitsInChunks(LoadedModel* model, const std::vector<int32_t>& tokens,
                                         int32_t chunk, int32_t wanted) {
  KvManager kv(model->plan().layout, model->plan().kv_blocks);
  DirectSequence sequence(&model->executor(), &kv, tokens);
  std::vector<float> out;
  const auto all = static_cast<int32_t>(tokens.size());
  while (sequence.computed() < all) {
    const int32_t begin = sequence.computed(), count = std::min(chunk, all - begin);
    const int32_t rows = std::clamp(begin + count - (all - wanted), 0, count);
    const auto logits = sequence.Compute(count, rows);
    EXPECT_TRUE(logits.ok()) << logits.error().message;
    if (!logits.ok()) return {};
    out.insert(out.end(), logits->begin(), logits->end());
  }
  return out;
}

/// True if all bits are equal.
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace kvasir
