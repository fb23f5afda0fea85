#include "server/system_calls.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <memory>

namespace kvasir {
namespace {

/// What is allowed whatever its arguments. Names that a machine's kernel does not have are left
/// out.
constexpr int kAllowed[] = {
    // Connections that come to the socket that listens.
    SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(sendto), SCMP_SYS(sendmsg),
    SCMP_SYS(shutdown), SCMP_SYS(close), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(fcntl), SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(poll), SCMP_SYS(ppoll),
    SCMP_SYS(timerfd_settime),
    // Threads that are there, and time.
    SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(getcpu),
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
    SCMP_SYS(time), SCMP_SYS(rseq), SCMP_SYS(getpid), SCMP_SYS(gettid),
    // Memory; what is new may not be executable, see below.
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(getrandom),
    SCMP_SYS(mincore),
    // Files that are read: keys on SIGHUP, what is resident, the time zone.
    SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(pread64),
    SCMP_SYS(sysinfo), SCMP_SYS(getrusage),
    // Signals, and the end.
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall), SCMP_SYS(tgkill), SCMP_SYS(exit), SCMP_SYS(exit_group)};

struct Filter {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  int error = context == nullptr ? -ENOMEM : 0;  ///< the first one

  ~Filter() {
    if (context != nullptr) seccomp_release(context);
  }
  void Allow(int call, std::initializer_list<scmp_arg_cmp> arguments = {}) {
    if (error == 0) {
      error = seccomp_rule_add_array(context, SCMP_ACT_ALLOW, call,
                                     static_cast<unsigned>(arguments.size()), arguments.begin());
    }
  }
};

/// That none of `bits` are set in an argument.
scmp_arg_cmp Without(unsigned argument, uint64_t bits) {
  return {argument, SCMP_CMP_MASKED_EQ, bits, 0};
}

}  // namespace

Status KeepServingCallsOnly(bool removes_socket) {
  Filter filter;
  for (const int call : kAllowed) filter.Allow(call);
  if (removes_socket) {
    filter.Allow(SCMP_SYS(unlink));
    filter.Allow(SCMP_SYS(unlinkat));
  }
  filter.Allow(SCMP_SYS(mmap), {Without(2, PROT_EXEC)});
  filter.Allow(SCMP_SYS(mprotect), {Without(2, PROT_EXEC)});
  constexpr uint64_t kWrites = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;
  filter.Allow(SCMP_SYS(openat), {Without(2, kWrites)});
  // Of the thread itself: where it computes.
  filter.Allow(SCMP_SYS(sched_setaffinity), {{0, SCMP_CMP_EQ, 0, 0}});
  for (const uint64_t request : {FIONBIO, FIONREAD})  // Asio's
    filter.Allow(SCMP_SYS(ioctl), {{1, SCMP_CMP_EQ, request, 0}});
  // Threads that have begun are held to it too.
  if (filter.error == 0) filter.error = seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_TSYNC, 1);
  if (filter.error == 0) filter.error = seccomp_load(filter.context);
  if (filter.error == 0) return {};
  return MakeError(ErrorCode::kIo,
                   "--seccomp: the kernel took no filter of system calls: {}; leave the flag out "
                   "to serve without one",
                   std::strerror(-filter.error));
}

}  // namespace kvasir
