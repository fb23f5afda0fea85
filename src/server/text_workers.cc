#include "server/text_workers.h"

#include <sys/resource.h>
#include <unistd.h>

#include <new>
#include <utility>

namespace kvasir {
namespace {

/// Nice value of the workers: about a tenth of the processor beside a busy thread of nice 0.
constexpr int kNice = 10;

}  // namespace

TextWorkers::TextWorkers() {
  try {
    threads_[0] = std::thread([this] { Work(true); });
    threads_[1] = std::thread([this] { Work(false); });
  } catch (...) {  // the system gave only one
    End();
    throw;
  }
}

TextWorkers::~TextWorkers() { End(); }

void TextWorkers::End() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) {
    if (t.joinable()) t.join();
  }
}

bool TextWorkers::Run(size_t bytes, std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (short_.size() + long_.size() >= kMostJobs || (bytes_ > 0 && bytes_ + bytes > kMostBytes))
      return false;
    bytes_ += bytes;
    (bytes <= kShort ? short_ : long_).push_back({bytes, std::move(job)});
  }
  wake_.notify_all();
  return true;
}

void TextWorkers::Work(bool short_only) {
  // Linux: a thread's own nice value. Where it is refused the work is right all the same.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || !short_.empty() || (!short_only && !long_.empty()); });
      if (stop_) return;
      // The other thread takes long ones first: short ones have a thread of their own.
      std::deque<Job>& queue = !short_only && !long_.empty() ? long_ : short_;
      job = std::move(queue.front());
      queue.pop_front();
      bytes_ -= job.bytes;
    }
    try {
      job.run();
    } catch (const std::bad_alloc&) {
      // With the job goes the last hold of its reply, which is answered 500.
    }
  }
}

}  // namespace kvasir
