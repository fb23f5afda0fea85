// Preloaded before a program: its wall clock is as many seconds ahead as the file
// KVASIR_CLOCK_AHEAD says (an int64_t), at any moment, as when somebody sets the machine's clock.
// The steady clock stays as it is.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

/// Null without the file.
const volatile int64_t* MapAhead() {
  const char* path = std::getenv("KVASIR_CLOCK_AHEAD");
  const int fd = path == nullptr ? -1 : ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  void* p = ::mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  return p == MAP_FAILED ? nullptr : static_cast<const volatile int64_t*>(p);
}

const volatile int64_t* const ahead = MapAhead();

int64_t Ahead() { return ahead == nullptr ? 0 : *ahead; }

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* out) noexcept {
  static const auto real =
      reinterpret_cast<decltype(&::clock_gettime)>(::dlsym(RTLD_NEXT, "clock_gettime"));
  const int result = real(clock, out);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    out->tv_sec += Ahead();
  return result;
}

extern "C" int gettimeofday(timeval* __restrict out, void* __restrict) noexcept {
  timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}

extern "C" time_t time(time_t* out) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}
