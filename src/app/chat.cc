#include "app/chat.h"

#include <fmt/format.h>

#include <ctime>

#include "api/ledger.h"
#include "app/line_editor.h"
#include "app/model_path.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

constexpr char kHelp[] =
    "/help           this text\n"
    "/clear          forget the conversation\n"
    "/system TEXT    set the system message, and forget the conversation\n"
    "/memory         whose the memory is\n"
    "/exit           leave (also Ctrl-D)\n"
    "\"\"\"             starts and ends a message of several lines\n"
    "Ctrl-C          stops a reply\n";
constexpr std::string_view kFence = "\"\"\"";

std::string Dim(const std::string& text) {
  return StderrIsTerminal() && UseColor() ? "\033[2m" + text + "\033[0m" : text;
}

std::string Trim(const std::string& s) {
  const size_t begin = s.find_first_not_of(" \t"), end = s.find_last_not_of(" \t");
  return begin == std::string::npos ? "" : s.substr(begin, end - begin + 1);
}

void ExplainEnd(const Reply& reply, const LoadedModel& model) {
  if (reply.reason == FinishReason::kContext) {
    WriteErr(fmt::format(
        "[the context of {} tokens is full; /clear starts anew, --ctx makes it larger]\n",
        model.plan().context));
  } else if (reply.reason == FinishReason::kCancelled) {
    WriteErr("[stopped]\n");
  } else if (reply.reason == FinishReason::kLength) {
    WriteErr(fmt::format("[--max-tokens of {} reached]\n", reply.stats.output_tokens));
  }
}

/// The reply's tokens where they stand for its text and nothing else; see ChatHistory::AddReply.
std::vector<int32_t> TokensOfText(const Reply& reply, const Tokenizer& tokenizer,
                                  const StopRules& stop) {
  std::vector<int32_t> ids = reply.ids();
  if (ids.empty() || reply.reason != FinishReason::kStop) return ids;
  const int32_t last = ids.back();
  if (tokenizer.IsEndOfGeneration(last)) {
    ids.pop_back();
    return ids;
  }
  for (const int32_t id : stop.token_ids) {
    if (id == last) {
      ids.pop_back();
      return ids;
    }
  }
  return {};  // a stop string
}

class Talk {
 public:
  Talk(LoadedModel* model, const ChatOptions& options)
      : model_(model),
        options_(options),
        engine_(model->MakeEngine()),
        history_(model),
        editor_(StateFolder() + "/history") {
    if (options.system) history_.SetSystem(*options.system);
  }

  Result<int> Run() {
    if (!options_.quiet) WriteErr("Ctrl-D leaves, /help lists the commands.\n");
    for (;;) {
      const std::optional<std::string> message = ReadMessage();
      if (!message) return 0;
      if (message->empty()) continue;
      if ((*message)[0] == '/') {
        if (!Obey(*message)) return 0;
        continue;
      }
      KV_RETURN_IF_ERROR(Answer(*message));
    }
  }

 private:
  /// A message of one or more lines; nothing at the end of input.
  std::optional<std::string> ReadMessage() {
    LineEditor::Line line = editor_.Read(">>> ");
    if (line.end) {
      WriteOut("\n");
      return std::nullopt;
    }
    std::string text = Trim(line.text);
    if (line.cancelled || text.empty()) return "";
    if (text.starts_with(kFence)) {
      text.erase(0, kFence.size());
      while (!text.ends_with(kFence)) {
        line = editor_.Read("... ");
        if (line.end || line.cancelled) return "";
        text += "\n" + line.text;
      }
      text.resize(text.size() - kFence.size());
      while (!text.empty() && text[0] == '\n') text.erase(0, 1);
      editor_.Remember(std::string(kFence) + text + std::string(kFence));
      return text;
    }
    editor_.Remember(text);
    return text;
  }

  /// False: leave.
  bool Obey(const std::string& command) {
    if (command == "/exit" || command == "/quit" || command == "/bye") return false;
    if (command == "/clear") {
      history_.Clear();
      WriteErr("[a new conversation]\n");
    } else if (command == "/system" || command.starts_with("/system ")) {
      history_.SetSystem(Trim(command.substr(7)));
      WriteErr("[a new conversation]\n");
    } else if (command == "/memory") {
      WriteErr(LedgerText(ReadLedger(*model_, *engine_)));
    } else if (command == "/help" || command == "/?") {
      WriteErr(kHelp);
    } else {
      WriteErr(fmt::format("there is no command {}; /help lists them\n", SafeForTerminal(command)));
    }
    return true;
  }

  Status Answer(const std::string& message) {
    Result<std::vector<int32_t>> prompt = history_.AddUser(message, std::time(nullptr));
    if (!prompt.ok()) {
      PrintError(prompt.error().message);
      return {};
    }
    Request request{.prompt = std::move(*prompt),
                    .max_tokens = options_.max_tokens,
                    .sampling = options_.sampling,
                    .stop = options_.stop};
    Result<Reply> reply = StreamReply(model_, engine_.get(), std::move(request), options_.quiet);
    if (!reply.ok()) {
      // What does not fit is said, and the conversation goes on without it.
      history_.DropUser();
      PrintError(reply.error().message);
      return {};
    }
    history_.AddReply(reply->text, TokensOfText(*reply, model_->tokenizer(), options_.stop));
    return {};
  }

  LoadedModel* model_;
  const ChatOptions& options_;
  std::unique_ptr<Engine> engine_;
  ChatHistory history_;
  LineEditor editor_;
};

}  // namespace

std::string StatsLine(const Reply& reply) {
  const RequestStats& s = reply.stats;
  return fmt::format(
      "[first token {:.3f} s | {} tokens, {:.1f}/s | prompt {} tokens, {} from the cache]",
      s.ttft_seconds(), s.output_tokens, s.decode_tokens_per_second(), s.prompt_tokens,
      s.cached_tokens);
}

Result<Reply> StreamReply(LoadedModel* model, Engine* engine, Request request, bool quiet) {
  const InterruptScope interrupts;
  const bool terminal = StdoutIsTerminal();
  ProgressBar bar("reading");
  bool line_open = false;
  const auto on_text = [&](std::string_view text) {
    bar.Clear();
    line_open = text.back() != '\n';
    return WriteOut(terminal ? SafeForTerminal(text) : text);
  };
  const auto on_prefill = [&](int32_t done, int32_t total) {
    done < total ? bar.Update(static_cast<uint64_t>(done), static_cast<uint64_t>(total))
                 : bar.Clear();
  };
  Result<Reply> reply = Generate(engine, std::move(request), on_text, on_prefill);
  bar.Clear();
  if (line_open) WriteOut("\n");
  if (reply.ok()) {
    ExplainEnd(*reply, *model);
    if (!quiet) WriteErr(Dim(StatsLine(*reply)) + "\n");
  }
  return reply;
}

Result<int> Chat(LoadedModel* model, const ChatOptions& options) {
  return Talk(model, options).Run();
}

}  // namespace kvasir
