#include "api/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/aligned_buffer.h"

namespace kvasir {
namespace {

/// Resident bytes of what is mapped from files, and of the first thread's stack.
struct Mapped {
  uint64_t model = 0, program = 0, stack = 0;
};

/// Whether the model's file, or a part of it, is mapped at an address. Its name would not tell: it
/// may have been moved or removed.
bool IsOf(const GgufFile& file, uint64_t address) {
  for (const MappedFile& part : file.files()) {
    const auto begin = reinterpret_cast<uintptr_t>(part.bytes().data());
    if (address >= begin && address < begin + part.bytes().size()) return true;
  }
  return false;
}

Mapped ReadMapped(const GgufFile& file) {
  Mapped out;
  std::ifstream in("/proc/self/smaps");
  uint64_t* owner = nullptr;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first.find('-') != std::string::npos && first.back() != ':') {  // "from-to perms ... path"
      const uint64_t from = std::strtoull(first.c_str(), nullptr, 16);
      std::string skipped, path;
      for (int i = 0; i < 4; ++i) words >> skipped;
      std::getline(words >> std::ws, path);
      owner = path.empty()        ? nullptr
              : path == "[stack]" ? &out.stack
              : path[0] != '/'    ? nullptr  // the heap and the kernel's own
              : IsOf(file, from)  ? &out.model
                                  : &out.program;
    } else if (first == "Rss:" && owner != nullptr) {
      uint64_t kib = 0;
      words >> kib;
      *owner += kib << 10;
    }
  }
  return out;
}

}  // namespace

uint64_t Ledger::total() const {
  uint64_t sum = 0;
  for (const LedgerEntry& e : entries) sum += e.bytes;
  return sum;
}

EngineBytes ReadEngineBytes(const Engine& engine) {
  const KvManager& manager = engine.kv();
  const uint64_t block = manager.layout().block_bytes;
  const auto blocks = [block](int64_t count) { return static_cast<uint64_t>(count) * block; };
  const int64_t idle = manager.index().idle_blocks();
  return {.kv_running = blocks(manager.pool().total() - manager.pool().free() - idle),
          .kv_cached = blocks(idle),
          .index = manager.index().bytes(),
          .queues = engine.queue_bytes()};
}

Ledger ReadLedger(const LoadedModel& model, const EngineBytes& engine) {
  Ledger out;
  const Mapped mapped = ReadMapped(model.file());
  const uint64_t kv = ResidentOf(MemoryOwner::kKv);
  const uint64_t cached = engine.kv_cached, running = engine.kv_running;
  const uint64_t index = engine.index, queues = engine.queues;
  const uint64_t known = model.text_bytes() + index + queues, heap = HeapInUse();
  out.entries = {
      {"weights", ResidentOf(MemoryOwner::kWeights), "packed matrices"},
      {"model file", mapped.model, "mapped pages, the system may take them back"},
      {"KV running", std::min(running, kv), "blocks that sequences hold"},
      {"KV cached", std::min(cached, kv - std::min(running, kv)),
       "blocks that only the cache holds"},
      {"KV free", kv - std::min(kv, running + cached), "blocks that were used once"},
      {"scratch", ResidentOf(MemoryOwner::kScratch), "activations and logits of one step"},
      {"text", model.text_bytes(), "vocabulary, merges, chat template"},
      {"index", index, "of the prefix cache"},
      {"queues", queues, "requests and their tokens"},
      {"objects", heap - std::min(heap, known), "norms, plans, tables and the rest of the heap"},
      {"slack", HeapSlack(), "freed, kept by the allocator"},
      {"program", mapped.program, "binary and libraries"},
      {"stack", mapped.stack, "of the first thread"},
  };
  out.resident_bytes = ResidentBytes();
  return out;
}

std::string LedgerText(const Ledger& ledger) {
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::string out;
  for (const LedgerEntry& e : ledger.entries)
    out += fmt::format("{:<12} {:>10.2f} MiB  {}\n", e.owner, mib(e.bytes), e.what);
  out += fmt::format(
      "{:<12} {:>10.2f} MiB  {:+.2f}% of the {:.2f} MiB that are resident\n", "sum",
      mib(ledger.total()),
      100 * (static_cast<double>(ledger.total()) / static_cast<double>(ledger.resident_bytes) - 1),
      mib(ledger.resident_bytes));
  return out;
}

}  // namespace kvasir
