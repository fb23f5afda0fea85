#include <immintrin.h>

#include "backend/cpu/emulated_kernels.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// The products of AVX-512, and of AVX512-BF16, with AVX2's instructions, so that machines without
// them test them too. Compiled as the kernels are: only intrinsics and this namespace.
namespace kvasir::emulated {
namespace {

#include "backend/cpu/emulated_avx512-inl.h"

#include "backend/cpu/matmul_avx512-inl.h"
#include "backend/cpu/matmul_avx512bf16-inl.h"
#include "backend/cpu/matmul_blocks_avx512-inl.h"

constexpr MatMulKernels Kernels() {
  return WithVnniPanels({.quantize = avx2::QuantizeRow, .quantize_blocks = QuantizeBlocks});
}
constexpr MatMulKernels KernelsInPairs() {
  MatMulKernels kernels = Kernels();
  kernels.panels[static_cast<int>(PackFormat::kBF16)] = PairPanels;
  kernels.to_pairs = PairsOf;
  return kernels;
}

}  // namespace

constinit const MatMulKernels kVnni512 = Kernels();
constinit const MatMulKernels kPairs = KernelsInPairs();

}  // namespace kvasir::emulated
