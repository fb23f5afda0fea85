#include "text/bpe_model.h"

#include "text/byte_level.h"
#include "text/merge.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

bool IsText(const VocabData& data, size_t id) {
  if (data.types.empty()) return true;
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
    const uint64_t key = PairKey(Intern(left), Intern(right));
    merges_.try_emplace(key, Merge{static_cast<int32_t>(rank), Intern(left + right)});
  }
  return {};
}

void BpeModel::Encode(std::string_view text, std::vector<TokenId>* out) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ReplaceInvalidUtf8(text);
    text = repaired;
  }
  for (const std::string_view word : pre_.Split(text)) EncodeWord(word, out);
}

void BpeModel::EncodeWord(std::string_view word, std::vector<TokenId>* out) const {
  if (ignore_merges_) {
    const auto it = symbol_of_.find(std::string(word));
    if (it != symbol_of_.end() && token_of_[it->second] >= 0) {
      out->push_back(token_of_[it->second]);
      return;
    }
  }
  std::vector<MergeSymbol> symbols(word.size());
  for (size_t i = 0; i < word.size(); ++i) {
    const auto at = static_cast<ptrdiff_t>(i);
    symbols[i] = {.begin = i,
                  .length = 1,
                  .id = byte_symbol_[static_cast<uint8_t>(word[i])],
                  .prev = at - 1,
                  .next = i + 1 < word.size() ? at + 1 : -1};
  }
  MergeSymbols(symbols, [this](const MergeSymbol& a, const MergeSymbol& b) {
    const auto it = merges_.find(PairKey(a.id, b.id));
    if (it == merges_.end()) return MergeCandidate{};
    return MergeCandidate{-static_cast<double>(it->second.rank), it->second.symbol};
  });
  for (ptrdiff_t i = 0; i >= 0; i = symbols[i].next) {
    Append(word.substr(symbols[i].begin, symbols[i].length), symbols[i].id, out);
  }
}

void BpeModel::Append(std::string_view bytes, int32_t symbol, std::vector<TokenId>* out) const {
  if (token_of_[symbol] >= 0) {
    out->push_back(token_of_[symbol]);
  } else if (bytes.size() > 1) {
    for (const char b : bytes) Append({&b, 1}, byte_symbol_[static_cast<uint8_t>(b)], out);
  }
}

}  // namespace kvasir
