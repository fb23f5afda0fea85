#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// How a byte-level BPE model cuts a text into words before it merges, by the name in
/// `tokenizer.ggml.pre`. Each is one regular expression, matched again and again.
struct PreTokenizerKind {
  std::string_view name;
  std::string_view pattern;
  bool ignore_merges;  ///< a word that is a token as a whole is not merged
  bool add_bos;        ///< the family's default
  bool nfc = false;    ///< texts are brought to Unicode's normalization form C first
};

/// The kind of a name or one of its aliases; an Error that lists the known ones.
Result<const PreTokenizerKind*> FindPreTokenizer(std::string_view name);

/// A compiled kind. Immutable; may be used from several threads.
class PreTokenizer {
 public:
  explicit PreTokenizer(const PreTokenizerKind& kind);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  /// Calls `word` with each word of `text` (valid UTF-8), which together are the text.
  void ForEachWord(std::string_view text, const std::function<void(std::string_view)>& word) const;
  /// The same, as a list.
  std::vector<std::string_view> Split(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace kvasir
