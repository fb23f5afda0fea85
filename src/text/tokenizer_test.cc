#include "text/tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "text/utf8.h"

namespace kvasir {
namespace {

using Ids = std::vector<TokenId>;

std::unique_ptr<Tokenizer> Make(VocabData data) {
  auto made = Tokenizer::Create(std::move(data));
  EXPECT_TRUE(made.ok()) << made.error().message;
  return made.ok() ? std::move(*made) : nullptr;
}

std::string Refusal(VocabData data) {
  const auto made = Tokenizer::Create(std::move(data));
  return made.ok() ? "" : made.error().message;
}

/// Of the letters a to f, and some names.
VocabData ByteLevel(const std::vector<std::string>& names) {
  VocabData data;
  data.model = "gpt2";
  data.pre = "gpt-2";
  for (const char* text : {"a", "b", "c", "d", "e", "f", "ab", "<", ">", "|"})
    data.tokens.emplace_back(text);
  data.tokens.insert(data.tokens.end(), names.begin(), names.end());
  data.types.assign(data.tokens.size(), static_cast<int32_t>(TokenType::kNormal));
  data.merges = {"a b"};
  return data;
}

TEST(Tokenizer, AnEndTokenThatAFileSaysIsTextEndsAndIsNotWrittenByUsers) {
  const auto t = Make(ByteLevel({"<|im_end|>", "<|other|>"}));
  const TokenId end = *t->Find("<|im_end|>"), other = *t->Find("<|other|>");
  EXPECT_EQ(t->type(end), TokenType::kControl);
  EXPECT_TRUE(t->IsEndOfGeneration(end));
  EXPECT_EQ(t->Encode("<|im_end|>", {.parse_special = true}), Ids{end});
  EXPECT_EQ(t->TokenBytes(end, false), "");
  EXPECT_EQ(t->type(other), TokenType::kNormal);
  EXPECT_FALSE(t->IsEndOfGeneration(other));
}

TEST(Tokenizer, AControlTokenWithTheNameOfAnEndIsOneAlsoWhereEosIsAnother) {
  const std::vector<std::string> names = {"</s>", "<eos>", "[EOS]", "<end_of_utterance>",
                                          "<｜end▁of▁sentence｜>"};
  VocabData data = ByteLevel(names);
  data.eos = 0;
  const auto text = Make(data);
  for (const std::string& name : names)
    data.types[*text->Find(name)] = static_cast<int32_t>(TokenType::kControl);
  const auto control = Make(data);
  for (const std::string& name : names) {
    const TokenId id = *text->Find(name);
    EXPECT_TRUE(control->IsEndOfGeneration(id)) << name;
    EXPECT_FALSE(text->IsEndOfGeneration(id)) << name;
    EXPECT_EQ(text->type(id), TokenType::kNormal) << name;
  }
}

TEST(Tokenizer, WithoutTypesWhatIsNamedOrLooksLikeAControlTokenIsOne) {
  VocabData data = ByteLevel({"<s>", "</s>", "<|user|>", "<x>", "<|im_end|>"});
  data.types.clear();
  data.bos = 10;
  data.eos = 11;
  const auto t = Make(data);
  for (const char* name : {"<s>", "</s>", "<|user|>", "<|im_end|>"})
    EXPECT_EQ(t->type(*t->Find(name)), TokenType::kControl) << name;
  for (const char* name : {"<x>", "|", "ab"})
    EXPECT_EQ(t->type(*t->Find(name)), TokenType::kNormal) << name;
  EXPECT_TRUE(t->IsEndOfGeneration(11));
  EXPECT_EQ(t->Encode("<|user|>ab", {.add_special = false, .parse_special = true}), (Ids{12, 6}));
}

TEST(Tokenizer, AByteLevelFileWithoutMergesIsRefused) {
  VocabData data = ByteLevel({});
  EXPECT_EQ(Refusal(data), "");
  data.merges.clear();
  EXPECT_NE(Refusal(data).find("tokenizer.ggml.merges"), std::string::npos);
}

TEST(Tokenizer, APromptHasNoEosWhateverTheFileSays) {
  VocabData data = ByteLevel({"<s>", "</s>"});
  data.bos = 10;
  data.eos = 11;
  data.add_bos = data.add_eos = true;
  const auto t = Make(data);
  EXPECT_EQ(t->Encode("ab", {}), (Ids{10, 6}));
  EXPECT_EQ(t->Encode("ab", {.add_eos = true}), (Ids{10, 6, 11}));
  EXPECT_EQ(t->Encode("ab", {.add_special = false}), Ids{6});
  data.add_eos = false;
  EXPECT_EQ(Make(data)->Encode("ab", {.add_eos = true}), (Ids{10, 6}));
}

TEST(Tokenizer, QwenComposesItsTextAndOthersDoNot) {
  VocabData data = ByteLevel({"\u00C3", "\u00A9", "\u00CC", "\u0123"});  // bytes C3 A9 CC 81
  for (const char* pre : {"qwen2", "deepseek-r1-qwen"}) {
    data.pre = pre;
    const auto t = Make(data);
    EXPECT_EQ(t->Encode("be\u0301", {}), (Ids{1, 10, 11})) << pre;
    EXPECT_EQ(t->Encode("b\u00E9", {}), (Ids{1, 10, 11})) << pre;
  }
  data.pre = "gpt-2";
  EXPECT_EQ(Make(data)->Encode("be\u0301", {}), (Ids{1, 4, 12, 13}));
}

/// The definition: the best pair of neighbours first, the leftmost of equals, again and again.
template <typename Score>
std::vector<std::string> MergeByDefinition(std::vector<std::string> parts, Score score) {
  for (;;) {
    size_t best = parts.size();
    double most = -1e9;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const double s = score(parts[i], parts[i + 1]);
      if (s > most) {
        most = s;
        best = i;
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

std::vector<std::string> Characters(std::string_view text) {
  std::vector<std::string> out;
  for (size_t i = 0; i < text.size(); i += out.back().size())
    out.emplace_back(text.substr(i, static_cast<size_t>(DecodeUtf8(text.substr(i)).bytes)));
  return out;
}

std::string RandomText(std::mt19937* random, const std::vector<std::string>& of, size_t most) {
  std::string out;
  for (size_t n = (*random)() % most + 1; n > 0; --n) out += of[(*random)() % of.size()];
  return out;
}

// With tokens across spaces, or none, so that texts are cut at other places or not at all.
TEST(Tokenizer, SpmMergesAsTheDefinitionWhereverItCuts) {
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    VocabData data;
    data.model = "llama";
    data.add_space_prefix = round % 2 == 0;
    data.tokens = {"<unk>"};
    std::map<std::string, float> score;
    const std::vector<std::string> letters = {"a", "b", "\u2581", "\u00E9"};
    for (const std::string& c : letters) score[c] = -100;
    for (int i = 0; i < 40; ++i) {
      const std::string token = RandomText(&random, letters, 5);
      const bool crosses = token.find("\u2581", 1) != std::string::npos;
      if (crosses && round % 4 < 2) continue;
      score[token] = -static_cast<float>(random() % 16);  // some are equal
    }
    std::map<std::string, TokenId> id;
    for (const auto& [token, value] : score) {
      id[token] = static_cast<TokenId>(data.tokens.size());
      data.tokens.push_back(token);
    }
    data.scores = {0};
    for (const auto& [token, value] : score) data.scores.push_back(value);
    data.types.assign(data.tokens.size(), static_cast<int32_t>(TokenType::kNormal));
    data.types[0] = static_cast<int32_t>(TokenType::kUnknown);
    const auto t = Make(data);
    for (int i = 0; i < 50; ++i) {
      const std::string text = RandomText(&random, {"a", "b", " ", "\u2581", "\u00E9", "ab "}, 60);
      std::string marked = data.add_space_prefix ? "\u2581" : "";
      for (const char c : text) marked += c == ' ' ? "\u2581" : std::string(1, c);
      Ids expected;
      for (const std::string& part :
           MergeByDefinition(Characters(marked), [&](const std::string&a, const std::string&b) {
             const auto it = score.find(a + b);
             return it == score.end() ? -1e9 : static_cast<double>(it->second);
           }))
        expected.push_back(id.at(part));
      ASSERT_EQ(t->Encode(text, {.add_special = false}), expected) << text;
    }
  }
}

TEST(Tokenizer, ByteLevelWordsAreMergedAsTheDefinition) {
  std::mt19937 random(11);
  for (int round = 0; round < 40; ++round) {
    VocabData data;
    data.model = "gpt2";
    data.pre = "gpt-2";
    std::vector<std::string> symbols = {"a", "b", "c", "d", "e"};
    data.tokens = symbols;
    std::map<std::pair<std::string, std::string>, int> rank;
    for (int i = 0; i < 25; ++i) {
      const std::string left = symbols[random() % symbols.size()],
                        right = symbols[random() % symbols.size()];
      if (left.size() + right.size() > 40) continue;
      if (!rank.try_emplace({left, right}, static_cast<int>(data.merges.size())).second) continue;
      data.merges.push_back(fmt::format("{} {}", left, right));
      const std::string both = left + right;
      if (std::find(symbols.begin(), symbols.end(), both) != symbols.end()) continue;
      symbols.push_back(both);
      data.tokens.push_back(both);
    }
    const auto t = Make(data);
    // Longer than the levels' fan, once and twice.
    for (const size_t most : {6, 40, 700}) {
      const std::string text = RandomText(&random, {"a", "b", "c", "d", "e", "aaa"}, most);
      Ids expected;
      for (const std::string& part :
           MergeByDefinition(Characters(text), [&](const std::string&a, const std::string&b) {
             const auto it = rank.find({a, b});
             return it == rank.end() ? -1e9 : -static_cast<double>(it->second);
           }))
        expected.push_back(*t->Find(part));
      ASSERT_EQ(t->Encode(text, {}), expected) << text;
    }
  }
}

}  // namespace
}  // namespace kvasir
