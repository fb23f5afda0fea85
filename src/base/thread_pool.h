#pragma once

#include <sched.h>

#include <cstddef>
#include <memory>
#include <type_traits>

namespace kvasir {

/// An affinity mask with room for 8,192 processors.
struct CpuMask {
  cpu_set_t sets[8];
};

/// A reference to a callable void(int worker), valid during the call it is passed to.
class WorkerFn {
 public:
  template <typename F, typename = std::enable_if_t<!std::is_same_v<std::decay_t<F>, WorkerFn>>>
  WorkerFn(F&& f)  // NOLINT: implicit on purpose
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, int worker) {
          (*static_cast<std::remove_reference_t<F>*>(object))(worker);
        }) {}
  void operator()(int worker) const { call_(object_, worker); }

 private:
  void* object_;
  void (*call_)(void*, int);
};

/// A few threads that run one function together, again and again. The calling thread is worker 0.
/// Workers wait by spinning for a bounded time, then sleep.
class ThreadPool {
 public:
  /// `threads` >= 1 workers in all. With `pin`, and a worker for each of AllowedCores(), worker i
  /// stays on the i-th of them; the caller does as long as a CallerStays lives. Fewer workers may
  /// move: what else counts from the first core on would share theirs. Throws std::system_error
  /// where the system gives no thread.
  explicit ThreadPool(int threads, bool pin = true);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return threads_; }

  /// Runs fn(0) .. fn(size() - 1), one on each worker, and returns when all are done. What the
  /// first of them throws is thrown then.
  void Run(WorkerFn fn);

 private:
  friend class CallerStays;
  struct State;
  int threads_;
  int callers_cpu_ = -1;  // where worker 0 belongs; -1: anywhere
  std::unique_ptr<State> state_;
};

/// While it lives, the calling thread stays where worker 0 of the pool belongs, if it may be there,
/// and the workers wait longer before they sleep; then it may be where it might before. Without it
/// the system moves the caller to another worker's core as soon as a neighbour computes on its own,
/// and of the two each waits for the other. Allocates nothing.
class CallerStays {
 public:
  explicit CallerStays(ThreadPool& pool);
  ~CallerStays();
  CallerStays(const CallerStays&) = delete;
  CallerStays& operator=(const CallerStays&) = delete;

 private:
  ThreadPool* pool_ = nullptr;  // null: nothing was changed
  CpuMask before_;
};

/// Half-open range of items [begin, end) for one worker when `items` are split evenly.
struct Range {
  size_t begin = 0, end = 0;
};
Range Split(size_t items, int worker, int workers);

}  // namespace kvasir
