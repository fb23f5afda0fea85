#include "base/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/cpu.h"

namespace kvasir {
namespace {

/// How often a waiting thread looks before it sleeps, at 20 to 40 ns a look. Threads that move:
/// this bridges the gaps between the operations of one step (some microseconds).
constexpr int kSpins = 2000;
/// Each on a core of its own, the caller too: also the time between two steps, and until a worker
/// that was put aside for a neighbour is back. Who sleeps beside a neighbour waits for the end of
/// its time slice, some milliseconds, again and again: decode of SmolLM2 beside a busy loop on the
/// last of two cores ran at 62 tokens/s with 2,000 looks, at 105 with 20,000 and at 116 with
/// 100,000, of 200 alone (2026-11-28, Zen 3, Linux 6.18; bench/neighbour.py). The neighbour has its
/// half of the core all the same.
constexpr int kSpinsInPlace = 20'000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `value` differs from `old`.
template <typename T>
void WaitWhileEqual(const std::atomic<T>& value, T old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

/// Advice: where it is refused (a container, a changed mask) the work is right all the same.
void PinTo(int cpu) {
  CpuMask mask;
  CPU_ZERO_S(sizeof(mask), mask.sets);
  CPU_SET_S(cpu, sizeof(mask), mask.sets);
  sched_setaffinity(0, sizeof(mask), mask.sets);
}

/// Of the calling thread; false where it cannot be read.
bool ReadMask(CpuMask* mask) {
  CPU_ZERO_S(sizeof(*mask), mask->sets);
  return sched_getaffinity(0, sizeof(*mask), mask->sets) == 0;
}

}  // namespace

struct ThreadPool::State {
  std::atomic<int> spins{kSpins};
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
      WaitWhileEqual(round, seen, spins.load(std::memory_order_relaxed));
      seen = round.load(std::memory_order_acquire);
      if (quit.load(std::memory_order_relaxed)) return;
      Call(worker);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads, bool pin)
    : threads_(threads), state_(std::make_unique<State>()) {
  CHECK_GE(threads, 1);
  const std::vector<int> cores = AllowedCores();
  const bool pinned = pin && threads > 1 && static_cast<size_t>(threads) == cores.size();
  if (pinned) callers_cpu_ = cores[0];
  for (int worker = 1; worker < threads; ++worker) {
    const int cpu = pinned ? cores[worker] : -1;
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
    WaitWhileEqual(s.running, left, s.spins.load(std::memory_order_relaxed));
  }
  if (s.failed.exchange(false, std::memory_order_relaxed))
    std::rethrow_exception(std::exchange(s.error, nullptr));
}

CallerStays::CallerStays(ThreadPool& pool) {
  // The mask may have changed since the pool was made, or be this thread's own.
  const int cpu = pool.callers_cpu_;
  if (cpu < 0 || !ReadMask(&before_) || !CPU_ISSET_S(cpu, sizeof(before_), before_.sets)) return;
  pool_ = &pool;
  PinTo(cpu);
  pool.state_->spins.store(kSpinsInPlace, std::memory_order_relaxed);
}
CallerStays::~CallerStays() {
  if (pool_ == nullptr) return;
  pool_->state_->spins.store(kSpins, std::memory_order_relaxed);
  // What somebody else set meanwhile counts.
  CpuMask now;
  if (ReadMask(&now) && CPU_COUNT_S(sizeof(now), now.sets) == 1 &&
      CPU_ISSET_S(pool_->callers_cpu_, sizeof(now), now.sets))
    sched_setaffinity(0, sizeof(before_), before_.sets);
}

Range Split(size_t items, int worker, int workers) {
  const auto w = static_cast<size_t>(worker), n = static_cast<size_t>(workers);
  return {items * w / n, items * (w + 1) / n};
}

}  // namespace kvasir
