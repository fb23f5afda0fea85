#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

/// One character at the start of a text.
struct Utf8Char {
  uint32_t code = 0;  ///< U+FFFD where the bytes are invalid
  int bytes = 1;      ///< how many it takes; 1 where they are invalid
  bool valid = false;
  /// The text ends inside of what could still become a valid character.
  bool truncated = false;
  /// Where the bytes are invalid: how many of them one U+FFFD stands for, the maximal subpart of
  /// what is ill-formed (Unicode, section 3.9; so do Python and WHATWG's decoders).
  int subpart = 1;
};

/// The first character of `text`, which must not be empty. Strict (RFC 3629): no overlong forms,
/// no surrogates, nothing above U+10FFFF.
Utf8Char DecodeUtf8(std::string_view text);

/// Appends the UTF-8 form of `code`, which must be a Unicode scalar value.
void AppendUtf8(uint32_t code, std::string* out);

bool IsValidUtf8(std::string_view text);

/// `text` with U+FFFD in place of each maximal subpart of what is ill-formed.
std::string ReplaceInvalidUtf8(std::string_view text);

/// `text` with U+FFFD in place of each byte that is not part of a valid character: so do tokenizers
/// read it.
std::string ReplaceInvalidBytes(std::string_view text);

}  // namespace kvasir
