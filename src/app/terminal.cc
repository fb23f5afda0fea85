#include "app/terminal.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "text/utf8.h"

namespace kvasir {
namespace {

std::atomic<int> g_interrupts{0};
std::atomic<int> g_output_error{0};
struct sigaction g_before;

extern "C" void OnInterrupt(int) {
  if (g_interrupts.fetch_add(1) >= 1) _exit(130);
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

constexpr int64_t kShowAfterNs = 400'000'000, kRefreshNs = 100'000'000;

}  // namespace

bool StdinIsTerminal() { return isatty(STDIN_FILENO) == 1; }
bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) == 1; }
bool StderrIsTerminal() { return isatty(STDERR_FILENO) == 1; }

bool UseColor() {
  const char* no = std::getenv("NO_COLOR");
  return StdoutIsTerminal() && (no == nullptr || no[0] == '\0');
}

std::string SafeForTerminal(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(i));
    i += static_cast<size_t>(c.bytes);
    if (c.code < 0x20 && c.code != '\n' && c.code != '\t') {
      AppendUtf8(0x2400 + c.code, &out);
    } else if (c.code == 0x7F) {
      AppendUtf8(0x2421, &out);
    } else if (c.code >= 0x80 && c.code < 0xA0) {
      AppendUtf8(0xFFFD, &out);
    } else {
      AppendUtf8(c.code, &out);
    }
  }
  return out;
}

bool WriteOut(std::string_view text) {
  if (WriteAll(STDOUT_FILENO, text)) return true;
  int none = 0;
  if (errno != EPIPE) g_output_error.compare_exchange_strong(none, errno);
  return false;
}
int OutputError() { return g_output_error; }
void WriteErr(std::string_view text) { WriteAll(STDERR_FILENO, text); }

void PrintError(std::string_view message) {
  WriteErr(fmt::format("kvasir: {}\n",
                       StderrIsTerminal() ? SafeForTerminal(message) : std::string(message)));
}

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), start_ns_(SteadyClock().NowNs()) {}
ProgressBar::~ProgressBar() { Clear(); }

void ProgressBar::Update(uint64_t done, uint64_t total) {
  if (!StderrIsTerminal() || total == 0) return;
  const int64_t now = SteadyClock().NowNs();
  if (now - start_ns_ < kShowAfterNs || now - last_ns_ < kRefreshNs) return;
  last_ns_ = now;
  shown_ = true;
  constexpr uint64_t kWidth = 30;
  const uint64_t filled = std::min(done, total) * kWidth / total;
  std::string bar;
  for (uint64_t i = 0; i < kWidth; ++i) bar += i < filled ? "█" : "░";
  WriteErr(fmt::format("\r{} {} {:3}%", label_, bar, std::min(done, total) * 100 / total));
}

void ProgressBar::Clear() {
  if (shown_) WriteErr("\r\033[K");
  shown_ = false;
}

InterruptScope::InterruptScope() {
  g_interrupts = 0;
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &g_before);
}
InterruptScope::~InterruptScope() { sigaction(SIGINT, &g_before, nullptr); }
bool InterruptScope::Take() { return g_interrupts.exchange(0) > 0; }

std::string HumanBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 6; ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string HumanCount(double n) {
  constexpr const char* kUnits[] = {"", " k", " M", " G", " T", " P"};
  int unit = 0;
  for (; n >= 1000 && unit < 5; ++unit) n /= 1000;
  return unit == 0 ? fmt::format("{:.0f}", n) : fmt::format("{:.2f}{}", n, kUnits[unit]);
}

}  // namespace kvasir
