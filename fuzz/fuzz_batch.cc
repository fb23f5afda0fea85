// A batch file, and a file of answers that was cut anywhere.
#include <fstream>

#include "app/batch_job.h"
#include "fuzz_input.h"
#include "fuzz_models.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static LoadedModel* const model = LoadTinyModel();
  static const std::string out = "/dev/shm/kvasir-fuzz-batch-" + std::to_string(getpid());
  FuzzInput in(data, size);
  const size_t cut = in.Below(65536);
  const std::string_view all = in.Rest();
  const FuzzFile file(all.substr(std::min(cut, all.size())));
  std::ofstream(out, std::ios::binary) << all.substr(0, cut);
  const auto run = RunBatch(model, file.path(), out, "m", [](size_t, size_t) {});
  if (!run.ok()) {
    CheckMessage(run.error().message);
  } else {
    // Nothing is left to do.
    const auto again = RunBatch(model, file.path(), out, "m", [](size_t, size_t) {});
    CHECK(again.ok());
    CHECK_EQ(again->requests, size_t{0});
  }
  unlink(out.c_str());
  return 0;
}
