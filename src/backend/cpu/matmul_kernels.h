#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

/// Arguments of a product of some rows with consecutive panels of a packed matrix (pack.h). A leaf:
/// pointers and strides only.
struct PanelArgs {
  const uint8_t* weights = nullptr;  ///< the first panel
  size_t panel_bytes = 0;
  int64_t k = 0;  ///< inputs
  int32_t panels = 0;
  int64_t columns = 0;  ///< valid output columns from the first panel on
  int64_t rows = 0;
  // Quantized formats: the activations as QuantizeRow made them, consecutive rows.
  const int8_t* q = nullptr;     ///< [rows][k]
  const int16_t* q16 = nullptr;  ///< the same, widened
  const float* d = nullptr;      ///< [rows][k / 32]
  const int32_t* sum = nullptr;  ///< [rows][k / 32][2]
  // Float formats: the activations as they are.
  const float* x = nullptr;
  int64_t x_stride = 0;
  // out[r][c] = product (+ bias[c]) (+ what was there, with add)
  float* out = nullptr;
  int64_t out_stride = 0;
  const float* bias = nullptr;
  bool add = false;
};

/// The kernels of one instruction set. One arithmetic, which the scalar kernels define and every
/// other set repeats bit for bit:
///   quantized: acc = 0; for each group of 32 inputs in order (for each half of it, where the
///   format
///     has scales for halves): acc = fma(float(sum of q_w * q_x), d_w * d_x, acc), and with a
///     minimum then acc = fma(m_w, d_x * float(sum of q_x), acc). The inner sums are exact
///     integers.
///   floats: acc = 0; for each input in order acc = fma(w, x, acc).
///   Then acc + bias, then (what was there) + that.
struct MatMulKernels {
  using Quantize = void (*)(const float* x, int64_t k, int8_t* q, int16_t* q16, float* d,
                            int32_t* sum);
  using Panels = void (*)(const PanelArgs&);
  /// One row of k inputs (a multiple of 32) to int8 with a scale for each group of 32:
  /// d = max|x| / 127, q = x * (127 / max|x|) rounded to nearest even; sums of q for each half.
  /// A group with a NaN or an infinity gets d = NaN, so that it shows in every product.
  Quantize quantize = nullptr;
  Panels panels[12] = {};  ///< by PackFormat
  /// The limits of the arithmetic: `rounds` rounds of multiply-adds on registers alone, of int8 and
  /// of f32. Returns the operations done, two for each multiply-add.
  using Peak = uint64_t (*)(int64_t rounds);
  Peak int8_peak = nullptr, float_peak = nullptr;
};

namespace scalar {
extern const MatMulKernels kMatMul;
}
#if defined(__x86_64__)
namespace avx2 {
extern const MatMulKernels kMatMul;
/// Shared with the wider sets: a row is quantized once, at the speed of memory.
void QuantizeRow(const float* x, int64_t k, int8_t* q, int16_t* q16, float* d, int32_t* sum);
}  // namespace avx2
namespace avx512 {
extern const MatMulKernels kMatMul;
}
namespace amx {
extern const MatMulKernels kMatMul;
}
#elif defined(__aarch64__)
namespace neon {
extern const MatMulKernels kMatMul;
}
#endif

}  // namespace kvasir
