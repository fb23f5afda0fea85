#include "engine/engine.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "engine/beam_search.h"
#include "engine/choice.h"

namespace kvasir {
namespace {

/// One of a request's n answers.
struct Choice {
  SequenceId sequence = 0;
  ChoiceText text;
  RequestStats stats;
  bool finished = false;
};

/// Beams and what they offer for the next step.
struct Beams {
  BeamSearch search;
  std::vector<SequenceId> sequences;
  std::vector<std::vector<TokenLogprob>> offers;  // empty: not yet there
};

/// A request between Submit and its last event.
struct Running {
  Request request;  // its prompt moved into the sequence
  RequestStats stats;
  int32_t max_tokens = 0;
  bool limited_by_context = false;  // max_tokens is what the context, the pool or a quota leaves
  std::vector<Choice> choices;      // one until the first tokens are there (OpenChoices)
  std::optional<Beams> beams;
  int32_t open = 1;  // of `choices`, not finished
  int64_t deadline_ns = 0;
};

/// `chosen`: tokens of the vocabulary that beam search may choose.
Status ValidateChoices(const Request& r, int32_t max_sequences, int32_t vocab, int32_t chosen) {
  const auto out_of_range = [](const char* name, auto value, auto least, auto most) {
    return MakeError(ErrorCode::kInvalid, "{} is {}; use {} to {}", name, value, least, most);
  };
  if (r.n < 1 || r.n > max_sequences) return out_of_range("n", r.n, 1, max_sequences);
  if (r.prompt_logprobs < -1 || r.prompt_logprobs > vocab)
    return out_of_range("prompt_logprobs", r.prompt_logprobs, 0, vocab);
  if (!(r.deadline_s >= 0 && r.deadline_s <= 1e8))
    return out_of_range("deadline", r.deadline_s, 0, 1e8);
  if (r.priority < -100 || r.priority > 100) return out_of_range("priority", r.priority, -100, 100);
  if (r.beam_width == 0) return {};
  const int32_t widest = std::min(max_sequences, chosen / 2);
  if (r.beam_width < 1 || r.beam_width > widest)
    return out_of_range("beam_width", r.beam_width, 1, widest);
  if (r.n > r.beam_width) {
    return MakeError(ErrorCode::kInvalid, "n is {}, but beam search keeps only {} (beam_width)",
                     r.n, r.beam_width);
  }
  if (!(r.length_penalty >= -10 && r.length_penalty <= 10))
    return out_of_range("length_penalty", r.length_penalty, -10, 10);
  if (const char* name = ForbiddenWithBeams(r); name != nullptr) {
    return MakeError(ErrorCode::kUnsupported,
                     "beam search keeps to the model's own distribution: leave out {}, or "
                     "beam_width",
                     name);
  }
  return {};
}

}  // namespace

struct Engine::State {
  State(EngineOptions o, KvLayout layout, int32_t blocks, Executor* e, const Tokenizer* t,
        const Clock* c)
      : options(std::move(o)),
        kv(std::move(layout), blocks),
        scheduler({.max_step_tokens = options.max_step_tokens,
                   .max_sequences = options.max_sequences,
                   .itl_target_s = options.itl_target_s,
                   .least_prefill = options.least_prefill,
                   .max_logit_rows = std::max(options.max_logit_rows, options.max_sequences)},
                  &kv),
        executor(e),
        tokenizer(t),
        clock(c) {}

  Result<int32_t> OutputLimit(const Request& request, bool* limited_by_context) const;
  int32_t MostTokens(int64_t blocks, int32_t limit) const;
  bool MayWait(uint64_t tenant) const;
  BeamSearch::Options BeamOptions(const Request& request, int32_t max_tokens) const;
  /// How many tokens of the vocabulary are impossible.
  int32_t NeverChosen(const Request& request) const {
    return request.sampling.ignore_eos ? static_cast<int32_t>(options.end_of_generation.size()) : 0;
  }
  std::unique_ptr<Sequence> NewSequence(const Request& request);
  void Deliver(Scheduler::Progress& progress, int64_t now, std::vector<Event>* events);
  void DeliverSamples(RequestId id, Scheduler::Progress& progress, int64_t now,
                      std::vector<Event>* events);
  void DeliverBeam(RequestId id, Scheduler::Progress& progress, int64_t now,
                   std::vector<Event>* events);
  void FinishBeams(RequestId id, int64_t now, std::vector<Event>* events);
  void EndBeam(const Running& r, SequenceId sequence);
  void OpenChoices(Running& r) const;
  std::optional<FinishReason> TakeToken(Running& r, Choice& choice, SampledToken token, int64_t now,
                                        RequestId id, std::vector<Event>* events) const;
  void FinishChoice(RequestId id, size_t choice, FinishReason reason, std::string error,
                    std::vector<Event>* events);
  void FinishAll(RequestId id, FinishReason reason, const std::string& error,
                 std::vector<Event>* events);
  Event NewEvent(RequestId id, size_t choice, Event::Kind kind) const;
  bool Ends(const Request& request, int32_t token) const;

  EngineOptions options;
  KvManager kv;
  Scheduler scheduler;  // after kv: its sequences hold blocks of kv's pool
  Executor* executor;
  const Tokenizer* tokenizer;
  const Clock* clock;
  uint64_t next_id = 1;  // of requests and sequences
  std::unordered_map<RequestId, Running> requests;
  std::unordered_map<SequenceId, std::pair<RequestId, size_t>> by_sequence;  // and choice or beam
  std::unordered_map<uint64_t, TenantOptions> tenants;
  std::multimap<int64_t, RequestId> deadlines;
  std::vector<RequestId> cancelled;
  StepLog step_log;
};

Engine::Engine(EngineOptions options, KvLayout layout, int32_t blocks, Executor* executor,
               const Tokenizer* tokenizer, const Clock* clock)
    : state_(std::make_unique<State>(std::move(options), std::move(layout), blocks, executor,
                                     tokenizer, clock)) {}
Engine::~Engine() = default;

/// The longest sequence, of `limit` tokens at most, that needs no more than so many blocks.
int32_t Engine::State::MostTokens(int64_t blocks, int32_t limit) const {
  int32_t fits = 0, above = limit + 1;
  while (fits + 1 < above) {
    const int32_t middle = fits + (above - fits) / 2;
    (kv.BlocksFor(middle, options.max_step_tokens) <= blocks ? fits : above) = middle;
  }
  return fits;
}

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
  // One of its sequences alone must fit, with the block that a fork copies.
  const int64_t forks =
      request.n > 1 || request.beam_width > 1 ? static_cast<int64_t>(kv.layout().groups.size()) : 0;
  const auto tenant = tenants.find(request.tenant);
  const int64_t quota = tenant == tenants.end() ? 0 : tenant->second.kv_blocks;
  const int64_t blocks =
      quota > 0 ? std::min<int64_t>(quota, kv.pool().total()) : kv.pool().total();
  auto room = static_cast<int32_t>(options.context - prompt);
  // Who names no limit has what there is room for.
  if (request.max_tokens < 0) {
    const int64_t most = MostTokens(blocks - forks, options.context) - prompt;
    room = std::clamp<int32_t>(static_cast<int32_t>(most), 1, room);
  }
  *limited = request.max_tokens < 0 || request.max_tokens > room;
  const int32_t limit = *limited ? room : request.max_tokens;
  const int64_t need =
      kv.BlocksFor(static_cast<int32_t>(prompt) + limit, options.max_step_tokens) + forks;
  if (need > kv.pool().total()) {
    return MakeError(ErrorCode::kNoMemory,
                     "{} prompt and {} output tokens need {} KV blocks, but the pool has {}; "
                     "lower max_tokens or raise --kv-memory",
                     prompt, limit, need, kv.pool().total());
  }
  if (quota > 0 && need > quota) {
    return MakeError(ErrorCode::kNoMemory,
                     "{} prompt and {} output tokens need {} KV blocks, but the quota is {}; lower "
                     "max_tokens or shorten the prompt",
                     prompt, limit, need, quota);
  }
  return limit;
}

bool Engine::State::MayWait(uint64_t tenant) const {
  const auto waiting = static_cast<int64_t>(scheduler.waiting());
  if (options.max_waiting == 0 || waiting < options.max_waiting) return true;
  if (waiting >= 2 * options.max_waiting) return false;
  const auto own = static_cast<int64_t>(scheduler.waiting(tenant));
  const auto sharing = static_cast<int64_t>(scheduler.waiting_tenants()) + (own == 0 ? 1 : 0);
  return own * sharing < options.max_waiting;
}

/// As with samples: ignore_eos makes the model's own end tokens impossible, and the request's stop
/// tokens end a text.
BeamSearch::Options Engine::State::BeamOptions(const Request& request, int32_t max_tokens) const {
  BeamSearch::Options beam{.width = request.beam_width,
                           .length_penalty = request.length_penalty,
                           .max_tokens = max_tokens,
                           .end_tokens = request.stop.token_ids,
                           .passed_over = {}};
  if (request.sampling.ignore_eos) {
    beam.passed_over = options.end_of_generation;
  } else if (request.stop.end_of_generation) {
    beam.end_tokens.insert(beam.end_tokens.end(), options.end_of_generation.begin(),
                           options.end_of_generation.end());
  }
  return beam;
}

std::unique_ptr<Sequence> Engine::State::NewSequence(const Request& request) {
  auto s = std::make_unique<Sequence>();
  s->id = next_id++;
  s->sampling = request.sampling;
  if (request.sampling.min_tokens > 0) s->sampling.stop_tokens = request.stop.token_ids;
  s->tenant = request.tenant;
  s->salt = request.salt;
  s->priority = request.priority;
  if (request.beam_width > 0) {
    s->chosen_outside = true;
    s->sampling.logprobs = 2 * request.beam_width + NeverChosen(request);
  }
  return s;
}

Result<RequestId> Engine::Submit(Request request) {
  State& s = *state_;
  const int32_t vocab = s.tokenizer->vocab_size();
  KV_RETURN_IF_ERROR(Validate(request.sampling, vocab));
  KV_RETURN_IF_ERROR(Validate(request.stop, vocab));
  KV_RETURN_IF_ERROR(
      ValidateChoices(request, s.options.max_sequences, vocab, vocab - s.NeverChosen(request)));
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= vocab) {
      return MakeError(ErrorCode::kInvalid, "prompt token {} is not in the vocabulary of {}", token,
                       vocab);
    }
  }
  bool limited = false;
  KV_ASSIGN(const int32_t limit, s.OutputLimit(request, &limited));
  if (!s.MayWait(request.tenant)) {
    return MakeError(ErrorCode::kBusy,
                     "{} requests are waiting, the most that may; try again later",
                     s.scheduler.waiting());
  }

  std::sort(request.stop.token_ids.begin(), request.stop.token_ids.end());  // for Ends
  const int64_t now = s.clock->NowNs();
  std::unique_ptr<Sequence> sequence = s.NewSequence(request);
  const RequestId id = sequence->id;  // its first sequence's
  sequence->prompt_tokens = static_cast<int32_t>(request.prompt.size());
  sequence->tokens = std::move(request.prompt);
  sequence->max_tokens = limit;
  sequence->prompt_logprobs = request.prompt_logprobs;
  sequence->places = std::max(request.n, request.beam_width);
  if (request.beam_width == 0) sequence->samples = request.n;

  Running r{.request = std::move(request),
            .stats = {.prompt_tokens = sequence->prompt_tokens, .submitted_ns = now},
            .max_tokens = limit,
            .limited_by_context = limited};
  r.choices.push_back({.sequence = id,
                       .text = ChoiceText(*s.tokenizer, r.request.stop, r.request.special,
                                          r.request.sampling.min_tokens),
                       .stats = r.stats});
  if (r.request.beam_width > 0) {
    r.beams.emplace(Beams{
        .search = BeamSearch(s.BeamOptions(r.request, limit)), .sequences = {id}, .offers = {{}}});
  }
  if (r.request.deadline_s > 0) {
    r.deadline_ns = now + static_cast<int64_t>(r.request.deadline_s * 1e9);
    s.deadlines.emplace(r.deadline_ns, id);
  }
  s.by_sequence[id] = {id, 0};
  s.requests.emplace(id, std::move(r));
  s.scheduler.Add(std::move(sequence), now);
  return id;
}

void Engine::Cancel(RequestId id) {
  if (state_->requests.count(id) != 0) state_->cancelled.push_back(id);
}

Event Engine::State::NewEvent(RequestId id, size_t choice, Event::Kind kind) const {
  Event event;
  event.request = id;
  event.choice = static_cast<int32_t>(choice);
  event.kind = kind;
  return event;
}

/// From now on there are all n choices. What was done so far is every one's.
void Engine::State::OpenChoices(Running& r) const {
  const auto n = static_cast<size_t>(r.request.n);
  r.choices.reserve(n);
  while (r.choices.size() < n) {
    r.choices.push_back({.sequence = 0,
                         .text = ChoiceText(*tokenizer, r.request.stop, r.request.special,
                                            r.request.sampling.min_tokens),
                         .stats = r.choices[0].stats});
    ++r.open;
  }
}

/// Ends one choice, and the request with its last one.
void Engine::State::FinishChoice(RequestId id, size_t index, FinishReason reason, std::string error,
                                 std::vector<Event>* events) {
  const auto it = requests.find(id);
  CHECK(it != requests.end());
  Running& r = it->second;
  Choice& choice = r.choices[index];
  if (std::exchange(choice.finished, true)) return;
  Event event = NewEvent(id, index, Event::Kind::kFinished);
  event.reason = reason;
  event.text = choice.text.Rest();
  event.error = std::move(error);
  event.stats = choice.stats;
  event.stats.finished_ns = clock->NowNs();
  if (const Sequence* s = scheduler.Find(choice.sequence); s != nullptr) {
    event.stats.times = scheduler.TimesUntil(choice.sequence, event.stats.finished_ns);
    event.stats.preemptions = s->preemptions;
    by_sequence.erase(choice.sequence);
    // What an error left in the cache is not trusted.
    scheduler.Finish(choice.sequence, reason != FinishReason::kError);
  }
  event.last = --r.open == 0;
  const bool last = event.last;
  events->push_back(std::move(event));
  if (!last) return;
  if (r.deadline_ns != 0) {
    auto [begin, end] = deadlines.equal_range(r.deadline_ns);
    const auto at = std::find_if(begin, end, [id](const auto& d) { return d.second == id; });
    if (at != end) deadlines.erase(at);
  }
  requests.erase(it);
}

void Engine::State::FinishAll(RequestId id, FinishReason reason, const std::string& error,
                              std::vector<Event>* events) {
  Running& r = requests.at(id);
  OpenChoices(r);
  if (r.beams) {
    for (const SequenceId s : r.beams->sequences) {
      if (s == r.choices[0].sequence) continue;
      by_sequence.erase(s);
      scheduler.Finish(s, false);  // the first keeps the prompt
    }
  }
  for (size_t i = 0, n = r.choices.size(); i < n; ++i) {
    const bool last = r.open == 1 && !r.choices[i].finished;
    FinishChoice(id, i, reason, error, events);
    if (last) return;  // the request is gone
  }
}

bool Engine::State::Ends(const Request& request, int32_t token) const {
  const std::vector<int32_t>& own = options.end_of_generation;
  return (request.stop.end_of_generation &&
          std::find(own.begin(), own.end(), token) != own.end()) ||
         std::binary_search(request.stop.token_ids.begin(), request.stop.token_ids.end(), token);
}

/// Adds a token to a choice, and tells whether it ends it.
std::optional<FinishReason> Engine::State::TakeToken(Running& r, Choice& choice, SampledToken token,
                                                     int64_t now, RequestId id,
                                                     std::vector<Event>* events) const {
  if (choice.stats.output_tokens++ == 0) choice.stats.first_token_ns = now;
  choice.stats.last_token_ns = now;
  Event event = NewEvent(id, static_cast<size_t>(&choice - r.choices.data()), Event::Kind::kToken);
  std::optional<FinishReason> reason;
  if (Ends(r.request, token.token)) {
    reason = FinishReason::kStop;
  } else if (choice.text.Push(token.token, &event.text)) {
    reason = FinishReason::kStop;
  } else if (choice.stats.output_tokens >= r.max_tokens) {
    reason = r.limited_by_context ? FinishReason::kContext : FinishReason::kLength;
  }
  event.token = std::move(token);
  events->push_back(std::move(event));
  return reason;
}

void Engine::State::DeliverSamples(RequestId id, Scheduler::Progress& progress, int64_t now,
                                   std::vector<Event>* events) {
  Running& r = requests.at(id);
  const Sequence& sequence = *progress.sequence;
  const size_t first = by_sequence.at(sequence.id).second;
  // Several samples of the first logits: one choice each, and a fork where one goes on.
  std::vector<std::pair<size_t, FinishReason>> ended;
  OpenChoices(r);
  for (size_t i = 0; i < progress.tokens.size(); ++i) {
    const size_t index = first + i;
    const int32_t token = progress.tokens[i].token;
    const auto reason =
        TakeToken(r, r.choices[index], std::move(progress.tokens[i]), now, id, events);
    if (reason) {
      ended.emplace_back(index, *reason);
    } else if (i > 0) {
      std::unique_ptr<Sequence> child = NewSequence(r.request);
      child->sampling.stream += static_cast<uint32_t>(i);
      child->tokens = sequence.tokens;
      child->tokens.back() = token;
      child->prompt_tokens = sequence.prompt_tokens;
      child->max_tokens = sequence.max_tokens;
      r.choices[index].sequence = child->id;
      by_sequence[child->id] = {id, index};
      scheduler.Fork(sequence.id, std::move(child));
    }
  }
  // Places that were kept for choices that have ended by now.
  const bool first_goes_on =
      std::none_of(ended.begin(), ended.end(), [first](const auto& e) { return e.first == first; });
  if (progress.tokens.size() > 1 && first_goes_on) scheduler.SetPlaces(sequence.id, 1);
  for (const auto& [index, reason] : ended) FinishChoice(id, index, reason, {}, events);
}

void Engine::State::DeliverBeam(RequestId id, Scheduler::Progress& progress, int64_t now,
                                std::vector<Event>* events) {
  Running& r = requests.at(id);
  Beams& beams = *r.beams;
  const SequenceId from = progress.sequence->id;
  const auto at = std::find(beams.sequences.begin(), beams.sequences.end(), from);
  CHECK(at != beams.sequences.end());
  if (r.choices[0].stats.first_token_ns == 0) r.choices[0].stats.first_token_ns = now;
  beams.offers[at - beams.sequences.begin()] = std::move(progress.tokens.front().top);
  if (std::any_of(beams.offers.begin(), beams.offers.end(),
                  [](const auto& offer) { return offer.empty(); }))
    return;
  const std::vector<BeamSearch::Next> next = beams.search.Advance(beams.offers);
  if (next.empty()) {
    FinishBeams(id, now, events);
    return;
  }
  std::vector<bool> goes_on(beams.sequences.size(), false);
  for (const BeamSearch::Next& n : next) goes_on[n.parent] = true;
  for (size_t b = 0; b < goes_on.size(); ++b) {
    if (!goes_on[b]) EndBeam(r, beams.sequences[b]);
  }
  // The first to go on from a beam takes its sequence; others fork from it before.
  std::vector<SequenceId> sequences(next.size(), 0);
  std::vector<bool> taken(beams.sequences.size(), false);
  for (size_t i = 0; i < next.size(); ++i) {
    const SequenceId parent = beams.sequences[next[i].parent];
    if (!taken[next[i].parent]) {
      taken[next[i].parent] = true;
      sequences[i] = parent;
      continue;
    }
    const Sequence& p = *scheduler.Find(parent);
    std::unique_ptr<Sequence> child = NewSequence(r.request);
    child->tokens = p.tokens;
    child->tokens.push_back(next[i].token);
    child->prompt_tokens = p.prompt_tokens;
    child->max_tokens = p.max_tokens;
    sequences[i] = child->id;
    by_sequence[child->id] = {id, 0};
    scheduler.Fork(parent, std::move(child));
  }
  std::fill(taken.begin(), taken.end(), false);
  for (const BeamSearch::Next& n : next) {
    if (taken[n.parent]) continue;
    taken[n.parent] = true;
    scheduler.Append(beams.sequences[n.parent], n.token);
  }
  beams.sequences = std::move(sequences);
  beams.offers.assign(next.size(), {});
  r.choices[0].sequence = beams.sequences[0];
  // However few they are now, they may be `beam_width` in the next step: the first keeps the rest.
  for (const SequenceId s : beams.sequences) scheduler.SetPlaces(s, 1);
  const auto others = static_cast<int32_t>(beams.sequences.size()) - 1;
  scheduler.SetPlaces(beams.sequences[0], r.request.beam_width - others);
}

/// What it computed stays in the cache as far as a text came of it that, by now, will be told:
/// nobody goes on from the others.
void Engine::State::EndBeam(const Running& r, SequenceId sequence) {
  const Sequence& s = *scheduler.Find(sequence);
  const int32_t used = r.beams->search.Used(
      std::span(s.tokens).subspan(static_cast<size_t>(s.prompt_tokens)), r.request.n);
  by_sequence.erase(sequence);
  scheduler.Finish(sequence, used >= 0, s.prompt_tokens + std::max(used, 0));
}

void Engine::State::FinishBeams(RequestId id, int64_t now, std::vector<Event>* events) {
  Running& r = requests.at(id);
  std::vector<BeamSearch::Hypothesis> best = r.beams->search.Best(r.request.n);
  const SequenceTimes times = scheduler.TimesUntil(r.beams->sequences[0], now);
  r.choices[0].stats.preemptions = scheduler.Find(r.beams->sequences[0])->preemptions;
  for (const SequenceId s : r.beams->sequences) EndBeam(r, s);
  r.beams->sequences.clear();
  OpenChoices(r);
  best.resize(r.choices.size(), {.ended = true});  // empty where there were too few to choose from
  // All tokens of all choices, then their ends.
  for (size_t i = 0; i < best.size(); ++i) {
    for (SampledToken& token : best[i].tokens) {
      TakeToken(r, r.choices[i], std::move(token), now, id, events);
    }
    r.choices[i].stats.first_token_ns = now;
  }
  const FinishReason length = r.limited_by_context ? FinishReason::kContext : FinishReason::kLength;
  for (size_t i = 0; i < best.size(); ++i) {
    FinishChoice(id, i, best[i].ended ? FinishReason::kStop : length, {}, events);
    events->back().beam_score = best[i].score;
    events->back().stats.times = times;
  }
}

void Engine::State::Deliver(Scheduler::Progress& progress, int64_t now,
                            std::vector<Event>* events) {
  const Sequence& seq = *progress.sequence;
  const auto known = by_sequence.find(seq.id);
  CHECK(known != by_sequence.end());
  const auto [id, index] = known->second;
  Running& r = requests.at(id);
  Choice& choice = r.choices[index];
  if (choice.stats.output_tokens == 0) {
    choice.stats.cached_tokens = seq.cached_tokens;
    choice.stats.cache = {.cached_tokens = seq.cached_tokens,
                          .reason = seq.miss,
                          .diverged_had = seq.match.diverged_had,
                          .diverged_got = seq.match.diverged_got,
                          .diverged_tenant = seq.match.diverged_tenant,
                          .evicted_steps_ago = seq.match.evicted_step == 0
                                                   ? 0
                                                   : seq.admitted_step - seq.match.evicted_step,
                          .evicted_for = seq.match.evicted_for};
  }
  if (progress.error) {
    if (r.choices.size() < static_cast<size_t>(r.request.n) || r.beams) {
      FinishAll(id, FinishReason::kError, progress.error->message, events);
    } else {
      FinishChoice(id, index, FinishReason::kError, progress.error->message, events);
    }
    return;
  }
  if (choice.stats.first_token_ns == 0) {
    Event event = NewEvent(id, index, Event::Kind::kPrefill);
    event.prefill_done = std::min(seq.kv.computed, seq.prompt_tokens);
    event.prefill_total = seq.prompt_tokens;
    event.stats = choice.stats;
    event.stats.times = seq.times;
    event.prompt_logprobs.assign(std::move_iterator(progress.prompt_logprobs.begin()),
                                 std::move_iterator(progress.prompt_logprobs.end()));
    events->push_back(std::move(event));
  }
  if (progress.tokens.empty()) return;
  if (r.beams) {
    DeliverBeam(id, progress, now, events);
  } else {
    DeliverSamples(id, progress, now, events);
  }
}

bool Engine::Step(std::vector<Event>* events) {
  State& s = *state_;
  for (const RequestId id : std::exchange(s.cancelled, {})) {
    if (s.requests.count(id) != 0) s.FinishAll(id, FinishReason::kCancelled, {}, events);
  }
  const int64_t begin = s.clock->NowNs();
  while (!s.deadlines.empty() && s.deadlines.begin()->first <= begin) {
    const RequestId id = s.deadlines.begin()->second;
    s.deadlines.erase(s.deadlines.begin());
    s.FinishAll(id, FinishReason::kDeadline, {}, events);
  }
  const uint64_t preemptions = s.scheduler.counters().preemptions;
  const StepPlan& plan = s.scheduler.Plan(begin);
  if (plan.slices.empty()) return !s.requests.empty();
  s.executor->Submit(plan);
  StepResult& result = s.executor->Collect();
  const int64_t now = s.clock->NowNs();
  const double seconds = SecondsBetween(begin, now);
  s.step_log.Add(
      plan, result.work,
      {.start_ns = begin,
       .seconds = seconds,
       .limit_s = s.scheduler.step_limit(),
       .running = static_cast<int32_t>(s.scheduler.running()),
       .waiting = static_cast<int32_t>(s.scheduler.waiting()),
       .preempted = static_cast<int32_t>(s.scheduler.counters().preemptions - preemptions)});
  s.scheduler.Measured(seconds);
  for (Scheduler::Progress& progress : s.scheduler.Commit(result, now)) {
    // A sequence may be gone with one before it: beams end together.
    if (s.by_sequence.count(progress.id) != 0) s.Deliver(progress, now, events);
  }
  return true;
}

void Engine::SetTenant(uint64_t tenant, const TenantOptions& options) {
  state_->tenants[tenant] = options;
  state_->scheduler.SetTenant(tenant, options);
}

void Engine::DropCache() { state_->scheduler.DropCache(); }

uint64_t Engine::queue_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [sequence, where] : state_->by_sequence) {
    const Sequence* s = state_->scheduler.Find(sequence);
    bytes += sizeof(Sequence) + sizeof(Choice) + s->tokens.capacity() * sizeof(int32_t);
    for (const BlockTable& table : s->kv.tables)
      bytes += static_cast<uint64_t>(table.size()) * (sizeof(BlockRef) + sizeof(BlockId));
    bytes += s->kv.path.capacity() * sizeof(void*);
  }
  for (const auto& [id, r] : state_->requests)
    bytes += sizeof(Running) + (r.beams ? r.beams->search.bytes() : 0);
  return bytes;
}

const KvManager& Engine::kv() const { return state_->kv; }

const StepLog& Engine::step_log() const { return state_->step_log; }

const Clock& Engine::clock() const { return *state_->clock; }

const Scheduler& Engine::scheduler() const { return state_->scheduler; }

}  // namespace kvasir
