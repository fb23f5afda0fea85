#include "text/pretokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace kvasir {
namespace {

std::string FromHex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

PreTokenizer Make(std::string_view name) {
  const auto kind = FindPreTokenizer(name);
  EXPECT_TRUE(kind.ok()) << name;
  return PreTokenizer(**kind);
}

// Made by tools/make_pretokenizer_golden.py; KVASIR_GOLDEN_WORDS names a larger file.
TEST(PreTokenizer, WordsAreThoseOfTheRegexPackageWithThePublishedPatterns) {
  const char* other = std::getenv("KVASIR_GOLDEN_WORDS");
  std::ifstream in(other != nullptr ? other : KVASIR_SOURCE_DIR "/tests/data/pretokenizer.txt");
  ASSERT_TRUE(in.is_open());
  std::string name, hex, lengths;
  int lines = 0, wrong = 0;
  while (in >> name >> hex >> lengths) {
    ++lines;
    const std::string text = FromHex(hex);
    std::string got;
    for (const std::string_view word : Make(name).Split(text))
      got += (got.empty() ? "" : ",") + std::to_string(word.size());
    if (got != lengths && ++wrong <= 5)
      ADD_FAILURE() << name << " " << ::testing::PrintToString(text) << "\n expected " << lengths
                    << "\n got " << got;
  }
  EXPECT_GE(lines, 1000);
  EXPECT_EQ(wrong, 0);
}

TEST(PreTokenizer, LongRunsAreCutInTimeAndTheWordsAreTheText) {
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"}) {
    const PreTokenizer pre = Make(name);
    for (const char* unit : {" ", "\n", "a", "A", "Aa", "中", "1", "!", " \n", "\xCC\x81", "' "}) {
      std::string text;
      while (text.size() < 2'000'000) text += unit;
      std::string joined;
      for (const std::string_view word : pre.Split(text)) joined += word;
      ASSERT_TRUE(joined == text) << name << " " << unit;
    }
  }
}

// As llama.cpp's src/llama-vocab.cpp has it, for files that do not say.
TEST(PreTokenizer, BosIsAddedWhereItIsElsewhere) {
  for (const char* name : {"llama-bpe", "llama3", "falcon3", "pixtral", "tekken", "midm-2.0"}) {
    const auto kind = FindPreTokenizer(name);
    ASSERT_TRUE(kind.ok()) << name;
    EXPECT_TRUE((*kind)->add_bos && (*kind)->ignore_merges) << name;
  }
  for (const char* name : {"gpt-2", "smollm", "qwen2", "kormo", "smaug-bpe"}) {
    EXPECT_FALSE((*FindPreTokenizer(name))->add_bos) << name;
  }
}

TEST(PreTokenizer, NamesOfOtherModelsAreCutAsLlamaCppCutsThem) {
  const std::pair<const char*, const char*> kAlike[] = {
      {"midm-2.0", "llama-bpe"}, {"smaug-bpe", "llama-bpe"}, {"a.x-4.0", "gpt-2"},
      {"mellum", "gpt-2"},       {"trillion", "gpt-2"},      {"minerva-7b", "smollm"},
      {"kormo", "qwen2"},
  };
  for (const auto& [name, other] : kAlike) {
    const auto kind = FindPreTokenizer(name);
    ASSERT_TRUE(kind.ok()) << name;
    EXPECT_EQ((*kind)->pattern, (*FindPreTokenizer(other))->pattern) << name;
    EXPECT_FALSE((*kind)->nfc) << name;
  }
  EXPECT_FALSE((*FindPreTokenizer("smaug-bpe"))->ignore_merges);
}

TEST(PreTokenizer, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const auto kind = FindPreTokenizer("glimmer");
  ASSERT_FALSE(kind.ok());
  EXPECT_NE(kind.error().message.find("\"glimmer\""), std::string::npos);
  EXPECT_NE(kind.error().message.find("llama-bpe"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
