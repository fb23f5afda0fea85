#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <limits>
#include <string>

#include "base/check.h"

namespace kvasir {
namespace {

// Unicode's White_Space. PCRE2's own \s has U+180E too, which the models' tokenizers do not.
#define WS                                                                                        \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{" \
  "205f}\\x{3000}"
#define SPACE "[" WS "]"
#define OTHER "[^" WS "\\p{L}\\p{N}]"
#define CASELESS_CONTRACTIONS "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"
// The end of a run of spaces goes to the next word.
#define SPACES SPACE "+(?![^" WS "])|" SPACE "+"

// GPT-2: openai/gpt-2, encoder.py.
constexpr char kGpt2[] = CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACES;
// SmolLM: each digit alone, and what lies between cut as GPT-2 does, so that a run of spaces ends
// at a digit as it would at the end of the text.
constexpr char kSmolLm[] =
    "\\p{N}|" CONTRACTIONS "| ?\\p{L}+| ?" OTHER "+|" SPACE "+(?![^" WS "\\p{N}])|" SPACE "+";
// Llama 3: meta-llama/llama3, tokenizer.py.
constexpr char kLlama3[] = CASELESS_CONTRACTIONS
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?" OTHER "+[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACES;
// Qwen 2: QwenLM/Qwen, tokenization_qwen.py, with single digits.
constexpr char kQwen2[] = CASELESS_CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?" OTHER
                                                "+[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACES;
// Tekken: mistralai/mistral-common, the pattern of tekken.json.
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
constexpr char kTekken[] = "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER
                           "+" LOWER "*|\\p{N}| ?" OTHER "+[\\r\\n/]*|" SPACE "*[\\r\\n]+|" SPACES;

constexpr PreTokenizerKind kKinds[] = {
    {.name = "gpt-2", .pattern = kGpt2, .ignore_merges = false, .add_bos = false},
    {.name = "smollm", .pattern = kSmolLm, .ignore_merges = false, .add_bos = false},
    {.name = "llama-bpe", .pattern = kLlama3, .ignore_merges = true, .add_bos = true},
    {.name = "qwen2", .pattern = kQwen2, .ignore_merges = false, .add_bos = false, .nfc = true},
    // KORMo: Qwen 2's pattern; nothing says that its texts are composed. Smaug: Llama 3's pattern.
    {.name = "kormo", .pattern = kQwen2, .ignore_merges = false, .add_bos = false},
    {.name = "smaug-bpe", .pattern = kLlama3, .ignore_merges = false, .add_bos = false},
    {.name = "tekken", .pattern = kTekken, .ignore_merges = true, .add_bos = true},
};

// Names that other converters write for the same thing.
constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"gpt2", "gpt-2"},         {"llama3", "llama-bpe"},  {"llama-v3", "llama-bpe"},
    {"falcon3", "llama-bpe"},  {"pixtral", "llama-bpe"}, {"deepseek-r1-qwen", "qwen2"},
    {"midm-2.0", "llama-bpe"}, {"a.x-4.0", "gpt-2"},     {"mellum", "gpt-2"},
    {"trillion", "gpt-2"},     {"minerva-7b", "smollm"},
};

}  // namespace

Result<const PreTokenizerKind*> FindPreTokenizer(std::string_view name) {
  for (const auto& [alias, real] : kAliases) {
    if (name == alias) name = real;
  }
  std::string known;
  for (const PreTokenizerKind& kind : kKinds) {
    if (kind.name == name) return &kind;
    known += known.empty() ? "" : ", ";
    known += kind.name;
  }
  return MakeError(ErrorCode::kUnsupported,
                   "tokenizer.ggml.pre is \"{}\", which is not supported; supported: {}", name,
                   known);
}

struct PreTokenizer::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

PreTokenizer::PreTokenizer(const PreTokenizerKind& kind) : code_(std::make_unique<Code>()) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kind.pattern.data()),
                              kind.pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  CHECK(code_->code != nullptr);
  // Where the system forbids to make code at run time, the interpreter gives the same answers.
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);
  code_->context = pcre2_match_context_create(nullptr);
  CHECK(code_->context != nullptr);
  // The patterns take time in proportion to the text, so the limits against bad ones are in the way
  // of long runs of spaces only.
  pcre2_set_match_limit(code_->context, std::numeric_limits<uint32_t>::max());
}

PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::ForEachWord(std::string_view text,
                               const std::function<void(std::string_view)>& word) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), &pcre2_match_data_free);
  CHECK(match != nullptr);
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
  for (size_t at = 0; at < text.size(); at = range[1]) {
    const int rc = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                               at, PCRE2_NO_UTF_CHECK, match.get(), code_->context);
    // Every character is in some alternative, so there is always a match, and it starts here.
    CHECK(rc > 0 && range[0] == at && range[1] > at);
    word(text.substr(at, range[1] - at));
  }
}

std::vector<std::string_view> PreTokenizer::Split(std::string_view text) const {
  std::vector<std::string_view> words;
  ForEachWord(text, [&](std::string_view word) { words.push_back(word); });
  return words;
}

}  // namespace kvasir
