#include "app/prompt.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "app/input.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

constexpr int kPipeWaitMs = 5000;

/// Pipes, sockets (of inetd, ssh) and files; no terminal, and no device as /dev/null is one.
bool StdinHasText() {
  struct stat about {};
  if (fstat(STDIN_FILENO, &about) != 0) return false;
  return S_ISFIFO(about.st_mode) || S_ISSOCK(about.st_mode) || S_ISREG(about.st_mode);
}

/// False: nothing came, and the other end is still open.
bool SomethingComes() {
  pollfd in{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  const int ready = poll(&in, 1, kPipeWaitMs);
  return ready > 0 || (ready < 0 && errno != EINTR);
}

}  // namespace

Result<std::optional<std::string>> ReadPrompt(const std::optional<std::string>& given,
                                              const std::string& file) {
  std::optional<std::string> out = given;
  const auto add = [&](const std::string& text) {
    if (text.empty()) return;
    out = out && !out->empty() ? *out + "\n\n" + text : text;
  };
  if (!file.empty()) {
    KV_ASSIGN(const std::string text, ReadTextFile(file, kMaxInputBytes));
    if (text.empty()) return MakeError(ErrorCode::kInvalid, "{} is empty", file);
    add(text);
  }
  if (file == "-" || !StdinHasText()) return out;
  if (!out) {
    KV_ASSIGN(const std::string text, ReadStdin(kMaxInputBytes));
    if (text.empty()) return MakeError(ErrorCode::kInvalid, "there is no prompt: stdin is empty");
    return std::optional<std::string>(text);
  }
  if (!SomethingComes()) {
    WriteErr(
        fmt::format("kvasir: nothing came from the pipe on stdin in {} s; it is left out (-f - "
                    "waits for it, </dev/null has none)\n",
                    kPipeWaitMs / 1000));
    return out;
  }
  KV_ASSIGN(const std::string text, ReadStdin(kMaxInputBytes));
  add(text);
  return out;
}

}  // namespace kvasir
