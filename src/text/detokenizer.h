#pragma once

#include <string>

#include "text/tokenizer.h"

namespace kvasir {

/// Turns a stream of tokens into a stream of text that never ends inside a UTF-8 character: bytes
/// of an unfinished character wait for the next token, and are no text at the end. Invalid bytes
/// become U+FFFD, one for each maximal subpart, as soon as it is sure that they cannot become
/// valid.
class Detokenizer {
 public:
  /// `tokenizer` must outlive this. `special`: also print control tokens.
  /// `at_start`: this is the start of a text, so SPM's leading space of the first token is dropped
  /// where the model adds one.
  Detokenizer(const Tokenizer& tokenizer, bool special, bool at_start = false);

  /// The text that becomes certain with this token; may be empty.
  std::string Push(TokenId id);
  /// How many characters of the last Push's text are before the one in which its token begins: what
  /// waited, and turned out to be invalid.
  size_t before_token() const { return before_token_; }

 private:
  const Tokenizer* tokenizer_;
  bool special_;
  bool first_;
  size_t before_token_ = 0;
  std::string pending_;  // at most 3 bytes: the start of a character
};

}  // namespace kvasir
