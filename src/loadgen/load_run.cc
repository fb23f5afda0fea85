#include "loadgen/load_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>

#include "base/clock.h"
#include "base/rng.h"
#include "loadgen/load_client.h"
#include "loadgen/sse_reader.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// One token each in the vocabularies that are in use, with the space before them.
constexpr std::string_view kWords[] = {
    "the",   "of",    "and",   "to",     "in",    "is",    "that",   "it",      "for",   "was",
    "on",    "are",   "as",    "with",   "at",    "by",    "from",   "or",      "an",    "be",
    "this",  "have",  "not",   "but",    "had",   "his",   "they",   "she",     "which", "you",
    "one",   "we",    "all",   "were",   "when",  "who",   "will",   "more",    "no",    "if",
    "out",   "so",    "said",  "what",   "up",    "its",   "about",  "into",    "than",  "them",
    "can",   "only",  "other", "new",    "some",  "could", "time",   "these",   "two",   "may",
    "then",  "do",    "first", "any",    "my",    "now",   "such",   "like",    "our",   "over",
    "man",   "me",    "even",  "most",   "made",  "after", "also",   "did",     "many",  "before",
    "must",  "years", "back",  "where",  "much",  "your",  "way",    "well",    "down",  "should",
    "each",  "just",  "those", "people", "how",   "too",   "little", "state",   "good",  "very",
    "world", "still", "own",   "see",    "men",   "work",  "long",   "get",     "here",  "between",
    "both",  "life",  "being", "under",  "never", "day",   "same",   "another", "know",  "while",
    "last",  "might", "great", "old"};

/// What a server says of an error, as OpenAI's API has it ({"error": {"message": ...}}), else its
/// text as it is: on one line that is not long, and valid UTF-8, since it comes from a peer.
std::string MessageOf(const std::string& body) {
  const Json json = Json::parse(body, nullptr, false);
  std::string text = body;
  if (json.is_object() && json.contains("error")) {
    const Json& error = json["error"];
    if (error.is_string()) text = error;
    if (error.is_object() && error.contains("message") && error["message"].is_string())
      text = error["message"];
  }
  constexpr size_t kMost = 300;
  text = text.substr(0, kMost);
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// Between the seeds of rows: odd and large, so that no seeds of two rows meet.
constexpr uint64_t kRowStep = 0x9E3779B97F4A7C15;

/// A conversation, or a single request.
struct Session {
  double arrival_s = 0;
  uint64_t seed = 0;
  int64_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  std::vector<int64_t> pieces;  // of a trace
  int turn = 0;
  Json messages = Json::array();
  std::string text;  // of completions
};

/// How many tokens words are, in this server's vocabulary, and what a request has beside them.
struct Calibration {
  double tokens_per_word = 1;
  double others = 0;
};

class Run {
 public:
  Run(const LoadgenOptions& options, const LoadTarget& target, const std::function<bool()>& stop,
      const std::function<void(size_t, size_t)>& progress)
      : o_(options), client_(target, options.key), stop_(stop), progress_(progress) {}

  Result<LoadResult> Go() {
    KV_RETURN_IF_ERROR(FindModel());
    KV_RETURN_IF_ERROR(Calibrate());
    for (int32_t i = 0; i < o_.warmup; ++i) {
      Session session = NewSession(1'000'000 + static_cast<size_t>(i));
      KV_RETURN_IF_ERROR(Alone(&session).error);
    }
    MakeSessions();
    all_ = sessions_.size() * static_cast<size_t>(std::max(1, o_.turns));
    start_ns_ = SteadyClock().NowNs();
    WatchForStop();
    if (o_.concurrency > 0 && o_.trace.empty()) {
      for (int32_t i = 0; i < o_.concurrency; ++i) NextSession();
    } else {
      for (size_t i = 0; i < sessions_.size(); ++i) {
        client_.After(sessions_[i].arrival_s, [this, i] { Turn(&sessions_[i]); });
      }
      next_ = sessions_.size();
    }
    client_.Run();
    result_.duration_s = Duration();
    return std::move(result_);
  }

 private:
  struct Outcome {
    Status error;
    int64_t prompt_tokens = 0;
  };
  double Now() const { return SecondsBetween(start_ns_, SteadyClock().NowNs()); }
  /// Until the last answer: what is waited for afterwards is nothing that the server does.
  double Duration() const {
    if (result_.interrupted) return Now();
    double last = 0;
    for (const LoadRecord& r : result_.records) last = std::max(last, r.end_s);
    return last;
  }

  Status FindModel() {
    Status status;
    std::string body;
    client_.Send(
        "/v1/models", "", o_.timeout_s, [&](std::string_view bytes) { body += bytes; },
        [&](int code, const std::string& error) {
          if (code == 200 && error.empty()) return;
          status = MakeError(ErrorCode::kIo, "{}/v1/models: {}", o_.url,
                             code == 0 ? error : fmt::format("status {}", code));
        });
    client_.Run();
    if (!status.ok()) return status;
    result_.model = o_.model;
    const Json json = Json::parse(body, nullptr, false);
    const bool listed = json.is_object() && json.contains("data") && json["data"].is_array() &&
                        !json["data"].empty() && json["data"][0].contains("id");
    if (result_.model.empty() && listed) result_.model = json["data"][0].value("id", "");
    if (result_.model.empty())
      return MakeError(ErrorCode::kInvalid, "{}/v1/models names no model; use --model", o_.url);
    return {};
  }

  /// Two prompts of known words, and what the server counts.
  Status Calibrate() {
    double tokens[2];
    const int64_t words[2] = {32, 96};
    for (int i = 0; i < 2; ++i) {
      Session session;
      session.output_tokens = 1;
      AddUser(&session, WordsOf(77, words[i]));
      const Outcome outcome = Alone(&session);
      KV_RETURN_IF_ERROR(outcome.error);
      if (outcome.prompt_tokens == 0)
        return MakeError(ErrorCode::kUnsupported,
                         "{} gives no usage.prompt_tokens: prompt lengths cannot be set", o_.url);
      tokens[i] = static_cast<double>(outcome.prompt_tokens);
    }
    calibration_.tokens_per_word =
        std::max(0.1, (tokens[1] - tokens[0]) / static_cast<double>(words[1] - words[0]));
    calibration_.others = tokens[0] - calibration_.tokens_per_word * static_cast<double>(words[0]);
    return {};
  }

  int64_t WordsFor(double tokens) const {
    return std::max<int64_t>(1, std::llround(tokens / calibration_.tokens_per_word));
  }

  /// What all words of this run are made from; of the first row, the seed as it is.
  uint64_t RowSeed() const { return o_.seed + o_.row * kRowStep; }

  Session NewSession(size_t index) const {
    Session s;
    s.seed = RowSeed() * 1'000'003 + index;
    s.prompt_tokens = o_.prompt_tokens;
    s.output_tokens = o_.output_tokens;
    return s;
  }

  void MakeSessions() {
    if (!o_.trace.empty()) {
      const double first = o_.trace[0].arrival_s;
      for (size_t i = 0; i < o_.trace.size(); ++i) {
        Session s = NewSession(i);
        s.arrival_s = (o_.trace[i].arrival_s - first) / o_.speedup;
        s.prompt_tokens = o_.trace[i].input_tokens;
        s.output_tokens = std::max(1, o_.trace[i].output_tokens);
        s.pieces = o_.trace[i].pieces;
        sessions_.push_back(std::move(s));
      }
      return;
    }
    const size_t count = (static_cast<size_t>(o_.requests) + static_cast<size_t>(o_.turns) - 1) /
                         static_cast<size_t>(o_.turns);
    for (size_t i = 0; i < count; ++i) sessions_.push_back(NewSession(i));
    if (o_.rate <= 0) return;
    const std::vector<double> arrivals = Arrivals(count, o_.rate, o_.burstiness, o_.seed);
    for (size_t i = 0; i < count; ++i) sessions_[i].arrival_s = arrivals[i];
  }

  /// A prompt's text: what is shared, then its own. Tokens of the template count as its own.
  std::string PromptOfSession(const Session& s) const {
    const double own = std::max(
        1.0, static_cast<double>(s.prompt_tokens) - (s.turn == 0 ? calibration_.others : 0));
    std::string text;
    if (!s.pieces.empty()) {
      auto left = static_cast<int64_t>(own);
      for (size_t i = 0; i < s.pieces.size() && left > 0; ++i) {
        const int64_t tokens = std::min<int64_t>(left, kTracePiece);
        // Equal pieces have equal words within a run, and others in a run with another seed.
        text += WordsOf(static_cast<uint64_t>(s.pieces[i]) * 7919 + 13 + RowSeed() * kRowStep,
                        WordsFor(static_cast<double>(tokens))) +
                " ";
        left -= tokens;
      }
      return text;
    }
    if (o_.shared_tokens > 0 && s.turn == 0)
      text = WordsOf(RowSeed() + 424'242, WordsFor(o_.shared_tokens)) + " ";
    return text + WordsOf(s.seed * 64 + static_cast<uint64_t>(s.turn), WordsFor(own));
  }

  void AddUser(Session* s, const std::string& text) const {
    if (o_.chat) {
      s->messages.push_back({{"role", "user"}, {"content", text}});
    } else {
      s->text += (s->text.empty() ? "" : " ") + text;
    }
  }
  void AddAnswer(Session* s, const std::string& text) const {
    if (o_.chat) {
      s->messages.push_back({{"role", "assistant"}, {"content", text}});
    } else {
      s->text += text;
    }
  }

  std::string BodyOf(const Session& s) const {
    Json body = {{"model", result_.model},
                 {"max_tokens", s.output_tokens},
                 {"temperature", o_.temperature},
                 {"seed", static_cast<int64_t>(s.seed & INT32_MAX)},
                 {"stream", true},
                 {"stream_options", {{"include_usage", true}}}};
    if (o_.ignore_eos) body["ignore_eos"] = true;
    if (o_.chat) {
      body["messages"] = s.messages;
    } else {
      body["prompt"] = s.text;
    }
    return body.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  static constexpr size_t kMostRefusal = 4096;  // bytes of an answer that is kept for its message

  /// What comes of one request.
  struct Stream {
    LoadRecord record;
    SseReader reader;
    std::string text, refusal;
    double last_s = 0;
    int64_t chunks = 0;
    bool done = false;
  };

  void Take(Stream* st, std::string_view data) const {
    if (data == "[DONE]") {
      st->done = true;
      return;
    }
    const Json chunk = Json::parse(data, nullptr, false);
    if (!chunk.is_object()) {
      if (st->record.error.empty()) st->record.error = "a chunk is no JSON object";
      return;
    }
    if (chunk.contains("error")) {
      st->record.error = "an error within the stream";
      st->record.message = MessageOf(std::string(data));
      return;
    }
    if (chunk.contains("usage") && chunk["usage"].is_object()) {
      const Json& usage = chunk["usage"];
      st->record.prompt_tokens = usage.value("prompt_tokens", int64_t{0});
      st->record.output_tokens = usage.value("completion_tokens", int64_t{0});
      if (usage.contains("prompt_tokens_details") && usage["prompt_tokens_details"].is_object())
        st->record.cached_tokens =
            usage["prompt_tokens_details"].value("cached_tokens", int64_t{0});
    }
    if (!chunk.contains("choices") || !chunk["choices"].is_array() || chunk["choices"].empty())
      return;
    const Json& choice = chunk["choices"][0];
    std::string text;
    const auto add = [&](const Json& from, const char* field) {
      if (from.is_object() && from.contains(field) && from[field].is_string())
        text += from[field].get<std::string>();
    };
    add(choice, "text");
    if (choice.contains("delta")) {
      add(choice["delta"], "reasoning_content");
      add(choice["delta"], "content");
    }
    if (text.empty()) return;
    const double now = Now();
    if (st->chunks++ == 0) {
      st->record.ttft_s = now - st->record.start_s;
    } else {
      st->record.itl_s.push_back(now - st->last_s);
    }
    st->last_s = now;
    st->text += text;
  }

  void Send(const Session& s, std::function<void(Stream*)> done) {
    const auto stream = std::make_shared<Stream>();
    stream->record.start_s = Now();
    stream->record.turn = s.turn;
    client_.Send(
        o_.chat ? "/v1/chat/completions" : "/v1/completions", BodyOf(s), o_.timeout_s,
        [this, stream](std::string_view bytes) {
          if (stream->refusal.size() < kMostRefusal)
            stream->refusal += bytes.substr(0, kMostRefusal - stream->refusal.size());
          if (!stream->reader.Push(bytes, [&](std::string_view data) { Take(stream.get(), data); }))
            stream->record.error = "an event is too large";
        },
        [this, stream, done = std::move(done)](int status, const std::string& error) {
          LoadRecord& r = stream->record;
          r.end_s = Now();
          if (!error.empty()) {
            r.error = error;
          } else if (status != 200) {
            r.error = fmt::format("status {}", status);
            r.message = MessageOf(stream->refusal);
          } else if (r.error.empty() && !stream->done) {
            r.error = "the stream was cut off";
          } else if (r.error.empty() && stream->chunks == 0) {
            r.error = "an answer without text";
          }
          if (r.output_tokens == 0) r.output_tokens = stream->chunks;
          r.ok = r.error.empty();
          done(stream.get());
        });
  }

  /// One request, and nothing beside it.
  Outcome Alone(Session* session) {
    if (session->messages.empty() && session->text.empty())
      AddUser(session, PromptOfSession(*session));
    Outcome out;
    Send(*session, [&](Stream* stream) {
      out.prompt_tokens = stream->record.prompt_tokens;
      if (!stream->record.ok && stream->record.error != "an answer without text")
        out.error = MakeError(ErrorCode::kIo, "{}: {}", o_.url,
                              Reason(stream->record.error, stream->record.message));
    });
    client_.Run();
    return out;
  }

  void NextSession() {
    if (next_ < sessions_.size()) Turn(&sessions_[next_++]);
  }

  void Turn(Session* s) {
    AddUser(s, PromptOfSession(*s));
    Send(*s, [this, s](Stream* stream) {
      const bool ok = stream->record.ok;
      result_.records.push_back(std::move(stream->record));
      progress_(result_.records.size(), all_);
      AddAnswer(s, stream->text);
      if (ok && ++s->turn < o_.turns && s->pieces.empty()) {
        return client_.After(o_.think_s, [this, s] { Turn(s); });
      }
      s->messages = Json();
      std::string().swap(s->text);
      if (o_.concurrency > 0 && o_.trace.empty()) NextSession();
      over_ = ++ended_ == sessions_.size();
    });
  }

  void WatchForStop() {
    constexpr double kEvery = 0.1;
    client_.After(kEvery, [this] {
      if (over_) return;
      if (!stop_()) return WatchForStop();
      result_.interrupted = true;
      client_.Stop();
    });
  }

  LoadgenOptions o_;
  LoadClient client_;
  const std::function<bool()>& stop_;
  const std::function<void(size_t, size_t)>& progress_;
  Calibration calibration_;
  std::vector<Session> sessions_;
  size_t next_ = 0, all_ = 0;
  size_t ended_ = 0;  // sessions
  bool over_ = false;
  int64_t start_ns_ = SteadyClock().NowNs();
  LoadResult result_;
};

}  // namespace

std::vector<double> Arrivals(size_t count, double rate, double burstiness, uint64_t seed) {
  // Marsaglia and Tsang 2000, on the counter-based stream: the same everywhere, which the standard
  // library's distributions are not.
  const RandomStream random{.key = seed, .stream = 1};
  uint64_t position = 0;
  const auto uniform = [&] { return random.Uniform(position++); };
  const auto normal = [&] {
    const double u = std::max(uniform(), 1e-300), v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
  };
  const auto gamma = [&](double shape) {
    const double boost = shape < 1 ? std::pow(std::max(uniform(), 1e-300), 1 / shape) : 1;
    const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    while (true) {
      const double x = normal(), t = 1 + c * x;
      if (t <= 0) continue;
      const double v = t * t * t;
      if (std::log(std::max(uniform(), 1e-300)) < x * x / 2 + d - d * v + d * std::log(v))
        return d * v * boost;
    }
  };
  std::vector<double> out;
  double now = 0;
  for (size_t i = 0; i < count; ++i) {
    now += gamma(burstiness) / (rate * burstiness);
    out.push_back(now);
  }
  return out;
}

std::string WordsOf(uint64_t seed, int64_t count) {
  const RandomStream random{.key = seed, .stream = 2};
  std::string out;
  for (int64_t i = 0; i < count; ++i) {
    const auto index =
        static_cast<size_t>(random.Uniform(static_cast<uint64_t>(i)) * std::size(kWords));
    if (i > 0) out += ' ';
    out += kWords[std::min(index, std::size(kWords) - 1)];
  }
  return out;
}

Result<LoadResult> RunLoad(const LoadgenOptions& options, const std::function<bool()>& stop,
                           const std::function<void(size_t done, size_t all)>& progress) {
  KV_ASSIGN(const LoadTarget target, ParseTarget(options.url));
  return Run(options, target, stop, progress).Go();
}

}  // namespace kvasir
