#include "engine/engine.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "sample/stop.h"
#include "sched/scheduler.h"
#include "text/detokenizer.h"

namespace kvasir {
namespace {

/// A request between Submit and its kFinished event.
struct Running {
  RequestStats stats;
  StopRules stop;
  Detokenizer detokenizer;
  StopMatcher matcher;
  int32_t max_tokens = 0;
  bool limited_by_context = false;  // max_tokens is what the context leaves
  bool stop_string_found = false;

  /// What was still held back, at the end.
  std::string Rest() {
    if (stop_string_found) return {};
    StopMatcher::Output out = matcher.Push(detokenizer.Finish());
    return out.stopped ? out.text : out.text + matcher.Finish();
  }
};

}  // namespace

std::string_view NameOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

double RequestStats::ttft_seconds() const {
  return first_token_ns == 0 ? 0 : SecondsBetween(submitted_ns, first_token_ns);
}

double RequestStats::decode_tokens_per_second() const {
  if (output_tokens < 2 || last_token_ns <= first_token_ns) return 0;
  return (output_tokens - 1) / SecondsBetween(first_token_ns, last_token_ns);
}

struct Engine::State {
  State(EngineOptions o, KvLayout layout, int32_t blocks, Executor* e, const Tokenizer* t,
        const Clock* c)
      : options(std::move(o)),
        kv(std::move(layout), blocks),
        scheduler(
            {.max_step_tokens = options.max_step_tokens, .max_sequences = options.max_sequences},
            &kv),
        executor(e),
        tokenizer(t),
        clock(c) {}

  Result<int32_t> OutputLimit(const Request& request, bool* limited_by_context) const;
  void Deliver(Scheduler::Progress& progress, int64_t now, std::vector<Event>* events);
  std::optional<FinishReason> TakeToken(Running& r, int32_t token, std::string* text) const;
  void Finish(RequestId id, FinishReason reason, std::string text, std::string error,
              std::vector<Event>* events);

  EngineOptions options;
  KvManager kv;
  Scheduler scheduler;  // after kv: its sequences hold blocks of kv's pool
  Executor* executor;
  const Tokenizer* tokenizer;
  const Clock* clock;
  RequestId next_id = 1;
  std::unordered_map<RequestId, Running> requests;
  std::vector<RequestId> cancelled;
};

Engine::Engine(EngineOptions options, KvLayout layout, int32_t blocks, Executor* executor,
               const Tokenizer* tokenizer, const Clock* clock)
    : state_(std::make_unique<State>(std::move(options), std::move(layout), blocks, executor,
                                     tokenizer, clock)) {}
Engine::~Engine() = default;

Result<int32_t> Engine::State::OutputLimit(const Request& request, bool* limited) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) return MakeError(ErrorCode::kInvalid, "the prompt has no tokens");
  if (prompt >= options.context) {
    return MakeError(ErrorCode::kInvalid,
                     "the prompt has {} tokens, but the context holds {} with at least one of "
                     "output; shorten it or raise --ctx",
                     prompt, options.context);
  }
  if (request.max_tokens < -1 || request.max_tokens == 0) {
    return MakeError(ErrorCode::kInvalid, "max_tokens is {}; use 1 or more, or -1 for no limit",
                     request.max_tokens);
  }
  const auto room = static_cast<int32_t>(options.context - prompt);
  *limited = request.max_tokens < 0 || request.max_tokens > room;
  const int32_t limit = *limited ? room : request.max_tokens;
  const int64_t need = kv.BlocksFor(static_cast<int32_t>(prompt) + limit, options.max_step_tokens);
  if (need > kv.pool().total()) {
    return MakeError(ErrorCode::kNoMemory,
                     "{} prompt and {} output tokens need {} KV blocks, but the pool has {}; "
                     "raise --kv-memory or lower --max-tokens",
                     prompt, limit, need, kv.pool().total());
  }
  return limit;
}

Result<RequestId> Engine::Submit(Request request) {
  State& s = *state_;
  KV_RETURN_IF_ERROR(Validate(request.sampling, s.tokenizer->vocab_size()));
  KV_RETURN_IF_ERROR(Validate(request.stop, s.tokenizer->vocab_size()));
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= s.tokenizer->vocab_size()) {
      return MakeError(ErrorCode::kInvalid, "prompt token {} is not in the vocabulary of {}", token,
                       s.tokenizer->vocab_size());
    }
  }
  bool limited = false;
  KV_ASSIGN(const int32_t limit, s.OutputLimit(request, &limited));

  const RequestId id = s.next_id++;
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->prompt_tokens = static_cast<int32_t>(request.prompt.size());
  sequence->tokens = std::move(request.prompt);
  sequence->max_tokens = limit;
  sequence->sampling = std::move(request.sampling);
  Running running{
      .stats = {.prompt_tokens = sequence->prompt_tokens, .submitted_ns = s.clock->NowNs()},
      .stop = request.stop,
      .detokenizer = Detokenizer(*s.tokenizer, request.special),
      .matcher = StopMatcher(request.stop.strings),
      .max_tokens = limit,
      .limited_by_context = limited};
  s.requests.emplace(id, std::move(running));
  s.scheduler.Add(std::move(sequence));
  return id;
}

void Engine::Cancel(RequestId id) {
  if (state_->requests.count(id) != 0) state_->cancelled.push_back(id);
}

void Engine::State::Finish(RequestId id, FinishReason reason, std::string text, std::string error,
                           std::vector<Event>* events) {
  auto it = requests.find(id);
  CHECK(it != requests.end());
  Event event;
  event.request = id;
  event.kind = Event::Kind::kFinished;
  event.reason = reason;
  event.stats = it->second.stats;
  event.text = std::move(text);
  event.error = std::move(error);
  events->push_back(std::move(event));
  requests.erase(it);
  // What an error left in the cache is not trusted.
  scheduler.Finish(id, reason != FinishReason::kError);
}

/// Decides whether a token ends the request, and what text became certain with it.
std::optional<FinishReason> Engine::State::TakeToken(Running& r, int32_t token,
                                                     std::string* text) const {
  const auto has = [token](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  if ((r.stop.end_of_generation && has(options.end_of_generation)) || has(r.stop.token_ids)) {
    return FinishReason::kStop;
  }
  StopMatcher::Output out = r.matcher.Push(r.detokenizer.Push(token));
  *text = std::move(out.text);
  if (out.stopped) {
    r.stop_string_found = true;
    return FinishReason::kStop;
  }
  if (r.stats.output_tokens >= r.max_tokens) {
    return r.limited_by_context ? FinishReason::kContext : FinishReason::kLength;
  }
  return std::nullopt;
}

void Engine::State::Deliver(Scheduler::Progress& progress, int64_t now,
                            std::vector<Event>* events) {
  const Sequence& seq = *progress.sequence;
  const RequestId id = seq.id;
  Running& r = requests.at(id);
  r.stats.cached_tokens = seq.cached_tokens;
  if (progress.error) {
    Finish(id, FinishReason::kError, {}, progress.error->message, events);
    return;
  }
  if (r.stats.output_tokens == 0) {
    Event event;
    event.request = id;
    event.kind = Event::Kind::kPrefill;
    event.prefill_done = std::min(seq.kv.computed, seq.prompt_tokens);
    event.prefill_total = seq.prompt_tokens;
    events->push_back(std::move(event));
  }
  for (SampledToken& sampled : progress.tokens) {
    if (r.stats.output_tokens++ == 0) r.stats.first_token_ns = now;
    r.stats.last_token_ns = now;
    Event event;
    event.request = id;
    event.kind = Event::Kind::kToken;
    const auto reason = TakeToken(r, sampled.token, &event.text);
    event.token = std::move(sampled);
    events->push_back(std::move(event));
    if (reason) {
      Finish(id, *reason, r.Rest(), {}, events);
      return;
    }
  }
}

bool Engine::Step(std::vector<Event>* events) {
  State& s = *state_;
  for (const RequestId id : std::exchange(s.cancelled, {})) {
    auto it = s.requests.find(id);
    if (it == s.requests.end()) continue;
    s.Finish(id, FinishReason::kCancelled, it->second.Rest(), {}, events);
  }
  const StepPlan& plan = s.scheduler.Plan();
  if (plan.slices.empty()) return !s.requests.empty();
  const int64_t begin = s.clock->NowNs();
  s.executor->Submit(plan);
  const StepResult result = s.executor->Collect();
  const int64_t now = s.clock->NowNs();
  s.scheduler.Measured(SecondsBetween(begin, now));
  for (Scheduler::Progress& progress : s.scheduler.Commit(result)) {
    s.Deliver(progress, now, events);
  }
  return true;
}

void Engine::DropCache() { state_->scheduler.DropCache(); }

const KvManager& Engine::kv() const { return state_->kv; }

const SchedulerCounters& Engine::scheduler_counters() const { return state_->scheduler.counters(); }

}  // namespace kvasir
