// The probes of `kvasir bench kernel` beside what others measure: the kernels of STREAM (McCalpin,
// "Memory bandwidth and machine balance in current high performance computers", 1995) and products
// by oneDNN. By hand, where libdnnl-dev is installed:
//
//   OMP_NUM_THREADS=2 build/cross_check

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "backend/cpu/probe.h"
#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/cpu.h"

namespace kvasir {
namespace {

constexpr int kRuns = 10;

/// Seconds of the fastest run.
template <typename F>
double Best(const F& run) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRuns; ++i) {
    const int64_t begin = SteadyClock().NowNs();
    run();
    best = std::min(best, SecondsBetween(begin, SteadyClock().NowNs()));
  }
  return best;
}

/// Three arrays of f64, far larger than caches, as STREAM has them; bytes as STREAM counts them.
void Stream(ThreadPool* pool) {
  constexpr size_t kCount = size_t{64} << 20;
  auto memory =
      AlignedBuffer::Allocate(3 * kCount * sizeof(double), MemoryOwner::kScratch, "STREAM");
  CHECK(memory.ok());
  double* const a = memory->as<double>();
  double* const b = a + kCount;
  double* const c = b + kCount;
  const auto time = [&](const char* name, double arrays, auto&& element) {
    const double seconds = Best([&] {
      pool->Run([&](int worker) {
        const Range range = Split(kCount, worker, pool->size());
        for (size_t i = range.begin; i < range.end; ++i) element(i);
      });
    });
    fmt::print("STREAM {:<6} {:6.1f} GB/s\n", name,
               arrays * kCount * sizeof(double) / seconds / 1e9);
  };
  time("Copy", 2, [=](size_t i) { c[i] = a[i]; });
  time("Scale", 2, [=](size_t i) { b[i] = 3.0 * c[i]; });
  time("Add", 3, [=](size_t i) { c[i] = a[i] + b[i]; });
  time("Triad", 3, [=](size_t i) { a[i] = b[i] + 3.0 * c[i]; });
}

/// A product of 512 rows, weights in the layout that oneDNN likes best.
void Product(const char* name, dnnl::memory::data_type x_type, dnnl::memory::data_type w_type,
             dnnl::memory::data_type y_type) {
  using dnnl::memory;
  constexpr int64_t kRows = 512, kInputs = 2048, kOutputs = 8192;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x_desc({kRows, kInputs}, x_type, memory::format_tag::ab);
  const memory::desc w_desc({kInputs, kOutputs}, w_type, memory::format_tag::any);
  const memory::desc y_desc({kRows, kOutputs}, y_type, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc plan({x_desc, w_desc, y_desc}, engine);
  memory x(plan.src_desc(), engine), w(plan.weights_desc(), engine), y(plan.dst_desc(), engine);
  for (memory* m : {&x, &w}) std::memset(m->get_data_handle(), 1, m->get_desc().get_size());
  const dnnl::matmul product(plan);
  const double seconds = Best([&] {
    product.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
    stream.wait();
  });
  fmt::print("oneDNN {:<6} {:6.0f} GOP/s ({})\n", name,
             2.0 * kRows * kInputs * kOutputs / seconds / 1e9, plan.impl_info_str());
}

int Main() {
  const Result<Isa> isa = ChooseIsa();
  CHECK(isa.ok());
  ThreadPool pool(static_cast<int>(PhysicalCpus().size()));
  const Result<double> bandwidth = ReadBandwidthProbe(&pool, &SteadyClock(), size_t{2} << 30);
  CHECK(bandwidth.ok());
  const PeakRates peak = PeakProbe(*isa, &pool, &SteadyClock());
  fmt::print(
      "probes, {} threads, {}: reads {:.1f} GB/s, int8 {:.0f}, f32 {:.0f}, bf16 {:.0f} "
      "GOP/s\n",
      pool.size(), NameOf(*isa), *bandwidth, peak.int8_gops, peak.float_gops, peak.bf16_gops);
  Stream(&pool);
  using Type = dnnl::memory::data_type;
  Product("int8", Type::u8, Type::s8, Type::s32);
  Product("f32", Type::f32, Type::f32, Type::f32);
  if (peak.bf16_gops > 0) Product("bf16", Type::bf16, Type::bf16, Type::f32);
  return 0;
}

}  // namespace
}  // namespace kvasir

int main() { return kvasir::Main(); }
