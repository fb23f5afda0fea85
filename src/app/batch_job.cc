#include "app/batch_job.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <memory>
#include <set>

#include "app/terminal.h"
#include "openai/completion_answer.h"
#include "openai/json_text.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// Requests that wait in the engine beside those that run: enough that no step has room left.
constexpr size_t kAhead = 8;

/// A folder can be opened too, and would read as a file without lines.
Status CheckReadable(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0)
    return MakeError(ErrorCode::kNotFound, "cannot open {}: {}", path, std::strerror(errno));
  if (S_ISREG(status.st_mode) || S_ISFIFO(status.st_mode)) return {};
  return MakeError(ErrorCode::kInvalid,
                   "{} is neither a regular file nor a pipe; name a file of batch requests", path);
}

/// The request of a line, or what a server with a model of that name would refuse it with.
ParsedCompletion ParseRequest(const LoadedModel& model, const std::string& model_name,
                              const Json& line, int64_t now) {
  const auto text = [&](const char* field) {
    return line.contains(field) && line[field].is_string() ? line[field].get<std::string>() : "";
  };
  const auto wrong = [](const char* field, std::string message) {
    return ApiError{.message = std::move(message), .param = field, .code = {}};
  };
  if (line.contains("method") && text("method") != "POST")
    return wrong("method", fmt::format("method is {}; use POST", JsonLine(line["method"])));
  const std::string url = text("url");
  if (url != "/v1/chat/completions" && url != "/v1/completions") {
    return wrong("url",
                 fmt::format("url is \"{}\"; use /v1/chat/completions or /v1/completions", url));
  }
  ParsedCompletion parsed =
      ParseCompletion(model, url == "/v1/completions" ? Endpoint::kCompletions : Endpoint::kChat,
                      line.contains("body") ? line["body"] : Json(), now);
  constexpr size_t kShown = 200;
  const auto* request = std::get_if<CompletionRequest>(&parsed);
  if (request == nullptr) return parsed;
  if (!request->model.empty() && request->model != model_name) {
    return ApiError{
        .status = 404,
        .message = fmt::format("the model \"{}\" does not exist; this is \"{}\" (see --alias)",
                               request->model.substr(0, kShown), model_name),
        .param = "model",
        .code = "model_not_found"};
  }
  if (request->stream) return wrong("stream", "stream is not possible in a batch file");
  return parsed;
}

Result<std::vector<BatchLine>> ReadLines(const LoadedModel& model, const std::string& model_name,
                                         const std::string& path) {
  KV_RETURN_IF_ERROR(CheckReadable(path));
  std::ifstream in(path);
  if (!in.is_open())
    return MakeError(ErrorCode::kNotFound, "cannot open {}: {}", path, std::strerror(errno));
  std::vector<BatchLine> out;
  std::set<std::string> seen;
  std::string text;
  const int64_t now = std::time(nullptr);
  for (size_t number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Result<Json> parsed = ParseJson(text);
    if (!parsed.ok())
      return MakeError(ErrorCode::kInvalid, "{}:{}: {}", path, number, parsed.error().message);
    const Json& json = *parsed;
    if (!json.is_object() || !json.contains("custom_id") || !json["custom_id"].is_string())
      return MakeError(ErrorCode::kInvalid, "{}:{}: is not a JSON object with a custom_id", path,
                       number);
    BatchLine line{.custom_id = json["custom_id"]};
    if (!seen.insert(line.custom_id).second)
      return MakeError(ErrorCode::kInvalid, "{}:{}: the custom_id \"{}\" was there before", path,
                       number, line.custom_id);
    line.request = ParseRequest(model, model_name, json, now);
    out.push_back(std::move(line));
  }
  if (in.bad()) return MakeError(ErrorCode::kIo, "cannot read {}: {}", path, std::strerror(errno));
  return out;
}

/// How each answer begins that AnswerFile writes.
constexpr std::string_view kAnswerBegins = R"({"id":"batch_req_)";

bool IsAnswer(const Json& json) {
  const auto has = [&](const char* key) { return json.contains(key); };
  return json.is_object() && has("id") && has("custom_id") && json["custom_id"].is_string() &&
         has("response") && json["response"].is_object();
}

/// Whether a line without its end may be one of ours, of a run that was killed.
bool IsHalfAnAnswer(std::string_view text) {
  return text.starts_with(kAnswerBegins) || kAnswerBegins.starts_with(text);
}

/// The file of answers: one line each, written at once.
class AnswerFile {
 public:
  ~AnswerFile() {
    if (fd_ >= 0) close(fd_);
  }

  /// Opens or makes it, for this run alone, cuts off half a last answer, and reads which answers it
  /// has. A file of something else is left as it is.
  Status Open(const std::string& path, std::set<std::string>* done) {
    path_ = path;
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) return MakeError(ErrorCode::kIo, "cannot open {}: {}", path, std::strerror(errno));
    struct stat status {};
    if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
      return MakeError(ErrorCode::kIo, "{} is not a regular file, and answers are looked for in it",
                       path);
    }
    KV_RETURN_IF_ERROR(Lock());
    std::ifstream in(path);
    std::string line;
    off_t whole = 0;
    while (std::getline(in, line) && !in.eof()) {
      const Result<Json> json = ParseJson(line);
      if (!json.ok() || !IsAnswer(*json)) return Foreign();
      done->insert((*json)["custom_id"].get<std::string>());
      whole += static_cast<off_t>(line.size()) + 1;
    }
    if (!in.is_open() || in.bad())
      return MakeError(ErrorCode::kIo, "cannot read {}: {}", path, std::strerror(errno));
    if (!IsHalfAnAnswer(line)) return Foreign();
    if (ftruncate(fd_, whole) != 0 || lseek(fd_, whole, SEEK_SET) != whole)
      return MakeError(ErrorCode::kIo, "cannot write {}: {}", path, std::strerror(errno));
    return {};
  }

  Status Write(const std::string& id, const BatchLine& line, int status, const Json& body) {
    const Json answer = {
        {"id", "batch_req_" + id},
        {"custom_id", line.custom_id},
        {"response", {{"status_code", status}, {"request_id", id}, {"body", body}}},
        {"error", nullptr}};
    const std::string text = JsonLine(answer) + "\n";
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = write(fd_, text.data() + at, text.size() - at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        return MakeError(ErrorCode::kIo, "cannot write {}: {}", path_, std::strerror(errno));
      at += static_cast<size_t>(n);
    }
    return {};
  }

 private:
  Error Foreign() const {
    return MakeError(ErrorCode::kInvalid, "{} is not a file of batch answers; name another", path_);
  }

  /// Two runs would write into one another's answers.
  Status Lock() {
    if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return {};
    if (errno == EWOULDBLOCK) {
      return MakeError(ErrorCode::kIo,
                       "another run writes its answers to {}; wait for its end, or name another",
                       path_);
    }
    // Some file systems of a network lock nothing: there it is as it was without a lock.
    if (errno == ENOLCK || errno == EOPNOTSUPP) return {};
    return MakeError(ErrorCode::kIo, "cannot lock {}: {}", path_, std::strerror(errno));
  }

  std::string path_;
  int fd_ = -1;
};

/// By the tokens of their first prompt: what begins alike comes together. Bad requests first.
bool ComesBefore(const BatchLine& a, const BatchLine& b) {
  const auto* x = std::get_if<CompletionRequest>(&a.request);
  const auto* y = std::get_if<CompletionRequest>(&b.request);
  if (x == nullptr || y == nullptr) return x == nullptr && y != nullptr;
  return x->requests[0].prompt < y->requests[0].prompt;
}

class BatchRun {
 public:
  BatchRun(LoadedModel* model, std::vector<BatchLine> lines, AnswerFile* file,
           std::string model_name)
      : model_(model),
        engine_(model->MakeEngine()),
        lines_(std::move(lines)),
        file_(file),
        model_name_(std::move(model_name)) {}

  Result<BatchSummary> Run(const std::function<void(size_t, size_t)>& progress) {
    const int64_t start = SteadyClock().NowNs();
    const InterruptScope interrupts;
    std::vector<Event> events;
    while (next_ < lines_.size() || !open_.empty()) {
      progress(summary_.requests, lines_.size());
      if (InterruptScope::Take()) {
        summary_.interrupted = true;
        break;
      }
      KV_RETURN_IF_ERROR(SubmitMore());
      events.clear();
      engine_->Step(&events);
      for (Event& e : events) KV_RETURN_IF_ERROR(Take(std::move(e)));
    }
    summary_.seconds = SecondsBetween(start, SteadyClock().NowNs());
    return summary_;
  }

 private:
  struct Open {
    const BatchLine* line;
    std::unique_ptr<AnswerBuilder> answer;
  };

  Status SubmitMore() {
    while (next_ < lines_.size() && engine_->scheduler().waiting() < kAhead) {
      const BatchLine& line = lines_[next_++];
      if (const auto* error = std::get_if<ApiError>(&line.request); error != nullptr) {
        KV_RETURN_IF_ERROR(Refuse(line, *error));
        continue;
      }
      const auto& request = std::get<CompletionRequest>(line.request);
      auto open = std::make_shared<Open>(
          Open{&line, std::make_unique<AnswerBuilder>(&request, &model_->tokenizer())});
      std::vector<RequestId> ids;
      for (size_t i = 0; i < request.requests.size(); ++i) {
        const Result<RequestId> id = engine_->Submit(request.requests[i]);
        if (!id.ok()) {
          for (const RequestId other : ids) {
            engine_->Cancel(other);
            open_.erase(other);
          }
          KV_RETURN_IF_ERROR(Refuse(line, ToApiError(id.error())));
          break;
        }
        ids.push_back(*id);
        open_[*id] = {open, i};
      }
    }
    return {};
  }

  Status Refuse(const BatchLine& line, const ApiError& error) {
    ++summary_.requests;
    ++summary_.failed;
    return file_->Write(NextId(), line, error.status, ToJson(error));
  }

  Status Take(Event&& e) {
    const auto it = open_.find(e.request);
    if (it == open_.end()) return {};  // cancelled with another of its line
    const auto [open, prompt] = it->second;
    if (e.last) open_.erase(it);
    open->answer->Add(prompt, std::move(e));
    if (!open->answer->done()) return {};
    if (!open->answer->error().empty()) {
      return Refuse(*open->line, {.status = 500,
                                  .message = open->answer->error(),
                                  .type = "server_error",
                                  .param = {},
                                  .code = {}});
    }
    ++summary_.requests;
    const UsageCount& usage = open->answer->usage();
    summary_.prompt_tokens += usage.prompt_tokens;
    summary_.cached_tokens += usage.cached_tokens;
    summary_.output_tokens += usage.output_tokens;
    const std::string id = NextId();
    return file_->Write(id, *open->line, 200,
                        open->answer->Body({id, model_name_, std::time(nullptr)}));
  }

  std::string NextId() { return fmt::format("{:x}-{}", started_, ++written_); }

  LoadedModel* model_;
  std::unique_ptr<Engine> engine_;
  std::vector<BatchLine> lines_;
  AnswerFile* file_;
  std::string model_name_;
  size_t next_ = 0;
  std::map<RequestId, std::pair<std::shared_ptr<Open>, size_t>> open_;
  int64_t started_ = std::time(nullptr);
  uint64_t written_ = 0;
  BatchSummary summary_;
};

}  // namespace

Result<BatchSummary> RunBatch(LoadedModel* model, const std::string& in, const std::string& out,
                              const std::string& model_name,
                              const std::function<void(size_t done, size_t all)>& progress) {
  std::set<std::string> done;
  AnswerFile file;
  // First the input, so that a wrong name does not leave an empty output behind; and once, because
  // a pipe gives it once.
  KV_ASSIGN(std::vector<BatchLine> lines, ReadLines(*model, model_name, in));
  KV_RETURN_IF_ERROR(file.Open(out, &done));
  const size_t skipped =
      std::erase_if(lines, [&](const BatchLine& line) { return done.count(line.custom_id) != 0; });
  std::stable_sort(lines.begin(), lines.end(), ComesBefore);
  BatchRun batch(model, std::move(lines), &file, model_name);
  KV_ASSIGN(BatchSummary summary, batch.Run(progress));
  summary.skipped = skipped;
  return summary;
}

}  // namespace kvasir
