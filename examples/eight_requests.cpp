// Loads a model, sends eight requests at once, and prints their texts as they come.
//   eight_requests MODEL.gguf
#include <kvasir/kvasir.h>

#include <iostream>
#include <map>

int main(int argc, char** argv) try {
  if (argc != 2) throw kvasir::LlmError("usage: eight_requests MODEL.gguf");
  kvasir::Llm llm(argv[1], {.context = 512, .kv_bytes = 256 << 20, .max_sequences = 8});

  std::map<uint64_t, int> number;
  for (int i = 1; i <= 8; ++i) {
    kvasir::LlmRequest request;
    request.messages = {{"user", "Tell me one fact about the number " + std::to_string(i) + "."}};
    request.max_tokens = 40;
    number[llm.Submit(request)] = i;
  }

  llm.Run([&](const kvasir::LlmEvent& event) {
    if (!event.text.empty()) std::cout << number[event.request] << "> " << event.text << std::endl;
    if (event.finished) {
      std::cout << number[event.request] << ": " << event.finish_reason << ", "
                << event.cached_tokens << " of " << event.prompt_tokens
                << " prompt tokens from the cache, first token after " << event.ttft_s << " s\n";
    }
  });
} catch (const kvasir::LlmError& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
