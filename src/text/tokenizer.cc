#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_set>
#include <utility>

#include "text/bpe_model.h"
#include "text/byte_level.h"
#include "text/special_tokens.h"
#include "text/spm_model.h"

namespace kvasir {
namespace {

/// Names of end tokens that files often do not list as such.
constexpr std::array<std::string_view, 8> kEndNames = {
    "<|im_end|>",    "<|eot_id|>", "<|eom_id|>", "<end_of_turn>",
    "<|endoftext|>", "<|end|>",    "<EOT>",      "<|end_of_text|>"};
/// Names that end a text only where the file says that they are control tokens: others write them
/// as text.
constexpr std::array<std::string_view, 5> kControlEndNames = {
    "</s>", "<eos>", "[EOS]", "<end_of_utterance>", "<｜end▁of▁sentence｜>"};

/// Released vocabularies have tokens of up to 256 bytes: 128 spaces, in GPT-2's alphabet.
constexpr size_t kMaxTokenBytes = 4096;
/// Those that are looked for at each place of a text are names and runs of some 30 spaces or line
/// ends, below 100 bytes. Files of speech models have 200,000 of them, numbered: as many nodes.
constexpr size_t kMaxSpecialBytes = 512;
constexpr size_t kMaxSpecialNodes = 1 << 21;

/// The byte of a token such as <0x0A>, or -1.
int ByteOf(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  int byte = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  return error == std::errc() && end == text.data() + 5 ? byte : -1;
}

std::string ReplaceAll(std::string_view text, std::string_view what, std::string_view with) {
  std::string out;
  size_t from = 0;
  for (size_t at; (at = text.find(what, from)) != std::string_view::npos; from = at + what.size()) {
    out += text.substr(from, at - from);
    out += with;
  }
  return out += text.substr(from);
}

Status CheckSizes(const VocabData& d) {
  if (d.tokens.empty()) {
    return MakeError(ErrorCode::kInvalid, "tokenizer.ggml.tokens is empty");
  }
  for (const auto& [name, size] :
       {std::pair{"scores", d.scores.size()}, {"token_type", d.types.size()}}) {
    if (size != 0 && size != d.tokens.size()) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.{} has {} entries; tokenizer.ggml.tokens has {}", name, size,
                       d.tokens.size());
    }
  }
  for (size_t i = 0; i < d.tokens.size(); ++i) {
    if (d.tokens[i].size() > kMaxTokenBytes) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.tokens[{}] has {} bytes; at most {} are supported", i,
                       d.tokens[i].size(), kMaxTokenBytes);
    }
  }
  for (size_t i = 0; i < d.types.size(); ++i) {
    if (d.types[i] < 1 || d.types[i] > 6) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.token_type[{}] is {}; it must be from 1 to 6", i,
                       d.types[i]);
    }
  }
  return {};
}

Status CheckIds(const VocabData& d) {
  const auto check = [&](const char* name, std::optional<TokenId> id) -> Status {
    if (!id || (*id >= 0 && static_cast<size_t>(*id) < d.tokens.size())) return {};
    return MakeError(ErrorCode::kInvalid, "tokenizer.ggml.{} is {}; the vocabulary has {} tokens",
                     name, *id, d.tokens.size());
  };
  KV_RETURN_IF_ERROR(check("bos_token_id", d.bos));
  KV_RETURN_IF_ERROR(check("eos_token_id", d.eos));
  KV_RETURN_IF_ERROR(check("unknown_token_id", d.unk));
  KV_RETURN_IF_ERROR(check("eot_token_id", d.eot));
  KV_RETURN_IF_ERROR(check("eom_token_id", d.eom));
  KV_RETURN_IF_ERROR(check("padding_token_id", d.pad));
  for (const TokenId id : d.extra_eog) KV_RETURN_IF_ERROR(check("eos_token_ids", id));
  return {};
}

/// For a file that has none. Without them, no special token would be known in a prompt, nor end it.
std::vector<int32_t> GuessTypes(const VocabData& d) {
  const auto number = [](TokenType type) { return static_cast<int32_t>(type); };
  std::vector<int32_t> out(d.tokens.size(), number(TokenType::kNormal));
  for (size_t i = 0; i < out.size(); ++i) {
    const std::string& text = d.tokens[i];
    if (text.size() > 4 && text.starts_with("<|") && text.ends_with("|>"))
      out[i] = number(TokenType::kControl);
    if (d.model == "llama" && ByteOf(text) >= 0) out[i] = number(TokenType::kByte);
  }
  if (d.unk) out[*d.unk] = number(TokenType::kUnknown);
  for (const std::optional<TokenId>& id : {d.bos, d.eos, d.eot, d.eom, d.pad}) {
    if (id) out[*id] = number(TokenType::kControl);
  }
  for (const TokenId id : d.extra_eog) out[id] = number(TokenType::kControl);
  return out;
}

}  // namespace

struct Tokenizer::Tables {
  VocabData data;
  std::unordered_map<std::string_view, TokenId> by_text;  // views of data.tokens
  std::optional<BpeModel> bpe;                            // one of the two
  std::optional<SpmModel> spm;
  SpecialTokens user_defined, all_special;
  std::unordered_set<TokenId> end;
  size_t longest = 4;  // bytes of a token; a character that is not known is one too
  bool add_bos = false, add_eos = false;

  TokenType Type(TokenId id) const { return static_cast<TokenType>(data.types[id]); }
  void MarkEnds();
  Status FindSpecial();
  void FindEnds();
  void EncodeText(std::string_view text, bool after_special, std::vector<TokenId>* out) const {
    if (bpe) {
      bpe->Encode(text, out);
    } else {
      spm->Encode(text, after_special && data.add_space_prefix, out);
    }
  }
};

/// Some converters say that they are text: then no chat would end, and users could write them.
void Tokenizer::Tables::MarkEnds() {
  for (const std::string_view name : kEndNames) {
    const auto it = by_text.find(name);
    if (it != by_text.end() && Type(it->second) == TokenType::kNormal)
      data.types[it->second] = static_cast<int32_t>(TokenType::kControl);
  }
}

Status Tokenizer::Tables::FindSpecial() {
  for (TokenId id = 0; id < static_cast<TokenId>(data.tokens.size()); ++id) {
    const TokenType type = Type(id);
    const std::string& text = data.tokens[id];
    const bool special = type == TokenType::kUserDefined || type == TokenType::kControl ||
                         type == TokenType::kUnknown;
    if (text.empty() || !special) continue;
    if (text.size() > kMaxSpecialBytes) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.tokens[{}] is a special token of {} bytes; at most {} are "
                       "supported",
                       id, text.size(), kMaxSpecialBytes);
    }
    if (type == TokenType::kUserDefined) user_defined.Add(text, id);
    all_special.Add(text, id);
    if (all_special.size() > kMaxSpecialNodes) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.tokens has special tokens of more than {} bytes, what they "
                       "begin with alike not counted",
                       kMaxSpecialNodes);
    }
  }
  return {};
}

void Tokenizer::Tables::FindEnds() {
  for (const std::optional<TokenId>& id : {data.eos, data.eot, data.eom}) {
    if (id) end.insert(*id);
  }
  end.insert(data.extra_eog.begin(), data.extra_eog.end());
  for (const std::string_view name : kEndNames) {
    const auto it = by_text.find(name);
    if (it != by_text.end()) end.insert(it->second);
  }
  for (const std::string_view name : kControlEndNames) {
    const auto it = by_text.find(name);
    if (it != by_text.end() && Type(it->second) == TokenType::kControl) end.insert(it->second);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::Create(VocabData data) {
  KV_RETURN_IF_ERROR(CheckSizes(data));
  auto t = std::make_unique<Tables>();
  t->data = std::move(data);
  VocabData& d = t->data;
  t->by_text.reserve(d.tokens.size());
  for (size_t i = 0; i < d.tokens.size(); ++i) {
    t->by_text.try_emplace(d.tokens[i], static_cast<TokenId>(i));
    t->longest = std::max(t->longest, d.tokens[i].size());
  }
  if (d.model == "llama") {
    // SentencePiece's own defaults, for files that do not say.
    if (!d.unk) d.unk = 0;
    if (!d.bos && d.tokens.size() > 1) d.bos = 1;
    if (!d.eos && d.tokens.size() > 2) d.eos = 2;
  }
  KV_RETURN_IF_ERROR(CheckIds(d));
  if (d.types.empty()) d.types = GuessTypes(d);
  t->MarkEnds();
  if (d.model == "llama") {
    t->add_bos = d.add_bos.value_or(true);
    KV_ASSIGN(t->spm, SpmModel::Create(d, t->by_text));
  } else if (d.model == "gpt2") {
    if (d.merges.empty()) {
      return MakeError(ErrorCode::kInvalid,
                       "tokenizer.ggml.merges is missing or empty; a \"gpt2\" tokenizer needs it: "
                       "convert the model again");
    }
    KV_ASSIGN(const PreTokenizerKind* kind, FindPreTokenizer(d.pre));
    t->add_bos = d.add_bos.value_or(kind->add_bos);
    KV_ASSIGN(t->bpe, BpeModel::Create(d, *kind));
  } else {
    return MakeError(ErrorCode::kUnsupported,
                     "tokenizer.ggml.model is \"{}\", which is not supported; supported: gpt2 "
                     "(byte-level BPE), llama (SentencePiece BPE)",
                     d.model);
  }
  t->add_eos = d.add_eos.value_or(false);
  KV_RETURN_IF_ERROR(t->FindSpecial());
  t->FindEnds();
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(t)));
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, EncodeOptions options) const {
  const Tables& t = *tables_;
  std::vector<TokenId> out;
  if (options.add_special && t.add_bos && t.data.bos) out.push_back(*t.data.bos);
  const SpecialTokens& special = options.parse_special ? t.all_special : t.user_defined;
  bool after_special = !options.continues;  // the start counts as one: SPM puts its space there
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = special.Find(text, at);
    if (match.begin > at) {
      t.EncodeText(text.substr(at, match.begin - at), after_special, &out);
      after_special = false;
    }
    if (match.id >= 0) {
      out.push_back(match.id);
      after_special = true;
    }
    at = match.end;
  }
  if (options.add_eos && t.add_eos && t.data.eos) out.push_back(*t.data.eos);
  return out;
}

std::string Tokenizer::TokenBytes(TokenId id, bool special) const {
  const Tables& t = *tables_;
  if (id < 0 || id >= vocab_size()) return {};
  const std::string& text = t.data.tokens[id];
  switch (t.Type(id)) {
    case TokenType::kControl:
    case TokenType::kUnknown:
      return special ? text : std::string();
    case TokenType::kUserDefined:
      return text;
    case TokenType::kUnused:
      return {};
    case TokenType::kByte:
      if (const int byte = ByteOf(text); byte >= 0) return std::string(1, static_cast<char>(byte));
      break;
    case TokenType::kNormal:
      break;
  }
  return t.bpe ? FromByteLevel(text) : ReplaceAll(text, kSpmSpace, " ");
}

std::string Tokenizer::Decode(std::span<const TokenId> ids, bool special) const {
  const Tables& t = *tables_;
  std::string out;
  bool at_start = t.spm && t.data.add_space_prefix;
  for (const TokenId id : ids) {
    std::string bytes = TokenBytes(id, special);
    if (at_start && id >= 0 && id < vocab_size() && t.Type(id) != TokenType::kControl) {
      if (!bytes.empty() && bytes[0] == ' ') bytes.erase(0, 1);
      at_start = false;
    }
    out += bytes;
  }
  return out;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(tables_->data.tokens.size()); }
size_t Tokenizer::longest_token() const { return tables_->longest; }
const VocabData& Tokenizer::data() const { return tables_->data; }
TokenType Tokenizer::type(TokenId id) const { return tables_->Type(id); }
bool Tokenizer::IsEndOfGeneration(TokenId id) const { return tables_->end.count(id) != 0; }
bool Tokenizer::add_bos() const { return tables_->add_bos && tables_->data.bos.has_value(); }
bool Tokenizer::add_eos() const { return tables_->add_eos && tables_->data.eos.has_value(); }

std::optional<TokenId> Tokenizer::Find(std::string_view text) const {
  const auto it = tables_->by_text.find(text);
  if (it == tables_->by_text.end()) return std::nullopt;
  return it->second;
}

}  // namespace kvasir
