#pragma once

#include "base/clock.h"
#include "base/cpu.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "kv/layout.h"
#include "tensor/dtype.h"

namespace kvasir {

/// GB/s (1e9 bytes) at which all threads together read a buffer larger than the caches: the limit
/// of decoding, which reads every weight once a token. Best of a few passes over `bytes`.
Result<double> ReadBandwidthProbe(ThreadPool* pool, const Clock* clock, size_t bytes);
Result<double> ReadBandwidthProbe(int threads, const Clock* clock,
                                  size_t bytes = size_t{512} << 20);

/// GOP/s of all threads together in registers alone, with the instructions that the products
/// of an instruction set use: of int8, of f32, and of bf16 (0 where it has no products of those).
struct PeakRates {
  double int8_gops = 0, float_gops = 0, bf16_gops = 0;
  bool tiles = false;  ///< of bf16 are those of quantized weights too

  /// Of the arithmetic that an instruction set's products with such weights use; `fast`: in the
  /// faster mode.
  double Products(DType weights, bool fast) const;
  /// Of attention over keys and values of this type.
  double Attention(KvDType dtype) const {
    if (dtype == KvDType::kBF16 && bf16_gops > 0) return bf16_gops;
    return dtype == KvDType::kInt8 && tiles ? int8_gops : float_gops;
  }
};
PeakRates PeakProbe(Isa isa, ThreadPool* pool, const Clock* clock);
PeakRates PeakProbe(Isa isa, int threads, const Clock* clock);

}  // namespace kvasir
