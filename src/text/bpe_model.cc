#include "text/bpe_model.h"

#include "text/byte_level.h"
#include "text/nfc.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

/// Of what a merge makes: as tokens are.
constexpr size_t kMaxMergeBytes = 4096;
static_assert(kMaxMergeBytes <= PairMerger::kMaxSymbolBytes);

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

/// Of two bytes that are neighbours.
size_t BytePair(std::string_view text, size_t first) {
  return size_t{static_cast<uint8_t>(text[first])} << 8 | static_cast<uint8_t>(text[first + 1]);
}

bool IsText(const VocabData& data, size_t id) {
  const auto type = static_cast<TokenType>(data.types[id]);
  return type == TokenType::kNormal || type == TokenType::kUserDefined;
}

}  // namespace

int32_t BpeModel::Intern(std::string bytes) {
  const auto next = static_cast<int32_t>(token_of_.size());
  const auto [it, added] = symbol_of_.try_emplace(std::move(bytes), next);
  if (added) token_of_.push_back(-1);
  return it->second;
}

Result<BpeModel> BpeModel::Create(const VocabData& data, const PreTokenizerKind& kind) {
  BpeModel m(kind);
  m.symbol_of_.reserve(data.tokens.size() + 256);
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (!IsText(data, id)) continue;
    const int32_t symbol = m.Intern(FromByteLevel(data.tokens[id]));
    if (m.token_of_[symbol] < 0) m.token_of_[symbol] = static_cast<TokenId>(id);
  }
  for (int b = 0; b < 256; ++b) m.byte_symbol_[b] = m.Intern(std::string(1, static_cast<char>(b)));
  KV_RETURN_IF_ERROR(m.AddMerges(data.merges));
  return m;
}

Status BpeModel::AddMerges(const std::vector<std::string>& merges) {
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string& text = merges[rank];
    const size_t space = text.find(' ', 1);
    if (space == std::string::npos || space + 1 == text.size()) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.merges[{}] is \"{}\"; it must be two parts with a space "
                       "between them",
                       rank, text);
    }
    const std::string left = FromByteLevel(std::string_view(text).substr(0, space));
    const std::string right = FromByteLevel(std::string_view(text).substr(space + 1));
    const std::string both = left + right;
    if (both.size() > kMaxMergeBytes) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.merges[{}] makes {} bytes; at most {} are supported", rank,
                       both.size(), kMaxMergeBytes);
    }
    for (size_t i = 0; i + 1 < both.size(); ++i) joined_[BytePair(both, i)] = true;
    const uint64_t key = PairKey(Intern(left), Intern(right));
    merges_.try_emplace(key, PairMerger::Merge{static_cast<uint32_t>(rank), Intern(both)});
  }
  return {};
}

void BpeModel::Encode(std::string_view text, std::vector<TokenId>* out) const {
  std::string repaired, composed;
  if (!IsValidUtf8(text)) {
    repaired = ReplaceInvalidBytes(text);
    text = repaired;
  }
  if (nfc_ && !IsPlainNfc(text)) {
    composed = ToNfc(text);
    text = composed;
  }
  PairMerger merger;
  pre_.ForEachWord(text, [&](std::string_view word) { EncodeWord(word, &merger, out); });
}

void BpeModel::EncodeWord(std::string_view word, PairMerger* merger,
                          std::vector<TokenId>* out) const {
  if (ignore_merges_) {
    const auto it = symbol_of_.find(std::string(word));
    if (it != symbol_of_.end() && token_of_[it->second] >= 0) {
      out->push_back(token_of_[it->second]);
      return;
    }
  }
  // No symbol ever holds two neighbours that no merge holds, so what is before them and what is
  // after them are merged apart.
  for (size_t begin = 0, end = 1; begin < word.size(); begin = end++) {
    while (end < word.size() && joined_[BytePair(word, end - 1)]) ++end;
    EncodePart(word.substr(begin, end - begin), merger, out);
  }
}

void BpeModel::EncodePart(std::string_view part, PairMerger* merger,
                          std::vector<TokenId>* out) const {
  merger->Start(part.size());
  for (const char byte : part) merger->Add(1, byte_symbol_[static_cast<uint8_t>(byte)]);
  merger->Run([this](const PairMerger::Symbol& a, const PairMerger::Symbol& b) {
    const auto it = merges_.find(PairKey(a.id, b.id));
    return it == merges_.end() ? PairMerger::Merge{} : it->second;
  });
  merger->ForEach(
      [&](const PairMerger::Symbol& s) { Append(part.substr(s.begin, s.length), s.id, out); });
}

void BpeModel::Append(std::string_view bytes, int32_t symbol, std::vector<TokenId>* out) const {
  if (token_of_[symbol] >= 0) {
    out->push_back(token_of_[symbol]);
  } else if (bytes.size() > 1) {
    for (const char b : bytes) Append({&b, 1}, byte_symbol_[static_cast<uint8_t>(b)], out);
  }
}

}  // namespace kvasir
