#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kvasir {

using TokenId = int32_t;

/// What a vocabulary entry is. The numbers are those of `tokenizer.ggml.token_type` in GGUF.
enum class TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

/// A tokenizer's metadata as it stands in a model file: plain data, already checked for type but
/// not for meaning (Tokenizer::Create checks that).
struct VocabData {
  std::string model;  ///< tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SPM)
  std::string pre;    ///< tokenizer.ggml.pre: name of the pre-tokenizer, may be empty
  std::vector<std::string> tokens;  ///< by id; byte-level BPE tokens in GPT-2's printable alphabet
  std::vector<float> scores;        ///< SPM only; empty or one for each token
  std::vector<int32_t> types;       ///< TokenType, one for each token; empty: see Create
  std::vector<std::string> merges;  ///< BPE only: "left right", best first
  std::optional<TokenId> bos, eos, unk, eot, eom, pad;
  std::vector<TokenId> extra_eog;  ///< further end-of-generation ids, if the file lists any
  std::optional<bool> add_bos, add_eos;
  bool add_space_prefix = true;  ///< SPM: tokenizer.ggml.add_space_prefix
};

struct EncodeOptions {
  bool add_special = true;     ///< put BOS in front where the model says so
  bool add_eos = false;        ///< put EOS at the end where it says so: of a text that is complete,
                               ///< never of a prompt, which goes on
  bool parse_special = false;  ///< recognise control tokens written in the text, such as <|im_end|>
  bool continues = false;      ///< the text goes on after other text: no SPM space in front of it
};

/// Bytes that Encode takes at most for each byte of valid UTF-8, the tokens counted. Measured on
/// 2026-11-28: English 2 to 3, a run of one character 16, musical notes, of which Qwen's NFC makes
/// three times as many bytes, 22.
inline constexpr size_t kEncodeBytes = 24;

/// Text to token ids and back. Immutable after Create; safe to use from several threads.
class Tokenizer {
 public:
  /// Checks everything in `data` (sizes, ids in range, known model and pre-tokenizer) and builds
  /// the tables. Errors name the GGUF field, its value and what is allowed. Well-known end tokens
  /// that are said to be text are control tokens, as in llama.cpp: no chat would end. Where there
  /// are no types, so are bos, eos and the like, and <|...|>.
  static Result<std::unique_ptr<Tokenizer>> Create(VocabData data);
  ~Tokenizer();

  /// Token ids of any bytes. Never fails. Each byte of invalid UTF-8 is read as U+FFFD by
  /// byte-level BPE, which is defined on characters, and becomes a byte token in SPM. Time is O(n
  /// log n) in the length of the text, memory at most kEncodeBytes for each of its bytes.
  std::vector<TokenId> Encode(std::string_view text, EncodeOptions options) const;

  /// The raw bytes that a token stands for; a control token gives its text (e.g. "<|im_end|>")
  /// only when `special` is true, else nothing. Ids out of range give nothing.
  std::string TokenBytes(TokenId id, bool special) const;

  /// All tokens' bytes in order (SPM: without the space that add_space_prefix put in front).
  std::string Decode(std::span<const TokenId> ids, bool special) const;

  int32_t vocab_size() const;
  /// No token stands for more bytes than this.
  size_t longest_token() const;
  const VocabData& data() const;
  TokenType type(TokenId id) const;
  /// True for tokens that end a generation: eos, eot, eom and their well-known names
  /// (<|im_end|>, <|eot_id|>, <end_of_turn>, <|endoftext|> ...).
  bool IsEndOfGeneration(TokenId id) const;
  /// The id of a token by its exact text as it stands in the vocabulary.
  std::optional<TokenId> Find(std::string_view text) const;
  bool add_bos() const;
  bool add_eos() const;

 private:
  struct Tables;
  explicit Tokenizer(std::unique_ptr<Tables> tables);
  std::unique_ptr<Tables> tables_;
};

}  // namespace kvasir
