#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace kvasir {

bool StdinIsTerminal();
bool StdoutIsTerminal();
bool StderrIsTerminal();
/// Stdout is a terminal that obeys escape sequences, as all but the simplest (TERM=dumb) do.
bool StdoutKnowsSequences();
/// Colours on stdout: a terminal that knows them, and NO_COLOR is not set (no-color.org).
bool UseColor();

/// `text` for a terminal: control characters other than newline and tab become visible pictures
/// (U+2400 block), so that a model's output cannot move the cursor or change the terminal.
std::string SafeForTerminal(std::string_view text);

/// Writes to stdout at once; false if it cannot (a closed pipe, a full disk).
bool WriteOut(std::string_view text);
/// errno of the first write to stdout that failed, but for a closed pipe, which nobody minds; 0.
int OutputError();
void WriteErr(std::string_view text);
/// One line "kvasir: ..." on stderr.
void PrintError(std::string_view message);

/// Of the terminal at `fd`; one that does not tell has the usual 80.
int TerminalColumns(int fd);

/// "reading ███░░░  50%" in less than `columns` columns: a shorter bar where they are few, then the
/// number alone, then nothing. A line that wraps could not be written over. `done` <= `total` > 0.
std::string ProgressLine(std::string_view label, uint64_t done, uint64_t total, int columns);

/// A progress bar on stderr, if that is a terminal; shown only when the work is long enough to be
/// noticed, and removed when done. Without escape sequences, so that every terminal can show it.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  void Update(uint64_t done, uint64_t total);
  void Clear();

 private:
  std::string label_;
  int64_t start_ns_, last_ns_ = 0;
  size_t shown_columns_ = 0;
};

/// While it lives, Ctrl-C sets a flag instead of ending the program; a second Ctrl-C before the
/// flag was taken ends it with exit code 130. One within another changes nothing.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
  /// True once for each Ctrl-C.
  static bool Take();
  /// True while a Ctrl-C waits to be taken.
  static bool Pending();
  /// For poll: becomes readable with a Ctrl-C, and stays so until Pending finds none; -1: the
  /// system has no descriptor left.
  static int Waits();
};

/// While it lives, a signal that ends the program leaves the terminal as it was when this began,
/// and writes `undo` (lives longer) to stdout. One at a time.
class KeepTerminal {
 public:
  explicit KeepTerminal(const char* undo);
  ~KeepTerminal();
  KeepTerminal(const KeepTerminal&) = delete;
  KeepTerminal& operator=(const KeepTerminal&) = delete;
};

/// While it lives, the terminal at stdin does not show what is typed, which waits to be read.
class NoEcho {
 public:
  NoEcho();
  ~NoEcho();
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;
};

/// "1.2 MiB".
std::string HumanBytes(uint64_t bytes);
std::string HumanCount(double n);  ///< "1.23 G"

}  // namespace kvasir
