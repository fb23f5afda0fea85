#include "model/config.h"

namespace kvasir {
namespace {

/// An array that must be there, of one of GGUF's number families or strings.
template <typename T>
Result<const std::vector<T>*> Array(const GgufFile& file, std::string_view key, bool required) {
  const GgufValue* value = file.FindValue(key);
  if (value == nullptr) {
    if (!required) return static_cast<const std::vector<T>*>(nullptr);
    return MakeError(ErrorCode::kInvalid, "{}: {} is missing", file.path(), key);
  }
  const auto* array = std::get_if<std::vector<T>>(value);
  if (array == nullptr) {
    return MakeError(ErrorCode::kInvalid, "{}: {} is not an array of the right type", file.path(),
                     key);
  }
  return array;
}

Status ReadId(const GgufFile& file, std::string_view key, int64_t vocab,
              std::optional<TokenId>* out) {
  // Some converters write 2^32 - 1 for "none".
  KV_ASSIGN(const auto value, file.Int(key, -1, 0xffffffffll));
  if (!value || *value == -1 || *value == 0xffffffffll) return {};
  if (*value >= vocab) {
    return MakeError(ErrorCode::kInvalid, "{}: {} is {}; the vocabulary has {} tokens", file.path(),
                     key, *value, vocab);
  }
  *out = static_cast<TokenId>(*value);
  return {};
}

Status ReadTypes(const GgufFile& file, VocabData* v) {
  KV_ASSIGN(const auto* types, Array<int64_t>(file, "tokenizer.ggml.token_type", false));
  if (types == nullptr) return {};
  v->types.reserve(types->size());
  for (const int64_t t : *types) v->types.push_back(static_cast<int32_t>(t));
  return {};
}

Status ReadEogList(const GgufFile& file, VocabData* v) {
  const GgufValue* value = file.FindValue("tokenizer.ggml.eos_token_ids");
  if (value == nullptr) return {};
  std::vector<int64_t> ids;
  if (const auto* u = std::get_if<std::vector<uint64_t>>(value)) ids.assign(u->begin(), u->end());
  if (const auto* s = std::get_if<std::vector<int64_t>>(value)) ids = *s;
  for (const int64_t id : ids) {
    if (id < 0 || id >= static_cast<int64_t>(v->tokens.size())) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: tokenizer.ggml.eos_token_ids holds {}; the vocabulary has {} tokens",
                       file.path(), id, v->tokens.size());
    }
    v->extra_eog.push_back(static_cast<TokenId>(id));
  }
  return {};
}

}  // namespace

Result<VocabData> ReadVocab(const GgufFile& file) {
  VocabData v;
  KV_ASSIGN(const auto model, file.String("tokenizer.ggml.model"));
  if (!model)
    return MakeError(ErrorCode::kInvalid, "{}: tokenizer.ggml.model is missing", file.path());
  v.model = *model;
  KV_ASSIGN(const auto pre, file.String("tokenizer.ggml.pre"));
  if (pre) v.pre = *pre;

  KV_ASSIGN(const auto* tokens, Array<std::string_view>(file, "tokenizer.ggml.tokens", true));
  v.tokens.assign(tokens->begin(), tokens->end());
  KV_ASSIGN(const auto* scores, Array<double>(file, "tokenizer.ggml.scores", false));
  if (scores != nullptr) {
    v.scores.reserve(scores->size());
    for (const double s : *scores) v.scores.push_back(static_cast<float>(s));
  }
  KV_RETURN_IF_ERROR(ReadTypes(file, &v));
  KV_ASSIGN(const auto* merges, Array<std::string_view>(file, "tokenizer.ggml.merges", false));
  if (merges != nullptr) v.merges.assign(merges->begin(), merges->end());

  const auto vocab = static_cast<int64_t>(v.tokens.size());
  KV_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.bos_token_id", vocab, &v.bos));
  KV_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eos_token_id", vocab, &v.eos));
  KV_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.unknown_token_id", vocab, &v.unk));
  KV_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eot_token_id", vocab, &v.eot));
  KV_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eom_token_id", vocab, &v.eom));
  KV_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.padding_token_id", vocab, &v.pad));
  KV_RETURN_IF_ERROR(ReadEogList(file, &v));
  KV_ASSIGN(v.add_bos, file.Bool("tokenizer.ggml.add_bos_token"));
  KV_ASSIGN(v.add_eos, file.Bool("tokenizer.ggml.add_eos_token"));
  KV_ASSIGN(const auto space, file.Bool("tokenizer.ggml.add_space_prefix"));
  v.add_space_prefix = space.value_or(true);

  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding != nullptr && embedding->ne[1] < vocab) {
    return MakeError(ErrorCode::kInvalid,
                     "{}: tokenizer.ggml.tokens has {} tokens, but token_embd.weight has {} rows",
                     file.path(), vocab, embedding->ne[1]);
  }
  return v;
}

Result<std::optional<std::string>> ReadChatTemplate(const GgufFile& file) {
  KV_ASSIGN(const auto source, file.String("tokenizer.chat_template"));
  if (!source) return std::optional<std::string>();
  return std::optional<std::string>(std::string(*source));
}

}  // namespace kvasir
