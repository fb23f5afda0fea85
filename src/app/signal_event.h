#pragma once

#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>

namespace kvasir {

/// What a signal's handler sets, and a thread that waits in poll sees whenever the signal came:
/// also just before it waits, or on another thread.
class SignalEvent {
 public:
  /// Before the handler may run; again changes nothing. Where the system has no descriptor left,
  /// what is set is not seen.
  void Open() {
    if (fd_ < 0) fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  }
  /// In the handler.
  void Set() {
    const int before = errno;
    eventfd_write(fd_, 1);
    errno = before;
  }
  /// True if it was set since the last call. Changes errno.
  bool Take() {
    eventfd_t ignored = 0;
    return eventfd_read(fd_, &ignored) == 0;
  }
  /// Readable while Take would be true; -1: none.
  int descriptor() const { return fd_; }

 private:
  std::atomic<int> fd_{-1};
};

}  // namespace kvasir
