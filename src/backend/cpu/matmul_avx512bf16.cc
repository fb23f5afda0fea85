#include <immintrin.h>

#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"

// Only intrinsics and this namespace: nothing compiled here may replace a baseline function.
namespace kvasir::avx512bf16 {
namespace {

#include "backend/cpu/matmul_avx512-inl.h"

#include "backend/cpu/matmul_avx512bf16-inl.h"
#include "backend/cpu/peaks_avx512-inl.h"

}  // namespace

void Panels(const PanelArgs& a) { PairPanels(a); }

void ToPairs(const float* x, int64_t k, uint8_t* out) { PairsOf(x, k, out); }

uint64_t Bf16Peak(int64_t rounds) {
  PeakLoop(rounds, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), _mm512_set1_ps(2),
           [](__m512 v, __m512 a, __m512 b) {
             return AddPairs(v, _mm512_castps_si512(a), _mm512_castps_si512(b));
           });
  return static_cast<uint64_t>(rounds) * 16 * 32 * 2;
}

}  // namespace kvasir::avx512bf16
