// Server-sent events cut at any place: the same events.
#include <vector>

#include "fuzz_input.h"
#include "loadgen/sse_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  FuzzInput in(data, size);
  const size_t step = 1 + in.Byte();
  const std::string_view text = in.Rest();
  std::vector<std::string> whole, pieces;
  SseReader first, second;
  first.Push(text, [&](std::string_view event) { whole.emplace_back(event); });
  for (size_t at = 0; at < text.size(); at += step) {
    second.Push(text.substr(at, step), [&](std::string_view event) { pieces.emplace_back(event); });
  }
  CHECK(whole == pieces);
  return 0;
}
