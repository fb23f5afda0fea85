#include "text/spm_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/merge.h"

namespace kvasir {
namespace {

/// As many bytes as the lead byte promises, right or not: what does not make a token falls back to
/// bytes anyway.
size_t CharacterBytes(uint8_t lead) {
  if (lead < 0xC0) return 1;
  if (lead < 0xE0) return 2;
  return lead < 0xF0 ? 3 : 4;
}

/// Plain text never becomes a control token, whatever its characters merge to.
bool IsText(const VocabData& data, TokenId id) {
  if (data.types.empty()) return true;
  const auto type = static_cast<TokenType>(data.types[id]);
  return type == TokenType::kNormal || type == TokenType::kUserDefined ||
         type == TokenType::kUnused;
}

std::string MarkSpaces(std::string_view text, bool space_prefix) {
  std::string out(space_prefix ? kSpmSpace : "");
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      out += kSpmSpace;
    } else {
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace

Result<SpmModel> SpmModel::Create(const VocabData& data,
                                  const std::unordered_map<std::string_view, TokenId>& by_text) {
  SpmModel m;
  m.data_ = &data;
  m.by_text_ = &by_text;
  if (data.scores.size() != data.tokens.size()) {
    return MakeError(
        ErrorCode::kInvalid,
        "tokenizer.ggml.scores has {} entries; a \"llama\" tokenizer needs one for each "
        "of the {} tokens",
        data.scores.size(), data.tokens.size());
  }
  for (size_t i = 0; i < data.scores.size(); ++i) {
    if (data.scores[i] == data.scores[i]) continue;
    return MakeError(ErrorCode::kInvalid, "tokenizer.ggml.scores[{}] is not a number", i);
  }
  for (const std::string& token : data.tokens) m.longest_ = std::max(m.longest_, token.size());
  for (int b = 0; b < 256; ++b) {
    auto it = by_text.find(fmt::format("<0x{:02X}>", b));
    if (it == by_text.end() && !data.unk) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.tokens has neither the byte token <0x{:02X}> nor an unknown "
                       "token",
                       b);
    }
    m.byte_token_[b] = it != by_text.end() ? it->second : *data.unk;
  }
  return m;
}

void SpmModel::Encode(std::string_view raw, bool space_prefix, std::vector<TokenId>* out) const {
  if (raw.empty()) return;
  const std::string text = MarkSpaces(raw, space_prefix);
  const auto find = [&](size_t begin, size_t length) {
    if (length > longest_) return TokenId{-1};
    const auto it = by_text_->find(std::string_view(text).substr(begin, length));
    return it == by_text_->end() || !IsText(*data_, it->second) ? TokenId{-1} : it->second;
  };
  std::vector<MergeSymbol> symbols;
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::min(text.size() - i, CharacterBytes(static_cast<uint8_t>(text[i])));
    const auto at = static_cast<ptrdiff_t>(symbols.size());
    symbols.push_back(
        {.begin = i, .length = length, .id = find(i, length), .prev = at - 1, .next = at + 1});
    i += length;
  }
  symbols.back().next = -1;
  MergeSymbols(symbols, [&](const MergeSymbol& a, const MergeSymbol& b) {
    const TokenId id = find(a.begin, a.length + b.length);
    return id < 0 ? MergeCandidate{} : MergeCandidate{data_->scores[id], id};
  });
  for (ptrdiff_t i = 0; i >= 0; i = symbols[i].next) {
    const MergeSymbol& s = symbols[i];
    if (s.id >= 0) {
      out->push_back(s.id);
      continue;
    }
    for (size_t k = 0; k < s.length; ++k) {
      out->push_back(byte_token_[static_cast<uint8_t>(text[s.begin + k])]);
    }
  }
}

}  // namespace kvasir
