#include "text/spm_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "text/utf8.h"

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
  const auto type = static_cast<TokenType>(data.types[id]);
  return type == TokenType::kNormal || type == TokenType::kUserDefined ||
         type == TokenType::kUnused;
}

/// With one, or with what stands for one.
bool StartsWithSpace(std::string_view text) {
  return text[0] == ' ' || text.starts_with(kSpmSpace);
}

/// `text` with U+2581 for spaces: itself, or in `room`.
std::string_view MarkSpaces(std::string_view text, std::string* room) {
  if (text.find(' ') == std::string_view::npos) return text;
  room->clear();
  for (const char c : text) {
    if (c == ' ') {
      *room += kSpmSpace;
    } else {
      room->push_back(c);
    }
  }
  return *room;
}

/// The greater score first, as floats compare.
uint32_t OrderOf(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 is 0
  return (bits >> 31) != 0 ? bits : ~bits & 0x7FFFFFFFu;
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
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const std::string& token = data.tokens[id];
    m.longest_ = std::max(m.longest_, token.size());
    if (!IsText(data, static_cast<TokenId>(id))) continue;
    for (size_t at = 0; (at = token.find(kSpmSpace, at + 1)) != std::string::npos;)
      m.joins_space_[static_cast<uint8_t>(token[at - 1])] = true;
  }
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

TokenId SpmModel::Find(std::string_view text, std::string* room) const {
  if (text.size() > longest_) return -1;
  const auto it = by_text_->find(MarkSpaces(text, room));
  return it == by_text_->end() || !IsText(*data_, it->second) ? TokenId{-1} : it->second;
}

void SpmModel::Encode(std::string_view text, bool space_prefix, std::vector<TokenId>* out) const {
  if (text.empty()) return;
  std::string with_space, marked;
  if (space_prefix) {
    with_space.reserve(1 + text.size());
    with_space += ' ';
    with_space += text;
    text = with_space;
  }
  // A lead byte without what it promises takes that from what stands for a space.
  if (!IsValidUtf8(text)) text = MarkSpaces(text, &marked);
  // Where no token holds a space after this character, what is before the space and what is from
  // it on are merged apart.
  const auto cut = [&](size_t at) {
    const char before = text[at - 1] == ' ' ? kSpmSpace.back() : text[at - 1];
    return StartsWithSpace(text.substr(at)) && !joins_space_[static_cast<uint8_t>(before)];
  };
  PairMerger merger;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    do {
      end = std::min(text.size(), end + CharacterBytes(static_cast<uint8_t>(text[end])));
    } while (end < text.size() && !cut(end));
    EncodePart(text.substr(begin, end - begin), &merger, out);
  }
}

void SpmModel::EncodePart(std::string_view part, PairMerger* merger,
                          std::vector<TokenId>* out) const {
  std::string room;
  merger->Start(part.size());
  for (size_t i = 0, length = 0; i < part.size(); i += length) {
    length = std::min(part.size() - i, CharacterBytes(static_cast<uint8_t>(part[i])));
    merger->Add(length, Find(part.substr(i, length), &room));
  }
  merger->Run([&](const PairMerger::Symbol& a, const PairMerger::Symbol& b) {
    const TokenId id = Find(part.substr(a.begin, a.length + b.length), &room);
    return id < 0 ? PairMerger::Merge{} : PairMerger::Merge{OrderOf(data_->scores[id]), id};
  });
  merger->ForEach([&](const PairMerger::Symbol& s) {
    if (s.id >= 0) {
      out->push_back(s.id);
      return;
    }
    for (const char byte : MarkSpaces(part.substr(s.begin, s.length), &room))
      out->push_back(byte_token_[static_cast<uint8_t>(byte)]);
  });
}

}  // namespace kvasir
