#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx512 {
namespace {

#include "backend/cpu/matmul_avx512-inl.h"
#include "backend/cpu/matmul_blocks_avx512-inl.h"
#include "backend/cpu/peaks_avx512-inl.h"

uint64_t Int8Peak(int64_t rounds) {
  PeakLoop(rounds, _mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_set1_epi8(2),
           [](__m512i v, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(v, a, b); });
  return static_cast<uint64_t>(rounds) * 16 * 64 * 2;
}

}  // namespace

constinit const MatMulKernels kMatMul = WithVnniPanels({.quantize = avx2::QuantizeRow,
                                                        .int8_peak = Int8Peak,
                                                        .float_peak = FloatPeak,
                                                        .quantize_blocks = QuantizeBlocks});

}  // namespace kvasir::avx512
