// A request trace.
#include "fuzz_input.h"
#include "sim/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const FuzzFile file({reinterpret_cast<const char*>(data), size});
  const auto trace = ReadTrace(file.path(), 1000);
  if (!trace.ok()) {
    CheckMessage(trace.error().message);
    return 0;
  }
  for (size_t i = 0; i < trace->size(); ++i) {
    const TraceRequest& r = (*trace)[i];
    CHECK(r.arrival_s == r.arrival_s);
    CHECK_GE(r.input_tokens, 0);
    if (r.input_tokens < 10'000)
      CHECK_EQ(PromptOf(r, i).size(), static_cast<size_t>(r.input_tokens));
  }
  return 0;
}
