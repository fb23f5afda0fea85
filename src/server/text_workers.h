#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_map>

namespace kvasir {

/// Two threads for work on text: templates, tokenizing, large JSON. One of them takes short jobs
/// only, so that a question is not behind a pasted book. Both run at a lower priority than the
/// computation: on a small machine a book would else stall everybody's tokens.
///
/// Each tenant has a queue of its own, and the queues take turns: a tenant's job waits for one job
/// of every other, however many those have.
class TextWorkers {
 public:
  TextWorkers();
  /// Jobs that have not begun are dropped.
  ~TextWorkers();
  TextWorkers(const TextWorkers&) = delete;
  TextWorkers& operator=(const TextWorkers&) = delete;

  /// Runs `job` on another thread; `bytes` of text are worked on, for `tenant` (0: for nobody in
  /// particular). False, and the job is dropped, when too much waits already: a tenant may take as
  /// much of the room as it leaves to others. Any thread. A job may throw no more than
  /// std::bad_alloc, and ends with it.
  [[nodiscard]] bool Run(size_t bytes, std::function<void()> job, uint64_t tenant = 0);
  /// The same for what is computed already and only has to be printed: always taken. There is one
  /// at most for each completion that was taken.
  void RunResult(size_t bytes, std::function<void()> job, uint64_t tenant);

  static constexpr size_t kShort = 32 << 10;       ///< bytes of a short job, at most
  static constexpr size_t kMostJobs = 4096;        ///< that wait, results not counted
  static constexpr size_t kMostBytes = 256 << 20;  ///< of jobs that wait

 private:
  struct Amount {
    size_t jobs = 0, bytes = 0;
  };
  struct Job {
    uint64_t tenant;
    Amount counted;  // nothing for a result
    std::function<void()> run;
  };
  /// The jobs that wait, by tenant, and whose turn it is.
  struct Line {
    std::unordered_map<uint64_t, std::deque<Job>> of;
    std::list<uint64_t> turns;  // those that have a job, each once
    bool empty() const { return turns.empty(); }
    void Push(Job job);
    Job Pop();
  };
  bool HasRoom(uint64_t tenant, size_t bytes) const;
  void Put(size_t bytes, Job job);
  Job Take(bool short_only);
  void Work(bool short_only);
  void End();

  std::mutex mutex_;
  std::condition_variable wake_;
  Line short_, long_;
  std::unordered_map<uint64_t, Amount> waiting_;  // by tenant; of those that have any
  Amount all_;
  bool stop_ = false;
  std::thread threads_[2];
};

}  // namespace kvasir
