#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/merge.h"
#include "text/tokenizer.h"

namespace kvasir {

/// SentencePiece's byte-pair encoding (Kudo and Richardson 2018, model_type bpe) with byte
/// fallback: characters are merged by the score of what they become; what is no token becomes byte
/// tokens.
class SpmModel {
 public:
  /// `by_text`: ids by the tokens' text; must outlive this, as must `data`.
  static Result<SpmModel> Create(const VocabData& data,
                                 const std::unordered_map<std::string_view, TokenId>& by_text);

  /// Appends the tokens of a text without special tokens. Spaces are U+2581 in tokens.
  /// `space_prefix`: as if the text started with a space.
  void Encode(std::string_view text, bool space_prefix, std::vector<TokenId>* out) const;

 private:
  /// The token of a text that becomes one; -1: none. `room`: for what it needs.
  TokenId Find(std::string_view text, std::string* room) const;
  void EncodePart(std::string_view part, PairMerger* merger, std::vector<TokenId>* out) const;

  const VocabData* data_ = nullptr;
  const std::unordered_map<std::string_view, TokenId>* by_text_ = nullptr;
  size_t longest_ = 0;                   // bytes of the longest token
  std::array<bool, 256> joins_space_{};  // by byte: whether a token has U+2581 after it
  TokenId byte_token_[256];              // the unknown token where a byte has none of its own
};

/// SentencePiece's mark for a space, U+2581.
inline constexpr std::string_view kSpmSpace = "\xE2\x96\x81";

}  // namespace kvasir
