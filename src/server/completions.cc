#include "server/completions.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <new>
#include <utility>

#include "base/clock.h"
#include "openai/json_text.h"
#include "server/reply.h"
#include "server/request_log.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// Proxies cut what is silent for a minute, some after half of one.
constexpr int64_t kSilentNs = 10'000'000'000;
/// Answers with more text than this are printed by a text worker.
constexpr size_t kLargeAnswer = 64 << 10;

/// Runs on a text worker.
ParsedCompletion ParseBody(const LoadedModel& model, Endpoint endpoint, std::string_view body) {
  try {
    const Result<Json> json = ParseJson(body);
    if (!json.ok()) return ApiError{.message = json.error().message, .param = {}, .code = {}};
    return ParseCompletion(model, endpoint, *json, std::time(nullptr));
  } catch (const std::bad_alloc&) {
    return NoMemoryError();
  }
}

ApiError TooLong(int64_t context, size_t tokens) {
  return {.message = fmt::format("the maximum context length is {} tokens, and the prompt has {}; "
                                 "shorten it, or leave room for at least one token of output",
                                 context, tokens),
          .param = {},
          .code = "context_length_exceeded"};
}

}  // namespace

void Completions::Begin(Endpoint endpoint, const Tenant& caller, HttpRequest&& request,
                        const std::shared_ptr<HttpReply>& reply) {
  const int64_t now = SystemClock().NowNs();
  if (request.body.empty()) {
    return SendError(reply.get(),
                     {.message = "the body is empty; send a JSON object", .param = {}, .code = {}});
  }
  const size_t bytes = request.body.size();
  auto job = [this, endpoint, caller, now, reply, body = std::move(request.body)] {
    ParsedCompletion parsed = ParseBody(*state_->model, endpoint, body);
    state_->http->Post([this, caller, now, reply, parsed = std::move(parsed)]() mutable {
      Parsed(caller, std::move(parsed), now, reply);
    });
  };
  if (!state_->workers->Run(bytes, std::move(job))) {
    state_->metrics.Refused("text_queue_full");
    SendError(reply.get(),
              {.status = 429,
               .message = "too many requests wait to be read; try again later",
               .type = "rate_limit_error",
               .param = {},
               .code = "queue_full"},
              {}, mean_seconds_);
  }
}

/// Makes a request one that its tenant may make, or says why it is none.
std::optional<ApiError> Completions::Fit(const Tenant& caller, CompletionRequest* request) const {
  if (!request->model.empty() && request->model != state_->options.model_name) {
    return ApiError{
        .status = 404,
        .message = fmt::format("the model \"{}\" does not exist; this server has \"{}\"",
                               request->model.substr(0, 200), state_->options.model_name),
        .param = "model",
        .code = "model_not_found"};
  }
  const int32_t whole = state_->model->plan().context;
  const int32_t most = caller.limits.max_context;
  const int32_t context = most > 0 ? std::min(whole, most) : whole;
  for (Request& r : request->requests) {
    if (static_cast<int64_t>(r.prompt.size()) >= context) return TooLong(context, r.prompt.size());
    const auto room = static_cast<int32_t>(context - static_cast<int64_t>(r.prompt.size()));
    if (context < whole && (r.max_tokens < 0 || r.max_tokens > room)) r.max_tokens = room;
    r.tenant = caller.id;
    r.salt = caller.salt;
    r.priority = std::min(r.priority, caller.limits.priority);
  }
  return {};
}

void Completions::Parsed(const Tenant& caller, ParsedCompletion parsed, int64_t received_ns,
                         const std::shared_ptr<HttpReply>& reply) {
  if (reply->gone()) return;
  reply->BodyTaken();
  if (state_->draining) return SendError(reply.get(), DrainingError(), {}, 1);
  if (const auto* error = std::get_if<ApiError>(&parsed); error != nullptr)
    return SendError(reply.get(), *error);
  auto c = std::make_unique<OpenCompletion>();
  c->request = std::get<CompletionRequest>(std::move(parsed));
  if (const auto error = Fit(caller, &c->request); error) return SendError(reply.get(), *error);
  const auto refuse = [&](const char* what, const std::string& message, double seconds) {
    state_->metrics.Refused(what);
    SendError(
        reply.get(),
        {.status = 429, .message = message, .type = "rate_limit_error", .param = {}, .code = what},
        {}, seconds);
  };
  int32_t& running = open_of_[caller.id];
  if (caller.limits.max_running > 0 && running >= caller.limits.max_running) {
    return refuse(
        "too_many_running",
        fmt::format("{} of your requests are running, the most that may at once", running),
        mean_seconds_);
  }
  int64_t tokens = 0;
  for (const Request& r : c->request.requests) tokens += static_cast<int64_t>(r.prompt.size());
  const double now_s = static_cast<double>(SystemClock().NowNs()) * 1e-9;
  if (const auto limit = state_->limiter.Take(caller, tokens, now_s); limit) {
    return refuse("rate_limit_exceeded",
                  fmt::format("your limit of {} is reached; try again in {:.0f} s", limit->limit,
                              limit->retry_after_s),
                  limit->retry_after_s);
  }
  const bool chat = c->request.endpoint == Endpoint::kChat;
  c->id = fmt::format("{}-{}{:x}", chat ? "chatcmpl" : "cmpl", state_->instance, ++state_->answers);
  c->head = {.id = c->id, .model = state_->options.model_name, .created = std::time(nullptr)};
  if (state_->options.log_prompts) {
    for (const Request& r : c->request.requests)
      c->prompt_text += state_->model->tokenizer().Decode(r.prompt, true);
  }
  c->caller = caller;
  c->reply = reply;
  c->received_ns = received_ns;
  c->open = c->request.requests.size();
  c->token_ns.resize(ChoiceCount(c->request));
  const Tokenizer* tokenizer = &state_->model->tokenizer();
  if (c->request.stream) {
    c->stream = std::make_unique<CompletionStream>(&c->request, tokenizer, c->head);
  } else {
    c->answer = std::make_unique<AnswerBuilder>(&c->request, tokenizer);
  }
  const uint64_t ticket = next_ticket_++;
  std::vector<Request> requests = c->request.requests;  // before anything counts on it
  ++running;
  // A client that went away is a cancelled request.
  reply->OnGone([this, ticket] { state_->loop->Cancel(ticket); });
  open_.emplace(ticket, std::move(c));
  state_->loop->Submit(ticket, std::move(requests));
}

HttpHeaders Completions::HeadersOf(const OpenCompletion& c) const {
  HttpHeaders headers = {{"X-Request-Id", c.id}};
  std::string ignored;
  for (const std::string& name : c.request.unknown_fields) {
    // What a client sent does not go into a header as it is.
    const bool plain = std::all_of(name.begin(), name.end(), [](char ch) {
      return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
             ch == '_' || ch == '-' || ch == '.';
    });
    if (ignored.size() + name.size() > 1000) break;
    ignored += (ignored.empty() ? "" : ", ") + (plain ? name : std::string("?"));
  }
  if (!ignored.empty()) headers.emplace_back("X-Kvasir-Ignored-Fields", ignored);
  return headers;
}

void Completions::Accepted(OpenCompletion* c, int64_t now_ns) {
  if (!c->stream) return;
  HttpHeaders headers = HeadersOf(*c);
  headers.emplace_back("Content-Type", "text/event-stream; charset=utf-8");
  headers.emplace_back("Cache-Control", "no-cache");
  headers.emplace_back("X-Accel-Buffering", "no");
  c->reply->Begin(200, std::move(headers));
  c->reply->Write(c->stream->Begin());
  c->written_ns = now_ns;
}

void Completions::Event(OpenCompletion* c, size_t prompt, kvasir::Event&& e, int64_t now_ns) {
  const size_t index = ChoiceIndex(c->request, prompt, e.choice);
  if (e.kind == kvasir::Event::Kind::kToken) {
    int64_t& before = c->token_ns[index];
    if (before != 0) {
      const double gap = SecondsBetween(before, now_ns);
      c->longest_gap_s = std::max(c->longest_gap_s, gap);
      state_->metrics.InterTokenLatency(gap, now_ns);
    }
    before = now_ns;
  } else if (e.kind == kvasir::Event::Kind::kFinished) {
    if (index == 0) {
      c->first = e.stats;
      c->reason = e.reason;
    }
    if (e.reason == FinishReason::kError && c->error.empty()) c->error = e.error;
    if (e.last) --c->open;
  }
  if (c->answer) return c->answer->Add(prompt, std::move(e));
  const std::string text = c->stream->Add(prompt, std::move(e), now_ns);
  if (text.empty()) return;
  c->reply->Write(text);
  c->written_ns = now_ns;
}

/// Sends the whole answer of one that is no stream.
void Completions::Answer(std::unique_ptr<OpenCompletion> c) {
  if (c->reply->gone()) return;
  if (!c->error.empty()) {
    return SendError(
        c->reply.get(),
        {.status = 500, .message = c->error, .type = "server_error", .param = {}, .code = {}});
  }
  HttpHeaders headers = HeadersOf(*c);
  headers.emplace_back("Content-Type", "application/json");
  const size_t size = c->answer->bytes();
  if (size <= kLargeAnswer)
    return c->reply->Send(200, std::move(headers), JsonLine(c->answer->Body(c->head)));
  const std::shared_ptr<OpenCompletion> shared = std::move(c);
  const bool taken = state_->workers->Run(size, [this, shared, headers = std::move(headers)] {
    std::string body;
    try {
      body = JsonLine(shared->answer->Body(shared->head));
    } catch (const std::bad_alloc&) {
      return state_->http->Post([shared] { SendError(shared->reply.get(), NoMemoryError()); });
    }
    state_->http->Post([shared, headers, body = std::move(body)]() mutable {
      shared->reply->Send(200, headers, std::move(body));
    });
  });
  if (!taken) SendError(shared->reply.get(), NoMemoryError(), {}, mean_seconds_);
}

void Completions::Finished(const OpenCompletion& c, int64_t now_ns) {
  const UsageCount& usage = c.stream ? c.stream->usage() : c.answer->usage();
  const double seconds = SecondsBetween(c.received_ns, now_ns);
  constexpr double kKeep = 0.9;  // of the mean: about the last ten completions count
  mean_seconds_ = kKeep * mean_seconds_ + (1 - kKeep) * seconds;
  state_->limiter.Spend(c.caller, usage.output_tokens, static_cast<double>(now_ns) * 1e-9);
  state_->metrics.Finished({.tenant = c.caller.name,
                            .reason = std::string(NameOf(c.reason)),
                            .prompt_tokens = usage.prompt_tokens,
                            .cached_tokens = usage.cached_tokens,
                            .output_tokens = usage.output_tokens,
                            .ttft_s = usage.ttft_s,
                            .queue_s = c.first.times.queue,
                            .prefill_s = c.first.times.prefill,
                            .total_s = seconds},
                           now_ns);
  LogRequest(c, usage, seconds);
}

void Completions::Deliver(std::vector<Delivery>&& deliveries, int64_t now_ns) {
  for (Delivery& d : deliveries) {
    const uint64_t ticket = d.ticket;
    try {
      Deliver(std::move(d), now_ns);
    } catch (const std::bad_alloc&) {
      // It alone is lost: cut, or answered 500, when nobody holds its reply any more.
      LogWarning(fmt::format("event=lost ticket={}: no memory for its answer", ticket));
      state_->loop->Cancel(ticket);
      if (const auto it = open_.find(ticket); it != open_.end()) Forget(it);
    }
  }
}

void Completions::Deliver(Delivery&& d, int64_t now_ns) {
  const auto it = open_.find(d.ticket);
  if (it == open_.end()) return;
  OpenCompletion* c = it->second.get();
  if (d.kind == Delivery::Kind::kAccepted) return Accepted(c, now_ns);
  if (d.kind == Delivery::Kind::kRefused) {
    const ApiError error = ToApiError(d.error);
    const bool later = error.status == 429 || error.status == 503;
    if (later) state_->metrics.Refused("queue_full");
    SendError(c->reply.get(), error, HeadersOf(*c),
              later ? std::optional<double>(mean_seconds_) : std::nullopt);
    Forget(it);
    return;
  }
  Event(c, d.prompt, std::move(d.event), now_ns);
  if (c->open > 0) return;
  Finished(*c, now_ns);
  std::unique_ptr<OpenCompletion> ended = Forget(it);
  if (ended->stream) {
    ended->reply->End();
  } else {
    Answer(std::move(ended));
  }
}

/// Takes a completion out of those that are open.
std::unique_ptr<OpenCompletion> Completions::Forget(OpenOnes::iterator it) {
  std::unique_ptr<OpenCompletion> c = std::move(it->second);
  if (--open_of_[c->caller.id] == 0) open_of_.erase(c->caller.id);
  open_.erase(it);
  return c;
}

void Completions::Ping(int64_t now_ns) {
  for (auto& [ticket, c] : open_) {
    if (!c->stream || c->written_ns == 0 || now_ns - c->written_ns < kSilentNs) continue;
    c->reply->Write(": ping\n\n");
    c->written_ns = now_ns;
  }
}

}  // namespace kvasir
