#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "text/tokenizer.h"

namespace kvasir {

/// For tests: a tokenizer whose tokens are bytes. An engine needs one, the fake model does not.
inline std::unique_ptr<Tokenizer> ByteTokenizer() {
  VocabData data;
  data.model = "llama";
  for (int i = 0; i < 256; ++i) data.tokens.push_back(fmt::format("<0x{:02X}>", i));
  data.types.assign(256, static_cast<int32_t>(TokenType::kByte));
  data.scores.assign(256, 0.0f);
  data.unk = 0;
  auto tokenizer = Tokenizer::Create(std::move(data));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(*tokenizer);
}

}  // namespace kvasir
