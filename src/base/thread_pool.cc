#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/cpu.h"

namespace kvasir {
namespace {

/// How often a waiting thread looks before it sleeps. At about 40 ns a look on current processors
/// this bridges the gaps between the operations of one step (some microseconds), and is far below a
/// scheduler tick, so a thread without work gives its core back at once.
constexpr int kSpins = 2000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `value` differs from `old`.
template <typename T>
void WaitWhileEqual(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

void PinTo(int cpu) {
  cpu_set_t* const set = CPU_ALLOC(cpu + 1);  // a cpu_set_t of its own ends at 1024
  if (set == nullptr) return;
  const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(cpu, bytes, set);
  // Advice: where it is refused (a container, a changed mask) the work is right all the same.
  pthread_setaffinity_np(pthread_self(), bytes, set);
  CPU_FREE(set);
}

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> threads;
  const WorkerFn* fn = nullptr;
  std::atomic<uint32_t> round{0};  // odd or even does not matter: it changes with every Run
  std::atomic<int> running{0};
  std::atomic<bool> quit{false}, failed{false};
  std::exception_ptr error;  // of whoever set `failed`

  // Here, not in the pool's: a thread that cannot be started leaves the others to be ended.
  ~State() {
    quit.store(true, std::memory_order_relaxed);
    round.fetch_add(1, std::memory_order_acq_rel);
    round.notify_all();
    for (std::thread& t : threads) t.join();
  }

  void Call(int worker) {
    try {
      (*fn)(worker);
    } catch (...) {
      if (!failed.exchange(true, std::memory_order_relaxed)) error = std::current_exception();
    }
  }

  void Work(int worker) {
    uint32_t seen = 0;
    while (true) {
      WaitWhileEqual(round, seen);
      seen = round.load(std::memory_order_acquire);
      if (quit.load(std::memory_order_relaxed)) return;
      Call(worker);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads, bool pin, std::vector<int> cpus)
    : threads_(threads), state_(std::make_unique<State>()) {
  CHECK_GE(threads, 1);
  if (cpus.empty()) cpus = PhysicalCpus();
  // More threads than cores: pinning would stack them on one core while another is idle.
  const bool pinned = pin && static_cast<size_t>(threads) <= cpus.size() && threads > 1;
  for (int worker = 1; worker < threads; ++worker) {
    const int cpu = pinned ? cpus[worker] : -1;
    state_->threads.emplace_back([state = state_.get(), worker, cpu] {
      if (cpu >= 0) PinTo(cpu);
      state->Work(worker);
    });
  }
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::Run(WorkerFn fn) {
  State& s = *state_;
  s.fn = &fn;
  if (threads_ > 1) {
    s.running.store(threads_ - 1, std::memory_order_relaxed);
    s.round.fetch_add(1, std::memory_order_acq_rel);
    s.round.notify_all();
  }
  s.Call(0);
  for (int left = s.running.load(std::memory_order_acquire); left != 0;
       left = s.running.load(std::memory_order_acquire)) {
    WaitWhileEqual(s.running, left);
  }
  if (s.failed.exchange(false, std::memory_order_relaxed))
    std::rethrow_exception(std::exchange(s.error, nullptr));
}

Range Split(size_t items, int worker, int workers) {
  const auto w = static_cast<size_t>(worker), n = static_cast<size_t>(workers);
  return {items * w / n, items * (w + 1) / n};
}

}  // namespace kvasir
