#pragma once

#include <string>

#include "api/loaded_model.h"

namespace kvasir {

/// A tiny model of the tests, loaded once.
inline LoadedModel* TinyModel(const char* name = "llama") {
  LoadOptions options;
  options.path = std::string(KVASIR_SOURCE_DIR "/tests/data/tiny/") + name + ".gguf";
  options.cpu.threads = 1;
  options.memory.context = 64;
  options.memory.block_tokens = 16;
  options.memory.max_step_tokens = 32;
  options.memory.max_logit_rows = 8;
  options.memory.kv_bytes = 1 << 20;
  auto model = LoadedModel::Load(options);
  CHECK(model.ok());
  return model->release();
}

}  // namespace kvasir
