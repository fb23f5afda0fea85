#include "backend/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"

namespace kvasir {

Result<double> ReadBandwidthProbe(int threads, const Clock* clock) {
  constexpr size_t kBytes = size_t{512} << 20;
  KV_ASSIGN(const AlignedBuffer buffer,
            AlignedBuffer::Allocate(kBytes, MemoryOwner::kProbe, "the bandwidth probe"));
  ThreadPool pool(threads);
  const size_t words = kBytes / sizeof(uint64_t);
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
  // Pages come into being when written, each on the thread that will read it.
  pool.Run([&](int worker) {
    const Range range = Split(words / 32, worker, threads);
    std::memset(buffer.data() + range.begin * 256, 1, (range.end - range.begin) * 256);
  });
  double best = 0;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const int64_t start = clock->NowNs();
    pool.Run(pass);
    const double seconds = SecondsBetween(start, clock->NowNs());
    best = std::max(best, static_cast<double>(kBytes) / seconds * 1e-9);
  }
  return best;
}

}  // namespace kvasir
