#include "backend/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "backend/cpu/cpu_matmul.h"
#include "backend/cpu/matmul_kernels.h"
#include "backend/cpu/pack.h"
#include "base/aligned_buffer.h"

namespace kvasir {

Result<double> ReadBandwidthProbe(ThreadPool* pool, const Clock* clock, size_t bytes) {
  KV_ASSIGN(const AlignedBuffer buffer,
            AlignedBuffer::Allocate(bytes, MemoryOwner::kProbe, "the bandwidth probe"));
  const int threads = pool->size();
  const size_t words = bytes / sizeof(uint64_t);
  const uint64_t* data = buffer.as<uint64_t>();
  std::atomic<uint64_t> sink{0};
  const auto pass = [&](int worker) {
    const Range range = Split(words / 32, worker, threads);
    uint64_t sum[4] = {0, 0, 0, 0};  // four chains, so that adding is not the limit
    for (size_t i = range.begin; i < range.end; ++i) {
      for (size_t j = 0; j < 32; j += 4) {
        for (size_t k = 0; k < 4; ++k) sum[k] += data[i * 32 + j + k];
      }
    }
    sink += sum[0] + sum[1] + sum[2] + sum[3];
  };
  const CallerStays stays(*pool);
  // Pages come into being when written, each on the thread that will read it.
  pool->Run([&](int worker) {
    const Range range = Split(words / 32, worker, threads);
    std::memset(buffer.data() + range.begin * 256, 1, (range.end - range.begin) * 256);
  });
  double best = 0;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const int64_t start = clock->NowNs();
    pool->Run(pass);
    const double seconds = SecondsBetween(start, clock->NowNs());
    best = std::max(best, static_cast<double>(bytes) / seconds * 1e-9);
  }
  return best;
}

Result<double> ReadBandwidthProbe(int threads, const Clock* clock, size_t bytes) {
  ThreadPool pool(threads);
  return ReadBandwidthProbe(&pool, clock, bytes);
}

double PeakRates::Products(DType weights, bool fast) const {
  if (IsQuantized(PackFormatOf(weights))) return tiles && !fast ? bf16_gops : int8_gops;
  return weights == DType::kBF16 && bf16_gops > 0 ? bf16_gops : float_gops;
}

PeakRates PeakProbe(Isa isa, ThreadPool* pool, const Clock* clock) {
  const MatMulKernels& kernels = MatMulKernelsFor(isa);
  const CallerStays stays(*pool);
  const auto rate = [&](MatMulKernels::Peak peak) {
    constexpr int64_t kRounds = 200'000;  // some milliseconds
    double best = 0;
    for (int repeat = 0; repeat < 8; ++repeat) {
      std::atomic<uint64_t> ops{0};
      const int64_t start = clock->NowNs();
      pool->Run([&](int) { ops += peak(kRounds); });
      const double seconds = SecondsBetween(start, clock->NowNs());
      best = std::max(best, static_cast<double>(ops) / seconds * 1e-9);
    }
    return best;
  };
  return {rate(kernels.int8_peak), rate(kernels.float_peak),
          kernels.bf16_peak == nullptr ? 0 : rate(kernels.bf16_peak), kernels.to_tiles != nullptr};
}

PeakRates PeakProbe(Isa isa, int threads, const Clock* clock) {
  ThreadPool pool(threads);
  return PeakProbe(isa, &pool, clock);
}

}  // namespace kvasir
