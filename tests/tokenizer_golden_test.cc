// The tokenizer against llama.cpp's, on strings with its answers. The sample in tests/data is run
// always; tools/check_tokenizer.sh runs many more, of other models too.

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "api/loaded_model.h"
#include "default_model.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

std::string FromHex(const std::string& hex) {
  std::string out;
  if (hex == "-") return out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

std::vector<TokenId> FromCommas(const std::string& text) {
  std::vector<TokenId> out;
  if (text == "-") return out;
  std::istringstream in(text);
  for (std::string id; std::getline(in, id, ',');) out.push_back(std::stoi(id));
  return out;
}

/// Control characters that the vocabulary has no tokens for: they are dropped, there as here.
std::string WithoutUnknownBytes(const Tokenizer& tokenizer, std::string text) {
  std::erase_if(text, [&](char c) {
    return c >= 0 && c < 0x20 && tokenizer.Encode({&c, 1}, {.add_special = false}).empty();
  });
  return text;
}

/// Compares all lines of a golden file; a string that is valid UTF-8 must also come back.
void CompareAll(const Tokenizer& tokenizer, const std::string& path, int at_least) {
  std::ifstream in(path);
  ASSERT_TRUE(in.is_open()) << path;
  std::string special, hex, ids;
  int lines = 0, wrong = 0;
  while (in >> special >> hex >> ids) {
    ++lines;
    const std::string text = FromHex(hex);
    const std::vector<TokenId> got =
        tokenizer.Encode(text, {.add_special = false, .parse_special = special == "1"});
    if (got != FromCommas(ids) && ++wrong <= 5) {
      ADD_FAILURE() << "line " << lines << ": " << ::testing::PrintToString(text) << "\n  expected "
                    << ids << "\n  got " << ::testing::PrintToString(got);
    }
    if (IsValidUtf8(text)) {
      EXPECT_EQ(tokenizer.Decode(got, true), WithoutUnknownBytes(tokenizer, text))
          << "line " << lines;
    }
  }
  EXPECT_GE(lines, at_least);
  EXPECT_EQ(wrong, 0) << "of " << lines;
}

TEST(TokenizerGolden, TheDefaultModelsTokensAreLlamaCpps) {
  SKIP_WITHOUT_DEFAULT_MODEL();
  const auto model = OpenModel(DefaultModelPath());
  ASSERT_TRUE(model.ok()) << model.error().message;
  CompareAll(*model->tokenizer, KVASIR_SOURCE_DIR "/tests/data/tokenizer_smollm2.txt", 1000);
}

TEST(TokenizerGolden, ALargerFileThatTheEnvironmentNames) {
  const char* model_path = std::getenv("KVASIR_GOLDEN_MODEL");
  const char* golden = std::getenv("KVASIR_GOLDEN_TOKENS");
  if (model_path == nullptr || golden == nullptr) GTEST_SKIP() << "run by tools/check_tokenizer.sh";
  const auto model = OpenModel(model_path);
  ASSERT_TRUE(model.ok()) << model.error().message;
  CompareAll(*model->tokenizer, golden, 1);
}

}  // namespace
}  // namespace kvasir
