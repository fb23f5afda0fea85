#include "server/completions.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <new>
#include <utility>

#include "base/clock.h"
#include "base/rng.h"
#include "openai/json_text.h"
#include "server/request_log.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// Proxies cut what is silent for a minute, some after half of one.
constexpr int64_t kSilentNs = 10'000'000'000;
/// Answers with more text than this are printed by a text worker.
constexpr size_t kLargeAnswer = 64 << 10;
/// A stream tells a prompt again in one piece, made between those of all other streams.
constexpr size_t kLargeEcho = 4 << 20;

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

/// With the phrase by which clients of OpenAI's API know it.
ApiError TooLong(int64_t context, size_t tokens, const char* field) {
  return {
      .message = fmt::format("This model's maximum context length is {} tokens, and there are "
                             "{} in the {}; send fewer: at least one token of output needs room",
                             context, tokens, field),
      .param = field,
      .code = "context_length_exceeded"};
}

/// Choices run at once: no request may have more than the server has places for.
std::optional<ApiError> WithinSequences(const Request& r, int32_t most) {
  const bool wide = r.beam_width > most;
  if (!wide && r.n <= most) return {};
  const char* field = wide ? "beam_width" : "n";
  return ApiError{.message = fmt::format("{} is {}; it must be from 1 to {}, the sequences that "
                                         "this server computes at once (--max-sequences)",
                                         field, wide ? r.beam_width : r.n, most),
                  .param = field,
                  .code = {}};
}

/// So many more of the completions that a tenant has, until this is let go of.
std::shared_ptr<void> Hold(const std::shared_ptr<std::atomic<int32_t>>& count, int32_t places) {
  *count += places;
  return {count.get(), [count, places](void*) { *count -= places; }};
}

/// The server's fault and not the request's: the same would be taken later.
bool MayComeAgain(const ApiError& error) { return error.status == 429 || error.status == 503; }

/// Takes the requests out. What stays is what an answer asks for: long prompts and stop strings
/// are not there twice.
std::vector<Request> ForEngine(CompletionRequest* request) {
  std::vector<Request> out;
  out.reserve(request->requests.size());
  for (Request& r : request->requests) {
    Request rest;
    rest.n = r.n;
    rest.prompt_logprobs = r.prompt_logprobs;
    rest.special = r.special;
    rest.tenant = r.tenant;
    if (!r.prompt.empty()) rest.prompt = {r.prompt[0]};  // has no log probability of its own
    out.push_back(std::exchange(r, std::move(rest)));
  }
  return out;
}

}  // namespace

/// Whether the tenant may have one more completion now. Before anything is read: reading is work
/// that others wait for.
bool Completions::Admit(Body* body) {
  const Tenant& caller = body->caller;
  std::shared_ptr<std::atomic<int32_t>>& open = open_of_[caller.id];
  if (open == nullptr) open = std::make_shared<std::atomic<int32_t>>(0);
  if (caller.limits.max_running > 0 && *open >= caller.limits.max_running) {
    body->reply->SendBusy(
        "too_many_running",
        fmt::format("{} of your completions are running, the most that may at once", open->load()),
        mean_seconds_);
    return false;
  }
  if (!body->reply->TakeRequest(caller)) return false;
  body->place = Hold(open, 1);
  return true;
}

/// Places for all choices of a body that was read, or says why there are none.
bool Completions::TakePlaces(Body* body, const CompletionRequest& request) {
  const int32_t most = body->caller.limits.max_running;
  const std::shared_ptr<std::atomic<int32_t>>& open = open_of_.at(body->caller.id);
  int32_t choices = 0;
  for (const Request& r : request.requests) choices += std::max(r.n, r.beam_width);
  if (most > 0 && choices > most) {
    const Request& first = request.requests[0];
    const char* field = request.requests.size() > 1 ? "prompt"
                        : first.beam_width > 0      ? "beam_width"
                                                    : "n";
    body->reply->SendError({.message = fmt::format("{} asks for {} completions at once; your limit "
                                                   "is {} (max_running): ask for fewer",
                                                   field, choices, most),
                            .param = field,
                            .code = {}});
    return false;
  }
  const int32_t others = *open - 1;
  if (most > 0 && choices > most - others) {
    body->reply->SendBusy("too_many_running",
                          fmt::format("{} of your completions are running, and {} may at once: "
                                      "there is no room for {} more",
                                      others, most, choices),
                          mean_seconds_);
    return false;
  }
  body->place = Hold(open, choices);
  return true;
}

void Completions::Begin(Endpoint endpoint, const Tenant& caller, HttpRequest&& request,
                        const std::shared_ptr<ApiReply>& reply) {
  Body from = {.caller = caller, .received_ns = SteadyClock().NowNs(), .reply = reply, .place = {}};
  if (!Admit(&from)) return;
  if (request.body.empty()) {
    return reply->SendError(
        {.message = "the body is empty; send a JSON object", .param = {}, .code = {}});
  }
  const size_t bytes = request.body.size();
  // Nobody waits for a body to be read whose client has left.
  auto gone = std::make_shared<std::atomic<bool>>(false);
  reply->OnGone([gone] { *gone = true; });
  auto job = [this, endpoint, gone = std::move(gone), from = std::move(from),
              body = std::move(request.body)]() mutable {
    ParsedCompletion parsed;
    if (!*gone) parsed = ParseBody(*state_->model, endpoint, body);
    // Nothing stays with the job: its place would be let go of after the answer.
    state_->http->Post([this, from = std::move(from), parsed = std::move(parsed)]() mutable {
      Parsed(std::move(from), std::move(parsed));
    });
  };
  if (!state_->workers->Run(bytes, std::move(job), caller.id)) {
    state_->limiter.GiveBack(caller.id, 1, 0, NowSeconds());
    reply->SendBusy("queue_full", "too many requests wait to be read; try again later",
                    mean_seconds_);
  }
}

/// Makes a request one that its tenant may make, or says why it is none.
std::optional<ApiError> Completions::Fit(const Tenant& caller, CompletionRequest* request) const {
  if (!request->model.empty() && request->model != state_->options.model_name) {
    return ModelNotFound(request->model, state_->options.model_name);
  }
  const int32_t whole = state_->model->plan().context;
  const int32_t most = caller.limits.max_context;
  const int32_t context = most > 0 ? std::min(whole, most) : whole;
  const char* prompt = request->endpoint == Endpoint::kChat ? "messages" : "prompt";
  for (Request& r : request->requests) {
    if (static_cast<int64_t>(r.prompt.size()) >= context)
      return TooLong(context, r.prompt.size(), prompt);
    const auto room = static_cast<int32_t>(context - static_cast<int64_t>(r.prompt.size()));
    if (context < whole && (r.max_tokens < 0 || r.max_tokens > room)) r.max_tokens = room;
    r.tenant = caller.id;
    r.salt = caller.salt;
    r.priority = std::min(r.priority, caller.limits.priority);
  }
  return WithinSequences(request->requests[0], state_->max_sequences);
}

/// Of the room for large answers, what the prompts will need of it: for what nobody could be sent
/// nothing is computed.
std::optional<ApiError> Completions::TakeRoom(ApiReply* reply,
                                              const CompletionRequest& request) const {
  const size_t bytes = PromptBytes(request);
  const size_t most =
      request.stream ? kLargeEcho : state_->options.http.limits.all_bodies_bytes / 2;
  if (bytes > most) {
    return ApiError{.message = fmt::format(
                        "the prompt is to be told again with its log probabilities, {} MiB in all "
                        "choices; at most {} MiB are possible{}: ask for fewer choices, or fewer "
                        "log probabilities",
                        bytes >> 20, most >> 20, request.stream ? " in a stream" : ""),
                    .param = request.echo ? "echo" : "prompt_logprobs",
                    .code = "answer_too_large"};
  }
  if (bytes > kLargeAnswer && !request.stream && !reply->Reserve(bytes)) return NoRoomError();
  return {};
}

void Completions::Parsed(Body&& body, ParsedCompletion parsed) {
  ApiReply* reply = body.reply.get();
  const uint64_t tenant = body.caller.id;
  if (reply->gone()) return;
  reply->BodyTaken();
  if (state_->draining) return reply->SendError(DrainingError());
  auto* const taken = std::get_if<CompletionRequest>(&parsed);
  auto error = taken == nullptr ? std::get<ApiError>(parsed) : Fit(body.caller, taken);
  if (!error) error = TakeRoom(reply, *taken);
  if (error) {
    if (MayComeAgain(*error)) state_->limiter.GiveBack(tenant, 1, 0, NowSeconds());
    return reply->SendError(*error);
  }
  CompletionRequest& request = *taken;
  if (!TakePlaces(&body, request)) return;
  int64_t tokens = 0;
  for (const Request& r : request.requests) tokens += static_cast<int64_t>(r.prompt.size());
  if (const auto limit = state_->limiter.TakeTokens(tenant, tokens, NowSeconds()); limit)
    return reply->SendLimit(*limit);
  Start(std::move(body), std::move(request), tokens);
}

/// No id comes twice, and none tells how many answers others have had in between.
std::string Completions::NewId(Endpoint endpoint) {
  const uint64_t n = ++state_->answers;
  const auto id =
      Philox4x32(state_->id_key, {static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), 0, 0});
  return fmt::format("{}-{:08x}{:08x}{:08x}{:08x}",
                     endpoint == Endpoint::kChat ? "chatcmpl" : "cmpl", id[0], id[1], id[2], id[3]);
}

/// Gives a completion to the engine.
void Completions::Start(Body&& body, CompletionRequest&& request, int64_t tokens) {
  auto c = std::make_unique<OpenCompletion>();
  c->request = std::move(request);
  c->id = NewId(c->request.endpoint);
  c->head = {.id = c->id, .model = state_->options.model_name, .created = std::time(nullptr)};
  if (state_->options.log_prompts) {
    for (const Request& r : c->request.requests)
      c->prompt_text += state_->model->tokenizer().Decode(r.prompt, true);
  }
  if (body.caller.is_operator) c->request.names = state_->tenant_names;
  c->caller = std::move(body.caller);
  c->reply = std::move(body.reply);
  c->place = std::move(body.place);
  c->received_ns = body.received_ns;
  c->charged_tokens = tokens;
  c->open = c->request.requests.size();
  c->prefill.resize(c->open);
  c->token_ns.resize(ChoiceCount(c->request));
  const Tokenizer* tokenizer = &state_->model->tokenizer();
  if (c->request.stream) {
    c->stream = std::make_unique<CompletionStream>(&c->request, tokenizer, c->head);
  } else {
    c->answer = std::make_unique<AnswerBuilder>(&c->request, tokenizer);
  }
  const uint64_t ticket = next_ticket_++;
  std::vector<Request> requests = ForEngine(&c->request);
  // A client that went away is a cancelled request.
  c->reply->OnGone([this, ticket] { state_->loop->Cancel(ticket); });
  open_.emplace(ticket, std::move(c));
  state_->loop->Submit(ticket, std::move(requests));
}

HttpHeaders Completions::HeadersOf(const OpenCompletion& c) const {
  HttpHeaders headers = {{"X-Request-Id", c.id}};
  NameIgnored(c.request.unknown_fields, &headers);
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

/// Counts a prompt with its first token, and tokens as they come.
void Completions::Count(OpenCompletion* c, size_t prompt, const kvasir::Event& e, int64_t now_ns) {
  if (e.kind == kvasir::Event::Kind::kPrefill) c->prefill[prompt] = e.stats;
  if (e.kind != kvasir::Event::Kind::kToken) return;
  ServerMetrics& metrics = state_->metrics;
  const bool told = !c->request.only_prompt;
  int64_t& before = c->token_ns[ChoiceIndex(c->request, prompt, e.choice)];
  if (before != 0) {
    const double gap = SecondsBetween(before, now_ns);
    c->longest_gap_s = std::max(c->longest_gap_s, gap);
    metrics.InterTokenLatency(gap, now_ns);
  } else if (e.choice == 0) {
    const RequestStats& stats = c->prefill[prompt];
    metrics.Prompt({.tenant = c->caller.name,
                    .prompt_tokens = stats.prompt_tokens,
                    .cached_tokens = stats.cached_tokens,
                    .prefill_s = stats.times.prefill});
    // Of a body with several prompts the first one tells, as in its log line and its timings.
    if (prompt == 0) metrics.Queued(stats.times.queue);
    if (prompt == 0 && told)
      metrics.TimeToFirstToken(SecondsBetween(stats.submitted_ns, now_ns), now_ns);
  }
  before = now_ns;
  if (told) metrics.OutputToken(c->caller.name);
}

/// False where there is no room for an answer that has become so large.
bool Completions::Event(OpenCompletion* c, size_t prompt, kvasir::Event&& e, int64_t now_ns) {
  const size_t index = ChoiceIndex(c->request, prompt, e.choice);
  Count(c, prompt, e, now_ns);
  if (e.kind == kvasir::Event::Kind::kFinished) {
    if (index == 0) {
      c->first = e.stats;
      c->reason = e.reason;
    }
    if (e.reason == FinishReason::kError && c->error.empty()) c->error = e.error;
    if (e.last) --c->open;
  }
  if (c->answer) {
    c->answer->Add(prompt, std::move(e));
    const size_t bytes = c->answer->bytes();
    if (bytes < c->room + kLargeAnswer) return true;
    c->room = bytes;
    return c->reply->Reserve(bytes);
  }
  const std::string text = c->stream->Add(prompt, std::move(e), now_ns);
  if (text.empty()) return true;
  c->reply->Write(text);
  c->written_ns = now_ns;
  return true;
}

/// Sends the whole answer of one that is no stream.
void Completions::Answer(std::unique_ptr<OpenCompletion> c) {
  if (c->reply->gone()) return;
  if (!c->error.empty()) {
    return c->reply->SendError(
        {.status = 500, .message = c->error, .type = "server_error", .param = {}, .code = {}});
  }
  HttpHeaders headers = HeadersOf(*c);
  headers.emplace_back("Content-Type", "application/json");
  const size_t size = c->answer->bytes();
  if (size <= kLargeAnswer)
    return c->reply->Send(200, std::move(headers), JsonLine(c->answer->Body(c->head)));
  const std::shared_ptr<OpenCompletion> shared = std::move(c);
  const uint64_t tenant = shared->caller.id;
  auto print = [this, shared, headers = std::move(headers)] {
    std::string body;
    try {
      body = JsonLine(shared->answer->Body(shared->head));
    } catch (const std::bad_alloc&) {
      return state_->http->Post([shared] { shared->reply->SendError(NoMemoryError()); });
    }
    state_->http->Post([shared, headers, body = std::move(body)]() mutable {
      shared->reply->Send(200, headers, std::move(body));
    });
  };
  state_->workers->RunResult(size, std::move(print), tenant);
}

void Completions::Finished(const OpenCompletion& c, int64_t now_ns) {
  const UsageCount& usage = c.stream ? c.stream->usage() : c.answer->usage();
  const double seconds = SecondsBetween(c.received_ns, now_ns);
  constexpr double kKeep = 0.9;  // of the mean: about the last ten completions count
  mean_seconds_ = kKeep * mean_seconds_ + (1 - kKeep) * seconds;
  state_->limiter.Spend(c.caller.id, usage.output_tokens, NowSeconds());
  const FinishReason reason = c.error.empty() ? c.reason : FinishReason::kError;
  state_->metrics.Finished(
      {.tenant = c.caller.name, .reason = std::string(NameOf(reason)), .total_s = seconds});
  LogRequest(c, usage, seconds, *state_->tenant_names);
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
    const bool later = MayComeAgain(error);
    // A request that can never be taken was read all the same: it counts.
    state_->limiter.GiveBack(c->caller.id, later ? 1 : 0, c->charged_tokens, NowSeconds());
    c->reply->SendError(error, HeadersOf(*c),
                        later ? std::optional<double>(mean_seconds_) : std::nullopt);
    Forget(it);
    return;
  }
  if (!Event(c, d.prompt, std::move(d.event), now_ns)) {
    state_->loop->Cancel(d.ticket);
    c->reply->SendError(NoRoomError(), HeadersOf(*c));
    Forget(it);
    return;
  }
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
  c->place.reset();
  open_.erase(it);
  return c;
}

void Completions::FailAll(const ApiError& error) {
  for (const auto& [ticket, c] : std::exchange(open_, {})) {
    state_->loop->Cancel(ticket);
    if (c->written_ns == 0) {  // no stream that has begun
      c->reply->SendError(error, HeadersOf(*c));
      continue;
    }
    c->reply->Write(CompletionStream::Fail(error));
    c->reply->End();
  }
}

void Completions::Ping(int64_t now_ns) {
  for (auto& [ticket, c] : open_) {
    if (!c->stream || c->written_ns == 0 || now_ns - c->written_ns < kSilentNs) continue;
    c->reply->Write(": ping\n\n");
    c->written_ns = now_ns;
  }
}

}  // namespace kvasir
