#include "app/terminal.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "app/signal_event.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

std::atomic<int> g_interrupts{0};
SignalEvent g_interrupted;
int g_interrupt_scopes = 0;
std::atomic<int> g_output_error{0};
struct sigaction g_before;

termios g_kept;  // how the terminal was before KeepTerminal
std::atomic<bool> g_keeping{false};
const char* g_undo = "";
termios g_shown, g_no_echo;  // and before and in NoEcho
std::atomic<bool> g_hidden{false};

/// Not from the background, where the terminal is another program's.
bool InForeground() { return tcgetpgrp(STDIN_FILENO) == getpgrp(); }

/// In signal handlers, before they end the program.
void LeaveTerminal() {
  if (!g_keeping.exchange(false) || !InForeground()) return;
  tcsetattr(STDIN_FILENO, TCSANOW, &g_kept);
  // Not where a terminal that nobody reads would keep us from ending.
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  if (poll(&out, 1, 0) == 1 && write(STDOUT_FILENO, g_undo, std::strlen(g_undo)) < 0) return;
}

extern "C" void OnInterrupt(int) {
  if (g_interrupts.fetch_add(1) < 1) {
    g_interrupted.Set();
    return;
  }
  LeaveTerminal();
  _exit(130);
}

struct sigaction g_continue_before;

/// After Ctrl-Z and fg, while NoEcho lives: the shell has made the terminal show what is typed.
extern "C" void OnContinue(int signal_number) {
  const int before = errno;
  if (g_hidden && InForeground()) tcsetattr(STDIN_FILENO, TCSANOW, &g_no_echo);
  errno = before;
  const auto other = g_continue_before.sa_handler;
  if (other != SIG_DFL && other != SIG_IGN) other(signal_number);
}

/// Ends the program as the signal would have.
extern "C" void OnEnd(int signal_number) {
  LeaveTerminal();
  signal(signal_number, SIG_DFL);
  raise(signal_number);
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

size_t CharactersIn(std::string_view utf8) {
  return static_cast<size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

bool StdinIsTerminal() { return isatty(STDIN_FILENO) == 1; }
bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) == 1; }
bool StderrIsTerminal() { return isatty(STDERR_FILENO) == 1; }

bool StdoutKnowsSequences() {
  const char* kind = std::getenv("TERM");
  return StdoutIsTerminal() && kind != nullptr && std::string_view(kind) != "dumb";
}

bool UseColor() {
  const char* no = std::getenv("NO_COLOR");
  return StdoutKnowsSequences() && (no == nullptr || no[0] == '\0');
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

int TerminalColumns(int fd) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string ProgressLine(std::string_view label, uint64_t done, uint64_t total, int columns) {
  constexpr int kWidest = 30, kNarrowest = 4;
  const std::string percent = fmt::format(
      "{:3}%", static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total)));
  const int room = columns - 1 - static_cast<int>(percent.size());  // the last column would wrap
  if (room < 0) return "";
  const int bar = std::min(kWidest, room - static_cast<int>(CharactersIn(label)) - 2);
  if (bar < kNarrowest) return percent;
  const auto filled = static_cast<int>(static_cast<double>(bar) * static_cast<double>(done) /
                                       static_cast<double>(total));
  std::string out = fmt::format("{} ", label);
  for (int i = 0; i < bar; ++i) out += i < filled ? "█" : "░";
  return out + " " + percent;
}

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), start_ns_(SteadyClock().NowNs()) {}
ProgressBar::~ProgressBar() { Clear(); }

void ProgressBar::Update(uint64_t done, uint64_t total) {
  if (!StderrIsTerminal() || total == 0) return;
  const int64_t now = SteadyClock().NowNs();
  if (now - start_ns_ < kShowAfterNs || now - last_ns_ < kRefreshNs) return;
  last_ns_ = now;
  Clear();  // the window may be narrower now, and the line shorter
  const std::string line =
      ProgressLine(label_, std::min(done, total), total, TerminalColumns(STDERR_FILENO));
  WriteErr(line);
  shown_columns_ = CharactersIn(line);
}

void ProgressBar::Clear() {
  if (shown_columns_ > 0) WriteErr("\r" + std::string(shown_columns_, ' ') + "\r");
  shown_columns_ = 0;
}

InterruptScope::InterruptScope() {
  if (g_interrupt_scopes++ > 0) return;
  g_interrupted.Open();
  Take();
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &g_before);
}
InterruptScope::~InterruptScope() {
  if (--g_interrupt_scopes == 0) sigaction(SIGINT, &g_before, nullptr);
}
bool InterruptScope::Pending() {
  if (g_interrupts > 0) return true;
  // One that was taken before its handler came to write would wake for ever.
  g_interrupted.Take();
  return g_interrupts > 0;
}
bool InterruptScope::Take() { return Pending() && g_interrupts.exchange(0) > 0; }
int InterruptScope::Waits() { return g_interrupted.descriptor(); }

constexpr int kEnds[] = {SIGTERM, SIGQUIT, SIGHUP};

KeepTerminal::KeepTerminal(const char* undo) {
  if (tcgetattr(STDIN_FILENO, &g_kept) != 0) return;
  g_undo = undo;
  g_keeping = true;
  for (const int end : kEnds) {
    if (signal(end, OnEnd) == SIG_IGN) signal(end, SIG_IGN);  // of nohup
  }
}
KeepTerminal::~KeepTerminal() {
  g_keeping = false;
  for (const int end : kEnds) {
    if (signal(end, SIG_DFL) == SIG_IGN) signal(end, SIG_IGN);
  }
}

NoEcho::NoEcho() {
  if (!InForeground() || tcgetattr(STDIN_FILENO, &g_shown) != 0) return;
  g_no_echo = g_shown;
  g_no_echo.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  struct sigaction action {};
  action.sa_handler = OnContinue;
  action.sa_flags = SA_RESTART;
  sigaction(SIGCONT, &action, &g_continue_before);
  g_hidden = true;
  tcsetattr(STDIN_FILENO, TCSANOW, &g_no_echo);
}
NoEcho::~NoEcho() {
  if (!g_hidden.exchange(false)) return;
  sigaction(SIGCONT, &g_continue_before, nullptr);
  tcsetattr(STDIN_FILENO, TCSANOW, &g_shown);
}

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
