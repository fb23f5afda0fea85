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

void TextWorkers::Line::Push(Job job) {
  const uint64_t tenant = job.tenant;
  std::deque<Job>& mine = of[tenant];
  mine.push_back(std::move(job));
  if (mine.size() > 1) return;
  try {
    turns.push_back(tenant);
  } catch (...) {  // a queue without a turn would wait for ever
    of.erase(tenant);
    throw;
  }
}

/// Needs no memory: nobody could say that there is none.
TextWorkers::Job TextWorkers::Line::Pop() {
  const auto it = of.find(turns.front());
  Job job = std::move(it->second.front());
  it->second.pop_front();
  if (it->second.empty()) {
    of.erase(it);
    turns.pop_front();
  } else {
    turns.splice(turns.end(), turns, turns.begin());
  }
  return job;
}

/// So one tenant has half of the room at most, two have a third each, and a newcomer always has
/// some. What is too large for that is taken when nothing else waits.
bool TextWorkers::HasRoom(uint64_t tenant, size_t bytes) const {
  const auto it = waiting_.find(tenant);
  const Amount mine = it == waiting_.end() ? Amount() : it->second;
  if (all_.jobs == 0) return true;
  return mine.jobs + all_.jobs < kMostJobs && mine.bytes + all_.bytes + bytes <= kMostBytes;
}

/// With the mutex held.
void TextWorkers::Put(size_t bytes, Job job) {
  const Amount counted = job.counted;
  Amount* mine = counted.jobs > 0 ? &waiting_[job.tenant] : nullptr;
  (bytes <= kShort ? short_ : long_).Push(std::move(job));
  if (mine == nullptr) return;
  for (Amount* a : {mine, &all_}) {
    a->jobs += counted.jobs;
    a->bytes += counted.bytes;
  }
}

bool TextWorkers::Run(size_t bytes, std::function<void()> job, uint64_t tenant) {
  {
    const std::lock_guard lock(mutex_);
    if (!HasRoom(tenant, bytes)) return false;
    Put(bytes, {.tenant = tenant, .counted = {.jobs = 1, .bytes = bytes}, .run = std::move(job)});
  }
  wake_.notify_all();
  return true;
}

void TextWorkers::RunResult(size_t bytes, std::function<void()> job, uint64_t tenant) {
  {
    const std::lock_guard lock(mutex_);
    Put(bytes, {.tenant = tenant, .counted = {}, .run = std::move(job)});
  }
  wake_.notify_all();
}

/// With the mutex held, and something to take.
TextWorkers::Job TextWorkers::Take(bool short_only) {
  // The other thread takes long ones first: short ones have a thread of their own.
  Job job = (!short_only && !long_.empty() ? long_ : short_).Pop();
  if (job.counted.jobs == 0) return job;
  const auto mine = waiting_.find(job.tenant);
  for (Amount* a : {&mine->second, &all_}) {
    a->jobs -= job.counted.jobs;
    a->bytes -= job.counted.bytes;
  }
  if (mine->second.jobs == 0) waiting_.erase(mine);
  return job;
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
      job = Take(short_only);
    }
    try {
      job.run();
    } catch (const std::bad_alloc&) {
      // With the job goes the last hold of its reply, which is answered 500.
    }
  }
}

}  // namespace kvasir
