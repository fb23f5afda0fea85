// Any bytes as a prompt: tokens in range, and back again the same text.
#include "fuzz_input.h"
#include "fuzz_models.h"
#include "text/detokenizer.h"
#include "text/nfc.h"
#include "text/spm_model.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

std::string Same(std::string_view text) { return std::string(text); }

/// SentencePiece writes a space as U+2581, and reads that as one.
std::string SpacesFromMarks(std::string_view text) {
  std::string out(text);
  for (size_t at = 0; (at = out.find(kSpmSpace, at)) != std::string::npos;)
    out.replace(at, kSpmSpace.size(), " ");
  return out;
}

struct Case {
  const OpenedModel* model;
  std::string (*canonical)(
      std::string_view);  ///< equal for texts that its tokens do not tell apart
};

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const Case cases[] = {{OpenTinyModel("llama"), Same},
                               {OpenTinyModel("gemma3"), SpacesFromMarks},
                               {OpenTinyModel("qwen2"), ToNfc}};
  FuzzInput in(data, size);
  const uint8_t flags = in.Byte();
  const std::string text(in.Rest());
  for (const Case& c : cases) {
    const Tokenizer& tokenizer = *c.model->tokenizer;
    const EncodeOptions options{.add_special = (flags & 1) != 0, .parse_special = (flags & 2) != 0};
    const std::vector<int32_t> ids = tokenizer.Encode(text, options);
    for (const int32_t id : ids) CHECK(id >= 0 && id < tokenizer.vocab_size());
    // Piece by piece it is the same, and never half a character.
    Detokenizer pieces(tokenizer, true);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string piece = pieces.Push(id);
      CHECK(IsValidUtf8(piece));
      joined += piece;
    }
    CHECK(IsValidUtf8(joined));
    if (!options.add_special && IsValidUtf8(text)) {
      const std::string back = tokenizer.Decode(ids, true);
      const bool whole =
          std::find(ids.begin(), ids.end(), tokenizer.data().unk.value_or(-1)) == ids.end();
      if (whole) CHECK(c.canonical(back) == c.canonical(text));
    }
  }
  return 0;
}
