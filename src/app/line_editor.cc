#include "app/line_editor.h"

#include <histedit.h>
#include <sys/stat.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <filesystem>

#include "app/terminal.h"

namespace kvasir {
namespace {

constexpr int kHistoryEntries = 1000;

}  // namespace

struct LineEditor::State {
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
  el_set(s->edit, EL_EDITOR, "emacs");
  el_set(s->edit, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_source(s->edit, nullptr);  // ~/.editrc
}

LineEditor::~LineEditor() {
  history_end(state_->history);
  el_end(state_->edit);
}

LineEditor::Line LineEditor::Read(const std::string& prompt) {
  const InterruptScope interrupts;
  state_->prompt = prompt;
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
