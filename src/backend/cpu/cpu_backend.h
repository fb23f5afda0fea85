#pragma once

#include <memory>
#include <optional>

#include "backend/backend.h"
#include "base/cpu.h"

namespace kvasir {

struct CpuBackendOptions {
  int threads = 0;         ///< 0: one for each physical core that the process may use
  bool pin = true;         ///< keep each thread on its core
  std::optional<Isa> isa;  ///< nullopt: ChooseIsa()
  /// The faster mode: quantized weights and their activations as integers with one scale for 256
  /// inputs. Exact in itself, less accurate; AVX-512, AMX and scalar have it.
  bool fast = false;
};

/// The operations on this machine's processor, with the kernels of the best instruction set that it
/// has. An Error when KVASIR_ISA asks for one that it lacks.
Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace kvasir
