#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvasir::jinja {

enum class TokenKind {
  kData,           ///< text between tags
  kVariableBegin,  ///< {{
  kVariableEnd,
  kBlockBegin,  ///< {%
  kBlockEnd,
  kName,
  kString,  ///< unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

/// Cuts a template into tokens with trim_blocks and lstrip_blocks on, as Jinja2 does: comments are
/// gone, raw blocks are data, `-` and `+` at tags are applied, one newline at the end is dropped.
/// Throws TemplateError.
std::vector<Token> Lex(std::string_view source);

}  // namespace kvasir::jinja
