#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/merge.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

namespace kvasir {

/// Byte-level byte-pair encoding (Radford et al. 2019): the text is cut into words, and each word's
/// bytes are merged in the order of the merge list.
class BpeModel {
 public:
  /// `kind`: how texts are cut. Errors name the field of the file.
  static Result<BpeModel> Create(const VocabData& data, const PreTokenizerKind& kind);

  /// Appends the tokens of a text without special tokens. A byte that the vocabulary has no token
  /// for is dropped, as the models' own tokenizers do (SmolLM2 lacks some control characters).
  void Encode(std::string_view text, std::vector<TokenId>* out) const;

 private:
  explicit BpeModel(const PreTokenizerKind& kind)
      : pre_(kind), ignore_merges_(kind.ignore_merges), nfc_(kind.nfc), joined_(1 << 16) {}
  int32_t Intern(std::string bytes);
  Status AddMerges(const std::vector<std::string>& merges);
  void EncodeWord(std::string_view word, PairMerger* merger, std::vector<TokenId>* out) const;
  void EncodePart(std::string_view part, PairMerger* merger, std::vector<TokenId>* out) const;
  void Append(std::string_view bytes, int32_t symbol, std::vector<TokenId>* out) const;

  PreTokenizer pre_;
  bool ignore_merges_, nfc_;
  // Symbols are what merging works on: byte strings, most of them tokens.
  std::unordered_map<std::string, int32_t> symbol_of_;
  std::vector<TokenId> token_of_;  // by symbol; -1: no token has these bytes
  std::unordered_map<uint64_t, PairMerger::Merge> merges_;  // order: place in the list
  std::vector<bool> joined_;  // by two bytes: whether a merge makes something that holds them
  int32_t byte_symbol_[256];
};

}  // namespace kvasir
