#pragma once

#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/probe.h"
#include "kv/layout.h"
#include "tensor/dtype.h"

namespace kvasir {

struct KernelBenchOptions {
  int threads = 0;         ///< 0: one for each physical core
  int64_t inputs = 2048;   ///< of a product: k
  int64_t outputs = 8192;  ///< n
  std::vector<int32_t> rows = {1, 8, 32, 128, 512, 2048};
  std::vector<DType> formats = {DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ5_K,
                                DType::kQ6_K, DType::kQ8_0, DType::kBF16, DType::kF16};
  /// The output head and, as its transpose, the embedding: so many tokens, in those of `formats`
  /// that files have for it.
  int64_t vocab = 128'256;
  std::vector<int32_t> head_rows = {1, 8, 32};
  std::vector<DType> head_formats = {DType::kQ6_K, DType::kQ8_0, DType::kBF16};
  std::vector<KvDType> kv_dtypes = {KvDType::kBF16, KvDType::kF16, KvDType::kInt8};
  std::vector<int32_t> contexts = {512, 8192};
  int32_t heads = 32, kv_heads = 8, head_dim = 64;  ///< the 1B shape
  bool probes_only = false;                         ///< no rows
  bool fast = false;                                ///< products of the faster mode
};

/// One operation, best of several runs.
struct KernelBenchRow {
  std::string op;    ///< "matmul", "attention" ...
  std::string what;  ///< weight format or KV type, and context
  int32_t rows = 0;
  double us = 0;
  double gops = 0, gb_s = 0;  ///< arithmetic operations and bytes of weights, keys and values
  /// The time that the probes' limits allow, the larger of bytes over bandwidth and operations over
  /// the peak, as a share of the time taken; 0 where neither is the limit.
  double limit_pct = 0;
};

struct KernelBench {
  std::string backend;
  double bandwidth_gb_s = 0;
  PeakRates peak;
  std::vector<KernelBenchRow> rows;
};

/// Measures the probes and each operation of the forward pass, one after the other.
Result<KernelBench> RunKernelBench(const KernelBenchOptions& options);

}  // namespace kvasir
