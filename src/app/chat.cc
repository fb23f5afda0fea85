#include "app/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "api/ledger.h"
#include "app/line_editor.h"
#include "app/model_path.h"
#include "app/terminal.h"

namespace kvasir {
namespace {

constexpr std::string_view kFence = "\"\"\"";
constexpr std::string_view kNone = "\"\"";  // as a system message

std::string Dim(const std::string& text) {
  return StderrIsTerminal() && UseColor() ? "\033[2m" + text + "\033[0m" : text;
}

std::string Trim(const std::string& s) {
  const size_t begin = s.find_first_not_of(" \t"), end = s.find_last_not_of(" \t");
  return begin == std::string::npos ? "" : s.substr(begin, end - begin + 1);
}

void ExplainEnd(const Reply& reply, const LoadedModel& model, bool in_chat) {
  if (reply.reason == FinishReason::kContext) {
    WriteErr(fmt::format("[the context of {} tokens is full; {}--ctx makes it larger]\n",
                         model.plan().context, in_chat ? "/clear starts anew, " : ""));
  } else if (reply.interrupted) {
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
    // Also between a reply and the next message: who stops a reply that has just ended does not
    // mean to leave.
    const InterruptScope interrupts;
    if (!options_.quiet) WriteErr("Ctrl-D leaves, /help lists the commands.\n");
    for (;;) {
      const std::optional<Message> message = ReadMessage();
      if (!message) return 0;
      if (message->text.empty()) continue;
      if (!message->verbatim && message->text[0] == '/') {
        if (!Obey(message->text)) return 0;
        continue;
      }
      KV_RETURN_IF_ERROR(Answer(message->text));
    }
  }

 private:
  struct Message {
    std::string text;
    bool verbatim = false;  ///< between kFence, or of several lines: no command
  };

  /// A message of one or more lines; nothing at the end of input. Empty: none was given.
  std::optional<Message> ReadMessage() {
    LineEditor::Line line = editor_.Read(">>> ");
    if (line.end) {
      WriteOut("\n");
      return std::nullopt;
    }
    std::string text = Trim(line.text);
    if (line.cancelled || text.find_first_not_of('\n') == std::string::npos) return Message();
    if (!text.starts_with(kFence)) {
      const bool pasted = text.find('\n') != std::string::npos;
      if (pasted) text = line.text;  // as it is: the first line's indentation belongs to it
      editor_.Remember(text);
      return Message{.text = text, .verbatim = pasted};
    }
    text.erase(0, kFence.size());
    while (!text.ends_with(kFence)) {
      line = editor_.Read("... ");
      if (line.end) WriteOut("\n");
      if (line.end || line.cancelled) return Message();
      text += "\n" + line.text;
      // Blanks after the end are not seen; they must not keep it from being one.
      const size_t end = text.find_last_not_of(" \t");
      if (std::string_view(text).substr(0, end + 1).ends_with(kFence)) text.resize(end + 1);
    }
    text.resize(text.size() - kFence.size());
    while (!text.empty() && text[0] == '\n') text.erase(0, 1);
    editor_.Remember(std::string(kFence) + text + std::string(kFence));
    return Message{.text = text, .verbatim = true};
  }

  /// What is typed, what /help says of it, and what it does with the text after it. False: leave.
  struct TalkCommand {
    std::string_view name, argument, help;
    bool (Talk::*run)(const std::string& text);
  };
  static const TalkCommand kCommands[5];

  bool Help(const std::string&) {
    std::string out;
    const auto row = [&](std::string_view what, std::string_view help) {
      out += fmt::format("{:<15} {}\n", what, help);
    };
    for (const TalkCommand& c : kCommands) row(fmt::format("{}{}", c.name, c.argument), c.help);
    row(kFence, "starts and ends a message of several lines (pasted ones need none)");
    row("Ctrl-C", "stops a reply");
    WriteErr(out);
    return true;
  }
  bool Clear(const std::string&) {
    history_.Clear();
    WriteErr("[a new conversation]\n");
    return true;
  }
  bool System(const std::string& text) {
    if (text.empty()) {
      const std::string now = history_.System();
      WriteErr(now.empty() ? "[there is no system message]\n"
                           : fmt::format("[system message: {}]\n", SafeForTerminal(now)));
      return true;
    }
    history_.SetSystem(text == kNone ? "" : text);
    WriteErr("[a new conversation]\n");
    return true;
  }
  bool Memory(const std::string&) {
    WriteErr(LedgerText(ReadLedger(*model_, ReadEngineBytes(*engine_))));
    return true;
  }
  bool Exit(const std::string&) { return false; }

  /// False: leave.
  bool Obey(const std::string& typed) {
    const size_t blank = std::min(typed.find_first_of(" \t"), typed.size());
    std::string_view name(typed.data(), blank);
    if (name == "/?") name = "/help";
    if (name == "/quit" || name == "/bye") name = "/exit";
    const std::string text = Trim(typed.substr(blank));
    for (const TalkCommand& c : kCommands) {
      if (name == c.name && (text.empty() || !c.argument.empty())) return (this->*c.run)(text);
    }
    WriteErr(fmt::format("there is no command {}; /help lists them\n", SafeForTerminal(typed)));
    return true;
  }

  /// Tokens of a prompt that leave room for an answer: for --max-tokens, within half of the
  /// context, or for a quarter of it.
  int32_t MostPromptTokens() const {
    const int32_t context = model_->plan().context;
    const int32_t answer =
        options_.max_tokens > 0 ? std::min(options_.max_tokens, context / 2) : context / 4;
    return context - answer;
  }

  void TellLeftOut(size_t before) {
    const size_t turns = history_.left_out();
    if (turns <= before) return;
    WriteErr(fmt::format(
        "[the oldest {} no longer {} into the context of {} tokens and {} left out; /clear starts "
        "anew]\n",
        turns == 1 ? "turn" : fmt::format("{} turns", turns), turns == 1 ? "fits" : "fit",
        model_->plan().context, turns == 1 ? "is" : "are"));
  }

  Status Answer(const std::string& message) {
    const size_t left_out = history_.left_out();
    Result<std::vector<int32_t>> prompt =
        history_.AddUser(message, std::time(nullptr), MostPromptTokens());
    if (!prompt.ok()) {
      PrintError(prompt.error().message);
      return {};
    }
    Request request{.prompt = std::move(*prompt),
                    .max_tokens = options_.max_tokens,
                    .sampling = options_.sampling,
                    .stop = options_.stop};
    const auto prompt_tokens = static_cast<int32_t>(request.prompt.size());
    TellLeftOut(left_out);
    const NoEcho no_echo;  // what is typed ahead is the next message's, and not the reply's
    Result<Reply> reply =
        StreamReply(model_, engine_.get(), std::move(request), options_.quiet, true);
    if (!reply.ok()) {
      // What does not fit is said, and the conversation goes on without it.
      history_.DropUser();
      PrintError(prompt_tokens < model_->plan().context
                     ? reply.error().message
                     : reply.error().message +
                           "; shorten the message or the system message (/system), or begin with "
                           "a larger --ctx; /clear starts anew");
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

const Talk::TalkCommand Talk::kCommands[] = {
    {"/help", "", "this text", &Talk::Help},
    {"/clear", "", "forget the conversation", &Talk::Clear},
    {"/system", " TEXT", "set the system message (\"\": none), and forget the conversation",
     &Talk::System},
    {"/memory", "", "whose the memory is", &Talk::Memory},
    {"/exit", "", "leave (also Ctrl-D)", &Talk::Exit},
};

}  // namespace

std::string StatsLine(const Reply& reply) {
  const RequestStats& s = reply.stats;
  return fmt::format(
      "[first token {:.3f} s | {} tokens, {:.1f}/s | prompt {} tokens, {} from the cache]",
      s.ttft_seconds(), s.output_tokens, s.decode_tokens_per_second(), s.prompt_tokens,
      s.cached_tokens);
}

Result<Reply> StreamReply(LoadedModel* model, Engine* engine, Request request, bool quiet,
                          bool in_chat) {
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
    ExplainEnd(*reply, *model, in_chat);
    if (!quiet) WriteErr(Dim(StatsLine(*reply)) + "\n");
  }
  return reply;
}

Result<int> Chat(LoadedModel* model, const ChatOptions& options) {
  return Talk(model, options).Run();
}

}  // namespace kvasir
