#include "server/system_calls.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "base/thread_pool.h"

namespace kvasir {
namespace {

/// Whether a call that returned `result` was refused by the filter.
bool Refused(long result) { return result == -1 && errno == EPERM; }

/// The name of the first call that should have been refused and was not.
const char* NotRefused() {
  char* const arguments[] = {nullptr};
  if (!Refused(execve("/nonexistent", arguments, arguments))) return "execve";
  if (!Refused(fork())) return "fork";
  if (!Refused(socket(AF_INET, SOCK_STREAM, 0))) return "socket";
  if (!Refused(connect(0, nullptr, 0))) return "connect";
  if (!Refused(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr))) return "ptrace";
  if (!Refused(open("/dev/null", O_WRONLY))) return "open to write";
  if (!Refused(open("/tmp/kvasir-system-calls", O_RDONLY | O_CREAT, 0600))) return "open to create";
  if (!Refused(rename("/nonexistent-a", "/nonexistent-b"))) return "rename";
  if (mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
    return "mmap to execute";
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return "(mmap is)";
  if (!Refused(mprotect(page, 4096, PROT_READ | PROT_EXEC))) return "mprotect to execute";
  if (open("/dev/null", O_RDONLY) < 0) return "(open is)";
  CpuMask processors;
  if (sched_getaffinity(0, sizeof(processors), processors.sets) != 0 ||
      sched_setaffinity(0, sizeof(processors), processors.sets) != 0)
    return "(sched_setaffinity is)";
  // By its number it might be any other's.
  if (!Refused(sched_setaffinity(gettid(), sizeof(processors), processors.sets)))
    return "sched_setaffinity of a thread by its number";
  return nullptr;
}

/// In a process that ends by itself: 0 when all was refused, in the thread that asked for it and in
/// one that ran before.
void TryAll(bool removes_socket) {
  std::atomic<bool> filtered = false;
  std::atomic<const char*> other = nullptr;
  std::thread before([&] {
    while (!filtered) std::this_thread::yield();
    other = NotRefused();
  });
  if (!KeepServingCallsOnly(removes_socket).ok()) _exit(2);
  filtered = true;
  before.join();
  for (const char* name : {NotRefused(), other.load()}) {
    if (name == nullptr) continue;
    std::fprintf(stderr, "not refused: %s\n", name);
    _exit(3);
  }
  const bool can_remove = !Refused(unlink("/nonexistent"));
  _exit(can_remove == removes_socket ? 0 : 4);
}

TEST(SystemCallsDeathTest, WhatAServerDoesNotNeedIsRefusedInEveryThread) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(TryAll(false), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(TryAll(true), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace kvasir
