// Any bytes as a prompt: tokens in range, and back again the same text.
#include "fuzz_input.h"
#include "fuzz_models.h"
#include "text/detokenizer.h"
#include "text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const OpenedModel* const models[] = {OpenTinyModel("llama"), OpenTinyModel("gemma3"),
                                              OpenTinyModel("qwen2")};
  FuzzInput in(data, size);
  const uint8_t flags = in.Byte();
  const std::string text(in.Rest());
  for (const OpenedModel* model : models) {
    const Tokenizer& tokenizer = *model->tokenizer;
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
    joined += pieces.Finish();
    CHECK(IsValidUtf8(joined));
    if (!options.add_special && IsValidUtf8(text)) {
      const std::string back = tokenizer.Decode(ids, true);
      const bool whole =
          std::find(ids.begin(), ids.end(), tokenizer.data().unk.value_or(-1)) == ids.end();
      if (whole) CHECK(back == text);
    }
  }
  return 0;
}
