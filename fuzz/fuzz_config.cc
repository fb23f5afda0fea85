// A configuration file.
#include "app/commands.h"
#include "app/settings.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const FuzzFile file({reinterpret_cast<const char*>(data), size});
  CLI::App root("", "kvasir");
  // They own what the options point to.
  const Command run = AddRunCommand(&root), serve = AddServeCommand(&root);
  const char* const arguments[] = {"kvasir", "serve"};
  root.parse(2, arguments);
  const Status status = ApplyConfigFile(&root, file.path());
  if (!status.ok()) CheckMessage(status.error().message);
  return 0;
}
