#pragma once

#include <sched.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// Instruction sets for which there are kernels, the faster ones behind the others.
enum class Isa {
  kScalar,      ///< plain C++: what every other one is compared with
  kNeon,        ///< AArch64
  kNeonDot,     ///< AArch64 with FEAT_DotProd
  kAvx2,        ///< AVX2, FMA, F16C
  kAvxVnni,     ///< AVX2's and AVX-VNNI
  kAvx512,      ///< AVX2's and AVX-512 F, BW, DQ, VL, VNNI
  kAvx512Bf16,  ///< AVX-512's and AVX512-BF16
  kAmx,         ///< AVX-512's, AVX512-BF16, AMX-TILE, -INT8 and -BF16, permitted by the kernel
};
std::string_view NameOf(
    Isa isa);  ///< "scalar", "neon", "neondot", "avx2", "avxvnni", "avx512", "avx512bf16", "amx"

/// What this machine's processor and operating system allow (CPUID and XGETBV; AMX asked of the
/// kernel by arch_prctl; on AArch64 AT_HWCAP). Sorted, scalar first.
std::vector<Isa> AvailableIsas();

/// The one to use: KVASIR_ISA if it is set (an Error if unknown or not available here), else the
/// last of AvailableIsas().
Result<Isa> ChooseIsa();

/// Facts for `kvasir doctor`.
struct CpuInfo {
  std::string model;                  ///< as the system names it
  std::vector<std::string> features;  ///< of those Kvasir cares about
  int logical = 0;                    ///< processors that this process may use
  int physical = 0;                   ///< cores among them
  size_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;
};
CpuInfo ReadCpuInfo();

/// As sched_getaffinity(2): fills a set of so many bytes; 0, or -1 with errno.
using ReadAffinity = std::function<int(size_t bytes, cpu_set_t* set)>;
/// The processors in this thread's affinity mask, in order, however many the machine has; just 0
/// where the mask cannot be read.
std::vector<int> AllowedCpus(const ReadAffinity& read);

/// How many processors' time the process's cgroups of every level up to the root allow (v2 cpu.max,
/// v1 cpu.cfs_quota_us), rounded up; nullopt: no limit. `root` is put before every path read, for
/// tests.
std::optional<int> CgroupCpus(const std::string& root = "");

/// One processor number for each physical core in this thread's affinity mask, in order.
std::vector<int> AllowedCores();
/// The first of them, as many as this process may keep busy: at most CgroupCpus().
std::vector<int> PhysicalCpus();

}  // namespace kvasir
