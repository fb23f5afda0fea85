// A configuration file.
#include "app/commands.h"
#include "app/settings.h"
#include "base/check.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const FuzzFile file({reinterpret_cast<const char*>(data), size});
  CLI::App root("", "kvasir");
  // They own what the options point to.
  SettingOrigins origins;
  const Command run = AddRunCommand(&root), serve = AddServeCommand(&root, &origins);
  const char* const arguments[] = {"kvasir", "serve"};
  root.parse(2, arguments);
  const Status status = ApplyConfigFile(&root, file.path(), &origins);
  if (!status.ok()) CheckMessage(status.error().message);
  const std::string line = SettingsLine(&root, origins);
  CHECK_EQ(line.find('\n') + 1, line.size());
  return 0;
}
