#pragma once

#include <string>

#include "api/loaded_model.h"

namespace kvasir {

/// A tiny model of the tests, for its tokenizer.
inline const OpenedModel* OpenTinyModel(const std::string& name) {
  auto model = OpenModel(KVASIR_SOURCE_DIR "/tests/data/tiny/" + name + ".gguf");
  CHECK(model.ok());
  return new OpenedModel(std::move(*model));
}

/// A tiny model of the tests, whole.
inline LoadedModel* LoadTinyModel() {
  LoadOptions options;
  options.path = KVASIR_SOURCE_DIR "/tests/data/tiny/llama.gguf";
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
