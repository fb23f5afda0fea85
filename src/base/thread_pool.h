#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

namespace kvasir {

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
/// Workers wait by spinning for a bounded time, then sleep, so that a busy neighbour is not
/// starved.
class ThreadPool {
 public:
  /// `threads` >= 1 workers in all. With `pin`, worker i stays on the i-th processor of `cpus`
  /// (those of PhysicalCpus() when empty). Throws std::system_error where the system gives no
  /// thread.
  explicit ThreadPool(int threads, bool pin = true, std::vector<int> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return threads_; }

  /// Runs fn(0) .. fn(size() - 1), one on each worker, and returns when all are done. What the
  /// first of them throws is thrown then.
  void Run(WorkerFn fn);

 private:
  struct State;
  int threads_;
  std::unique_ptr<State> state_;
};

/// Half-open range of items [begin, end) for one worker when `items` are split evenly.
struct Range {
  size_t begin = 0, end = 0;
};
Range Split(size_t items, int worker, int workers);

}  // namespace kvasir
