#include "app/line_editor.h"

#include <fmt/format.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <iterator>
#include <string_view>

#include "app/signal_event.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

constexpr int kHistoryEntries = 1000;

/// Between these a terminal sends what is pasted, once it is asked to (xterm's bracketed paste):
/// the lines of it are then no messages of their own, and what they hold is no command to the
/// editor.
constexpr char kPasteOn[] = "\033[?2004h", kPasteOff[] = "\033[?2004l";
constexpr char kPasteBegin[] = "\033[200~";
constexpr char kClearFromRow[] = "\r\033[J";
constexpr std::wstring_view kPasteEnd = L"\033[201~";

bool TerminalKnowsSequences() { return StdinIsTerminal() && StdoutKnowsSequences(); }

SignalEvent g_resized, g_continued;

extern "C" void OnResize(int) { g_resized.Set(); }

extern "C" void OnContinueEditing(int) { g_continued.Set(); }

void HandleWith(int signal_number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal_number, &action, nullptr);
}

/// After Ctrl-Z and fg: the shell has the terminal as it wants it, and has written below the line.
void BeginAgain(EditLine* edit) {
  el_set(edit, EL_PREP_TERM, 0);  // the editor takes it for what it made it
  el_set(edit, EL_PREP_TERM, 1);
  if (TerminalKnowsSequences()) WriteOut(std::string(kPasteOn) + kClearFromRow);
  el_set(edit, EL_REFRESH);
}

/// The line as it wraps in the window of now, in place of the rows that it took. Those that a
/// terminal wraps anew, as most do; others keep some of them.
void DrawAgain(EditLine* edit) {
  el_resize(edit);
  if (!TerminalKnowsSequences()) return;
  char* (*prompt)(EditLine*) = nullptr;
  el_get(edit, EL_PROMPT, &prompt);
  int columns = static_cast<int>(std::strlen(prompt(edit)));
  const LineInfoW* line = el_wline(edit);
  for (const wchar_t* c = line->buffer; c != line->cursor; ++c) columns += std::max(wcwidth(*c), 0);
  const int above = columns / TerminalColumns(STDOUT_FILENO);
  WriteOut((above > 0 ? fmt::format("\033[{}A", above) : "") + kClearFromRow);
  el_set(edit, EL_REFRESH);
}

/// A key: 1, 0 at the end, -1 with errno for an error or Ctrl-C. The editor's own function waits in
/// read(), which does not see a signal that came just before it.
int ReadKey(EditLine* edit, wchar_t* key) {
  std::mbstate_t state{};
  for (;;) {
    pollfd waits[] = {{STDIN_FILENO, POLLIN, 0},
                      {InterruptScope::Waits(), POLLIN, 0},
                      {g_resized.descriptor(), POLLIN, 0},
                      {g_continued.descriptor(), POLLIN, 0}};
    if (poll(waits, std::size(waits), -1) < 0 && errno != EINTR) return -1;
    if (InterruptScope::Pending()) {
      errno = EINTR;
      return -1;
    }
    if (g_resized.Take()) DrawAgain(edit);
    if (g_continued.Take()) BeginAgain(edit);
    if (waits[0].revents == 0) continue;
    char byte = 0;
    const ssize_t n = read(STDIN_FILENO, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return static_cast<int>(n);
    const bool begun = std::mbsinit(&state) == 0;
    size_t used = std::mbrtowc(key, &byte, 1, &state);
    if (used == static_cast<size_t>(-1) && begun) {  // what was cut short is left out, not this
      state = {};
      used = std::mbrtowc(key, &byte, 1, &state);
    }
    if (used <= 1) return 1;
    if (used == static_cast<size_t>(-1)) state = {};
  }
}

/// All up to the end of the paste, into the line as it is.
unsigned char Paste(EditLine* edit, int) {
  std::wstring text;
  wchar_t c = 0;
  while (!text.ends_with(kPasteEnd)) {
    if (el_wgetc(edit, &c) != 1) return CC_EOF;
    text += c == L'\r' ? L'\n' : c;  // as the Enter key
  }
  text.resize(text.size() - kPasteEnd.size());
  return el_winsertstr(edit, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
}

}  // namespace

struct LineEditor::State {
  KeepTerminal keep{TerminalKnowsSequences() ? kPasteOff : ""};
  EditLine* edit = nullptr;
  History* history = nullptr;
  HistEvent event{};
  std::string path, prompt;
};

LineEditor::LineEditor(std::string history_path) : state_(std::make_unique<State>()) {
  // Without a locale that knows UTF-8 the editor would cut characters.
  setlocale(LC_CTYPE, "");
  if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
  State* s = state_.get();
  s->path = std::move(history_path);
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(s->path).parent_path(), ignored);
  s->edit = el_init("kvasir", stdin, stdout, stderr);
  s->history = history_init();
  history(s->history, &s->event, H_SETSIZE, kHistoryEntries);
  history(s->history, &s->event, H_SETUNIQUE, 1);
  history(s->history, &s->event, H_LOAD, s->path.c_str());
  el_set(s->edit, EL_CLIENTDATA, s);
  el_set(
      s->edit, EL_PROMPT, +[](EditLine* edit) -> char* {
        State* state = nullptr;
        el_get(edit, EL_CLIENTDATA, &state);
        return state->prompt.data();
      });
  el_set(s->edit, EL_HIST, history, s->history);
  el_wset(s->edit, EL_GETCFN, ReadKey);
  el_set(s->edit, EL_EDITOR, "emacs");
  el_set(s->edit, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(s->edit, EL_BIND, "^I", "ed-insert", nullptr);  // pasted code has tabs
  el_set(s->edit, EL_ADDFN, "kvasir-paste", "Takes what is pasted as it is", Paste);
  el_set(s->edit, EL_BIND, kPasteBegin, "kvasir-paste", nullptr);
  el_source(s->edit, nullptr);  // ~/.editrc
  g_resized.Open();
  HandleWith(SIGWINCH, OnResize);
  g_continued.Open();
  HandleWith(SIGCONT, OnContinueEditing);
  // On until the end: what is pasted while a reply runs waits, and is read by the next Read.
  if (TerminalKnowsSequences()) WriteOut(kPasteOn);
}

LineEditor::~LineEditor() {
  if (TerminalKnowsSequences()) WriteOut(kPasteOff);
  history_end(state_->history);
  el_end(state_->edit);
}

LineEditor::Line LineEditor::Read(const std::string& prompt) {
  const InterruptScope interrupts;
  state_->prompt = prompt;
  // What changed before there was a line to draw again.
  if (g_resized.Take()) el_resize(state_->edit);
  if (g_continued.Take() && TerminalKnowsSequences()) WriteOut(kPasteOn);
  int count = 0;
  errno = 0;
  const char* line = el_gets(state_->edit, &count);
  if (line == nullptr || count <= 0) {
    if (InterruptScope::Take()) {
      WriteOut("\n");
      el_reset(state_->edit);
      return {.cancelled = true};
    }
    return {.end = true};
  }
  std::string text(line, static_cast<size_t>(count));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return {.text = std::move(text)};
}

void LineEditor::Remember(const std::string& text) {
  State* s = state_.get();
  history(s->history, &s->event, H_ENTER, (text + "\n").c_str());
  const mode_t before = umask(077);
  history(s->history, &s->event, H_SAVE, s->path.c_str());
  umask(before);
}

}  // namespace kvasir
