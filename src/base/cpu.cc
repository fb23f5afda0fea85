#include "base/cpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <utility>

#include "base/cgroup.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace kvasir {
namespace {

std::string ReadFirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers Cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

/// Register states that the operating system saves (Intel SDM vol. 1, section 13.3).
uint64_t EnabledStates() {
  if ((Cpuid(1, 0).ecx & (1u << 27)) == 0) return 0;  // OSXSAVE
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

struct X86Features {
  bool avx2 = false, fma = false, f16c = false, avx_vnni = false, avx512 = false, vnni = false,
       vbmi = false, bf16 = false, fp16 = false, amx_tile = false, amx_int8 = false,
       amx_bf16 = false;
};

X86Features DetectX86() {
  X86Features f;
  const uint64_t states = EnabledStates();
  const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xe6) == 0xe6;
  const bool tiles = (states & 0x60000) == 0x60000;
  const Registers one = Cpuid(1, 0), seven = Cpuid(7, 0), seven1 = Cpuid(7, 1);
  const auto bit = [](uint32_t reg, int n) { return ((reg >> n) & 1) != 0; };
  f.fma = ymm && bit(one.ecx, 12);
  f.f16c = ymm && bit(one.ecx, 29);
  f.avx2 = ymm && bit(seven.ebx, 5);
  f.avx_vnni = ymm && bit(seven1.eax, 4);
  f.avx512 = zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 28) &&
             bit(seven.ebx, 30) && bit(seven.ebx, 31);  // F, DQ, CD, BW, VL
  f.vbmi = f.avx512 && bit(seven.ecx, 1);
  f.vnni = f.avx512 && bit(seven.ecx, 11);
  f.bf16 = f.avx512 && bit(seven1.eax, 5);
  f.fp16 = f.avx512 && bit(seven.edx, 23);
  f.amx_bf16 = tiles && bit(seven.edx, 22);
  f.amx_tile = tiles && bit(seven.edx, 24);
  f.amx_int8 = tiles && bit(seven.edx, 25);
  return f;
}

/// Asks the kernel for the tile registers, once for the process and before its threads start.
bool AmxPermitted() {
  constexpr int kArchReqXcompPerm = 0x1023, kTileData = 18;
  static const bool permitted = ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
  return permitted;
}

#elif defined(__aarch64__)

/// Linux reports what a processor has in AT_HWCAP (Documentation/arch/arm64/elf_hwcaps.rst).
bool HasDotProducts() { return (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

#endif

/// The processors' time that one level allows.
std::optional<double> CpuQuota(const CgroupLevel& level) {
  const std::string both =
      level.unified ? ReadFirstLine(level.dir + "/cpu.max")  // "max 100000" where there is none
                    : ReadFirstLine(level.dir + "/cpu.cfs_quota_us") + " " +
                          ReadFirstLine(level.dir + "/cpu.cfs_period_us");  // -1 is none
  std::istringstream in(both);
  double quota = 0, period = 0;
  if (!(in >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

int OwnAffinity(size_t bytes, cpu_set_t* set) { return ::sched_getaffinity(0, bytes, set); }

size_t CacheBytes(int level) {
  for (int index = 0; index < 6; ++index) {
    const std::string dir =
        "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    if (ReadFirstLine(dir + "type") == "Instruction") continue;
    if (std::atoi(ReadFirstLine(dir + "level").c_str()) != level) continue;
    const std::string size = ReadFirstLine(dir + "size");
    size_t bytes = static_cast<size_t>(std::atoll(size.c_str()));
    if (!size.empty() && size.back() == 'K') bytes <<= 10;
    if (!size.empty() && size.back() == 'M') bytes <<= 20;
    return bytes;
  }
  return 0;
}

}  // namespace

std::string_view NameOf(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDot:
      return "neondot";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "?";
}

std::vector<Isa> AvailableIsas() {
  std::vector<Isa> isas = {Isa::kScalar};
#if defined(__x86_64__)
  const X86Features f = DetectX86();
  if (f.avx2 && f.fma && f.f16c) {
    isas.push_back(Isa::kAvx2);
    if (f.avx_vnni) isas.push_back(Isa::kAvxVnni);
    if (f.vnni) {
      isas.push_back(Isa::kAvx512);
      if (f.bf16) isas.push_back(Isa::kAvx512Bf16);
      // All processors with AMX have FP16 and BF16 vectors and VBMI too; the kernels use them.
      const bool amx = f.amx_tile && f.amx_int8 && f.amx_bf16 && f.bf16 && f.fp16 && f.vbmi;
      if (amx && AmxPermitted()) isas.push_back(Isa::kAmx);
    }
  }
#elif defined(__aarch64__)
  isas.push_back(Isa::kNeon);
  if (HasDotProducts()) isas.push_back(Isa::kNeonDot);
#endif
  return isas;
}

Result<Isa> ChooseIsa() {
  const std::vector<Isa> isas = AvailableIsas();
  const char* wanted = std::getenv("KVASIR_ISA");
  if (wanted == nullptr || *wanted == '\0') return isas.back();
  std::string have;
  for (const Isa isa : isas) {
    if (NameOf(isa) == wanted) return isa;
    if (!have.empty()) have += ", ";
    have += NameOf(isa);
  }
  return FlagError("KVASIR_ISA is '{}'; this machine has {}",
                   std::string_view(wanted).substr(0, 40), have);
}

CpuInfo ReadCpuInfo() {
  CpuInfo info;
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line) && info.model.empty();) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) {
      info.model = line.substr(line.find(": ") + 2);
    }
  }
#if defined(__x86_64__)
  const X86Features f = DetectX86();
  const std::pair<const char*, bool> features[] = {
      {"avx2", f.avx2},         {"fma", f.fma},           {"f16c", f.f16c},
      {"avx_vnni", f.avx_vnni}, {"avx512", f.avx512},     {"avx512_vnni", f.vnni},
      {"avx512_vbmi", f.vbmi},  {"avx512_bf16", f.bf16},  {"avx512_fp16", f.fp16},
      {"amx_tile", f.amx_tile}, {"amx_int8", f.amx_int8}, {"amx_bf16", f.amx_bf16}};
  for (const auto& [name, has] : features) {
    if (has) info.features.emplace_back(name);
  }
#elif defined(__aarch64__)
  info.features.emplace_back("neon");
  if (HasDotProducts()) info.features.emplace_back("dotprod");
#endif
  info.logical = static_cast<int>(AllowedCpus(OwnAffinity).size());
  info.physical = static_cast<int>(PhysicalCpus().size());
  info.l1d_bytes = CacheBytes(1);
  info.l2_bytes = CacheBytes(2);
  info.l3_bytes = CacheBytes(3);
  return info;
}

std::vector<int> AllowedCpus(const ReadAffinity& read) {
  // The system refuses a set with less room than it has processors, and does not say how many.
  constexpr int kFirst = CPU_SETSIZE, kMost = 1 << 20;
  for (int room = kFirst; room <= kMost; room *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(room),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(room);
    CPU_ZERO_S(bytes, set.get());
    if (read(bytes, set.get()) != 0) {
      if (errno == EINVAL) continue;
      break;
    }
    std::vector<int> cpus;
    for (int cpu = 0; cpu < room; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set.get())) cpus.push_back(cpu);
    }
    return cpus;
  }
  return {0};
}

std::optional<int> CgroupCpus(const std::string& root) {
  std::optional<int> least;
  for (const CgroupLevel& level : CgroupLevels("cpu", root)) {
    const std::optional<double> quota = CpuQuota(level);
    if (!quota) continue;
    // Bounded before the cast: a quota may be any number.
    const int cpus = static_cast<int>(std::clamp(std::ceil(*quota), 1.0, 1e6));
    least = std::min(least.value_or(cpus), cpus);
  }
  return least;
}

std::vector<int> AllowedCores() {
  std::vector<int> cpus;
  std::set<std::string> cores;
  for (const int cpu : AllowedCpus(OwnAffinity)) {
    // Hardware threads of one core share this list; the first of them stands for the core.
    std::string core = ReadFirstLine("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                     "/topology/thread_siblings_list");
    if (core.empty()) core = std::to_string(cpu);
    if (cores.insert(core).second) cpus.push_back(cpu);
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

std::vector<int> PhysicalCpus() {
  std::vector<int> cpus = AllowedCores();
  const std::optional<int> limit = CgroupCpus();
  if (limit && cpus.size() > static_cast<size_t>(*limit)) cpus.resize(*limit);
  return cpus;
}

}  // namespace kvasir
