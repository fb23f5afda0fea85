#pragma once

#include <memory>
#include <optional>
#include <string>

namespace kvasir {

/// Reads lines from a terminal with editing and history (libedit).
class LineEditor {
 public:
  /// History is kept in `history_path`, readable by its owner only.
  explicit LineEditor(std::string history_path);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  struct Line {
    std::string text;        ///< without the newline at its end; what was pasted may have others
    bool end = false;        ///< Ctrl-D
    bool cancelled = false;  ///< Ctrl-C: the line is thrown away
  };
  Line Read(const std::string& prompt);
  /// Adds an entry of one or more lines to the history.
  void Remember(const std::string& text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
