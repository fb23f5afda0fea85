// A key file: what is read can be written, and is read again the same.
#include "fuzz_input.h"
#include "tenant/key_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const FuzzFile file({reinterpret_cast<const char*>(data), size});
  const auto keys = ReadKeyFile(file.path());
  if (!keys.ok()) {
    CheckMessage(keys.error().message);
    return 0;
  }
  const std::string again = "/dev/shm/kvasir-fuzz-keys-" + std::to_string(getpid());
  CHECK(WriteKeyFile(again, *keys).ok());
  const auto second = ReadKeyFile(again);
  CHECK(second.ok());
  CHECK_EQ(second->size(), keys->size());
  for (const auto& [name, entry] : *keys) {
    CHECK(second->at(name).keys == entry.keys);
    CHECK(second->at(name).limits.weight == entry.limits.weight);
    CHECK(second->at(name).group == entry.group);
  }
  const auto table = KeyTable::Load(again, nullptr);
  if (table.ok()) (void)table->Find("a key");
  unlink(again.c_str());
  return 0;
}
