#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx512 {
namespace {

#include "backend/cpu/matmul_avx512-inl.h"

template <PackFormat F>
void Panels(const PanelArgs& a) {
  for (int32_t p = 0; p < a.panels; ++p) {
    VnniPanel<F>(a, a.weights + static_cast<size_t>(p) * a.panel_bytes, p * 16, 0);
  }
}

}  // namespace

const MatMulKernels kMatMul = {
    avx2::QuantizeRow,
    {FloatPanels<PackFormat::kF32>, FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
     Panels<PackFormat::kQ4>, Panels<PackFormat::kQ4M>, Panels<PackFormat::kQ4K>,
     Panels<PackFormat::kQ8>, Panels<PackFormat::kQ8M>, Panels<PackFormat::kQ8F>,
     Panels<PackFormat::kQ8FM>, Panels<PackFormat::kQ8F2>, Panels<PackFormat::kQ8FM2>}};

}  // namespace kvasir::avx512
