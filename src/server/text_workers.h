#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace kvasir {

/// Two threads for work on text: templates, tokenizing, large JSON. One of them takes short jobs
/// only, so that a question is not behind a pasted book. Both run at a lower priority than the
/// computation: on a small machine a book would else stall everybody's tokens.
class TextWorkers {
 public:
  TextWorkers();
  /// Jobs that have not begun are dropped.
  ~TextWorkers();
  TextWorkers(const TextWorkers&) = delete;
  TextWorkers& operator=(const TextWorkers&) = delete;

  /// Runs `job` on another thread; `bytes` of text are worked on. False, and the job is dropped,
  /// when too much waits already. Any thread. A job may throw no more
  /// than std::bad_alloc, and ends with it.
  [[nodiscard]] bool Run(size_t bytes, std::function<void()> job);

  static constexpr size_t kShort = 32 << 10;       ///< bytes of a short job, at most
  static constexpr size_t kMostJobs = 4096;        ///< that wait
  static constexpr size_t kMostBytes = 256 << 20;  ///< of jobs that wait

 private:
  struct Job {
    size_t bytes;
    std::function<void()> run;
  };
  void Work(bool short_only);
  void End();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> short_, long_;
  size_t bytes_ = 0;
  bool stop_ = false;
  std::thread threads_[2];
};

}  // namespace kvasir
