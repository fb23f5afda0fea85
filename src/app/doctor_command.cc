#include <fmt/format.h>

#include "app/commands.h"
#include "app/json_output.h"
#include "app/model_path.h"
#include "app/terminal.h"
#include "backend/cpu/probe.h"
#include "base/cpu.h"
#include "base/memory_limits.h"

namespace kvasir {
namespace {

struct DoctorFlags {
  bool json = false, no_probe = false;
};

template <typename T>
std::string Join(const std::vector<T>& items) {
  std::string out;
  for (const T& item : items) out += fmt::format("{}{}", out.empty() ? "" : " ", item);
  return out;
}

Result<int> Doctor(const DoctorFlags& flags) {
  const CpuInfo cpu = ReadCpuInfo();
  const MemoryLimits memory = ReadMemoryLimits();
  KV_ASSIGN(const Isa isa, ChooseIsa());
  std::vector<std::string> isas;
  for (const Isa i : AvailableIsas()) isas.emplace_back(NameOf(i));
  const std::vector<int> cores = PhysicalCpus();
  const Result<std::string> model = FindModel("");
  double bandwidth = 0;
  if (!flags.no_probe) {
    KV_ASSIGN(bandwidth, ReadBandwidthProbe(static_cast<int>(cores.size()), &SteadyClock()));
  }
  if (flags.json) {
    PrintJson({{"version", KVASIR_VERSION},
               {"cpu", cpu.model},
               {"features", cpu.features},
               {"isas", isas},
               {"isa", NameOf(isa)},
               {"logical", cpu.logical},
               {"physical", cpu.physical},
               {"threads", cores.size()},
               {"l1d_bytes", cpu.l1d_bytes},
               {"l2_bytes", cpu.l2_bytes},
               {"l3_bytes", cpu.l3_bytes},
               {"memory_bytes", memory.total_bytes},
               {"available_bytes", memory.available_bytes},
               {"limited_by", memory.limited_by},
               {"read_gb_s", bandwidth},
               {"default_model",
                model.ok() ? nlohmann::ordered_json(*model) : nlohmann::ordered_json(nullptr)}});
    return kExitOk;
  }
  std::string out;
  const auto row = [&](std::string_view name, const std::string& value) {
    out += fmt::format("{:<14} {}\n", name, value);
  };
  row("kvasir", KVASIR_VERSION);
  row("processor", cpu.model);
  row("features", Join(cpu.features));
  row("kernels", fmt::format("{} (available: {})", NameOf(isa), Join(isas)));
  row("cores", fmt::format("{} logical, {} physical; threads by default: {}", cpu.logical,
                           cpu.physical, cores.size()));
  row("caches", fmt::format("L1d {}, L2 {}, L3 {}", HumanBytes(cpu.l1d_bytes),
                            HumanBytes(cpu.l2_bytes), HumanBytes(cpu.l3_bytes)));
  row("memory", fmt::format("{}, {} available (limited by {})", HumanBytes(memory.total_bytes),
                            HumanBytes(memory.available_bytes), memory.limited_by));
  if (!flags.no_probe)
    row("reading", fmt::format("{:.1f} GB/s: a model of 1 GB decodes at most {:.0f} tokens/s",
                               bandwidth, bandwidth));
  row("default model", model.ok() ? *model : model.error().message);
  WriteOut(out);
  return kExitOk;
}

}  // namespace

Command AddDoctorCommand(CLI::App* root) {
  auto flags = std::make_shared<DoctorFlags>();
  CLI::App* app =
      root->add_subcommand("doctor", "What this machine offers, and what Kvasir makes of it");
  app->add_flag("--no-probe", flags->no_probe, "do not measure memory bandwidth");
  app->add_flag("--json", flags->json, "one JSON object on stdout");
  return [flags] { return Doctor(*flags); };
}

}  // namespace kvasir
