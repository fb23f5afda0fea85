// A model file: metadata, tensors, hyperparameters, vocabulary and chat template.
#include "api/loaded_model.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const FuzzFile file({reinterpret_cast<const char*>(data), size});
  const Result<OpenedModel> model = OpenModel(file.path());
  if (!model.ok()) {
    CheckMessage(model.error().message);
    return 0;
  }
  // What was taken must hold: a text goes through its tokenizer.
  const std::vector<int32_t> ids = model->tokenizer->Encode("a text", {});
  for (const int32_t id : ids) CHECK(id >= 0 && id < model->tokenizer->vocab_size());
  (void)model->tokenizer->Decode(ids, true);
  return 0;
}
