#include "openai/completion_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

/// Of a token as JSON, with its log probability and those of `top` others.
size_t TokenBytesOf(size_t top) { return 100 * (1 + top); }

using Json = nlohmann::ordered_json;

/// A token's text as JSON can hold it, and its bytes.
Json TokenJson(int32_t token, float logprob, const Tokenizer& tokenizer) {
  const std::string bytes = tokenizer.TokenBytes(token, true);
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return {{"token", ReplaceInvalidUtf8(bytes)}, {"logprob", logprob}, {"bytes", std::move(list)}};
}

/// As the older form of log probabilities has it.
std::string NameOf(int32_t token, const Tokenizer& tokenizer) {
  std::string bytes = tokenizer.TokenBytes(token, true);
  if (IsValidUtf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const char c : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return name;
}

/// Of valid UTF-8.
size_t Characters(std::string_view text) {
  constexpr unsigned char kTop = 0xc0, kContinues = 0x80;
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & kTop) != kContinues;
  }));
}

constexpr const char* kMissNames[] = {"none", "never_seen", "diverged", "evicted", "window"};

}  // namespace

std::string FinishReasonOf(FinishReason reason) {
  return reason == FinishReason::kStop || reason == FinishReason::kCancelled ? "stop" : "length";
}

void UsageCount::Add(const RequestStats& s, size_t prompt, int32_t choice) {
  output_tokens += s.output_tokens;
  if (s.output_tokens > 0) {
    first_token_ns = begun == 0 ? s.first_token_ns : std::min(first_token_ns, s.first_token_ns);
    last_token_ns = std::max(last_token_ns, s.last_token_ns);
    ++begun;
  }
  if (choice != 0) return;
  if (prompt == 0) ttft_s = s.ttft_seconds();
  prompt_s += s.times.prefill;
  prompt_tokens += s.prompt_tokens;
  cached_tokens += s.cached_tokens;
}

Json UsageJson(const UsageCount& u) {
  return {{"prompt_tokens", u.prompt_tokens},
          {"completion_tokens", u.output_tokens},
          {"total_tokens", u.prompt_tokens + u.output_tokens},
          {"prompt_tokens_details", {{"cached_tokens", u.cached_tokens}}}};
}

Json TimingsJson(const UsageCount& u) {
  const auto computed = static_cast<double>(u.prompt_tokens - u.cached_tokens);
  // A choice's first token comes with the prompt: its time is not among those of decoding.
  const auto decoded = static_cast<double>(u.output_tokens - u.begun);
  const double decode_s = SecondsBetween(u.first_token_ns, u.last_token_ns);
  const auto ratio = [](double of, double to) { return to > 0 ? of / to : 0; };
  return {{"cache_n", u.cached_tokens},
          {"prompt_n", u.prompt_tokens - u.cached_tokens},
          {"ttft_ms", u.ttft_s * 1e3},
          {"prompt_ms", u.prompt_s * 1e3},
          {"prompt_per_token_ms", ratio(u.prompt_s * 1e3, computed)},
          {"prompt_per_second", ratio(computed, u.prompt_s)},
          {"predicted_n", u.output_tokens},
          {"predicted_ms", decode_s * 1e3},
          {"predicted_per_token_ms", ratio(decode_s * 1e3, decoded)},
          {"predicted_per_second", ratio(decoded, decode_s)}};
}

std::string TenantName(uint64_t tenant, const TenantNames& names) {
  const auto it = names.find(tenant);
  return it == names.end() ? "?" : it->second;
}

void DropOutput(Event* e) {
  e->text.clear();
  e->stats.output_tokens = 0;
  if (e->reason == FinishReason::kStop) e->reason = FinishReason::kLength;
}

Json ReportJson(const RequestStats& s, uint64_t tenant, const TenantNames* names,
                const Tokenizer& tokenizer) {
  const CacheReport cache = ForClient(s.cache, tenant);
  const auto text = [&](int32_t token) {
    return token < 0 ? Json() : Json(ReplaceInvalidUtf8(tokenizer.TokenBytes(token, true)));
  };
  Json miss = {{"cached_tokens", cache.cached_tokens},
               {"ended_because", kMissNames[static_cast<int>(cache.reason)]}};
  if (cache.reason == MissReason::kDiverged) {
    miss["diverged_at"] = cache.cached_tokens;
    miss["cached_had"] = text(cache.diverged_had);
    miss["prompt_has"] = text(cache.diverged_got);
    if (names != nullptr) miss["diverged_from"] = TenantName(s.cache.diverged_tenant, *names);
  }
  if (cache.reason == MissReason::kEvicted) {
    miss["evicted_steps_ago"] = cache.evicted_steps_ago;
    if (names != nullptr) miss["evicted_for"] = TenantName(s.cache.evicted_for, *names);
  }
  const SequenceTimes& t = s.times;
  return {{"cache", std::move(miss)},
          {"seconds",
           {{"total", SecondsBetween(s.submitted_ns, s.finished_ns)},
            {"queue", t.queue},
            {"waiting_for_shared_prefix", t.prefix},
            {"prefill", t.prefill},
            {"others_prefill", t.others},
            {"preempted", t.preempted},
            {"decode", t.decode},
            {"output", t.output}}},
          {"preemptions", s.preemptions}};
}

Json ChatLogprobJson(const SampledToken& token, const Tokenizer& tokenizer) {
  Json out = TokenJson(token.token, token.logprob, tokenizer);
  out["top_logprobs"] = Json::array();
  for (const TokenLogprob& t : token.top)
    out["top_logprobs"].push_back(TokenJson(t.token, t.logprob, tokenizer));
  return out;
}

size_t ChoiceIndex(const CompletionRequest& r, size_t prompt, int32_t choice) {
  // All prompts of a body ask for the same number of choices.
  return prompt * static_cast<size_t>(r.requests[prompt].n) + static_cast<size_t>(choice);
}

size_t ChoiceCount(const CompletionRequest& r) {
  size_t count = 0;
  for (const Request& one : r.requests) count += static_cast<size_t>(one.n);
  return count;
}

size_t PromptBytes(const CompletionRequest& r) {
  size_t bytes = 0;
  for (size_t i = 0; i < r.requests.size(); ++i) {
    const Request& one = r.requests[i];
    const size_t text = r.echo ? r.prompt_texts[i].size() : 0;
    const size_t tokens = one.prompt_logprobs < 0 ? 0 : one.prompt.size();
    bytes += one.n * (text + tokens * TokenBytesOf(one.prompt_logprobs));
  }
  return bytes;
}

PlainLogprobs::PlainLogprobs(const Tokenizer* tokenizer, bool special)
    : tokenizer_(tokenizer),
      special_(special),
      text_(*tokenizer, special),
      names_(Json::array()),
      logprobs_(Json::array()),
      tops_(Json::array()),
      offsets_(Json::array()) {}

void PlainLogprobs::AddName(int32_t token) {
  names_.push_back(NameOf(token, *tokenizer_));
  const std::string text = text_.Push(token);
  offsets_.push_back(offset_ + text_.before_token());
  offset_ += Characters(text);
}

void PlainLogprobs::AddPrompt(int32_t first, const std::vector<SampledToken>& rest) {
  text_ = Detokenizer(*tokenizer_, special_, true);
  AddName(first);
  logprobs_.push_back(nullptr);
  tops_.push_back(nullptr);
  for (const SampledToken& t : rest) Add(t);
  // The answer's text begins anew, also amid a character.
  text_ = Detokenizer(*tokenizer_, special_);
}

void PlainLogprobs::Add(const SampledToken& t) {
  AddName(t.token);
  logprobs_.push_back(t.logprob);
  // Two tokens may have one name; the first is the more likely one.
  Json top = Json::object();
  for (const TokenLogprob& o : t.top) top.emplace(NameOf(o.token, *tokenizer_), o.logprob);
  top.emplace(names_.back().get<std::string>(), t.logprob);
  tops_.push_back(std::move(top));
}

Json PlainLogprobs::Take() {
  return {{"tokens", std::exchange(names_, Json::array())},
          {"token_logprobs", std::exchange(logprobs_, Json::array())},
          {"top_logprobs", std::exchange(tops_, Json::array())},
          {"text_offset", std::exchange(offsets_, Json::array())}};
}

AnswerBuilder::AnswerBuilder(const CompletionRequest* request, const Tokenizer* tokenizer)
    : request_(request),
      tokenizer_(tokenizer),
      choices_(ChoiceCount(*request), {.splitter = ReasoningSplitter(request->thinking_begun),
                                       .reasoning = {},
                                       .text = {},
                                       .tokens = {},
                                       .stats = {}}),
      open_(request->requests.size()) {
  for (size_t i = 0; i < request->prompt_texts.size(); ++i)
    bytes_ += request->requests[i].n * request->prompt_texts[i].size();
}

void AnswerBuilder::AddText(Choice* c, std::string&& text, bool end) const {
  if (!request_->split_reasoning) {
    c->text += text;
    return;
  }
  const auto add = [c](const ReasoningSplitter::Piece& piece) {
    c->reasoning += piece.reasoning;
    c->text += piece.content;
  };
  add(c->splitter.Push(text));
  if (end) add(c->splitter.Finish());
}

void AnswerBuilder::Add(size_t prompt, Event&& e) {
  if (request_->only_prompt) DropOutput(&e);
  Choice& c = choices_[ChoiceIndex(*request_, prompt, e.choice)];
  switch (e.kind) {
    case Event::Kind::kPrefill:
      prompt_logprobs_.resize(request_->requests.size());
      for (SampledToken& t : e.prompt_logprobs) {
        bytes_ += request_->requests[prompt].n * TokenBytesOf(t.top.size());
        prompt_logprobs_[prompt].push_back(std::move(t));
      }
      return;
    case Event::Kind::kToken:
      bytes_ += e.text.size() + (request_->logprobs ? TokenBytesOf(e.token.top.size()) : 0);
      AddText(&c, std::move(e.text), false);
      if (request_->logprobs && !request_->only_prompt) c.tokens.push_back(std::move(e.token));
      return;
    case Event::Kind::kFinished:
      AddText(&c, std::move(e.text), true);
      c.reason = e.reason;
      c.stats = e.stats;
      c.finished = true;
      usage_.Add(e.stats, prompt, e.choice);
      if (e.reason == FinishReason::kError && error_.empty()) error_ = e.error;
      if (e.last) --open_;
  }
}

/// The older form; with `echo` the prompt's tokens come first.
Json AnswerBuilder::PlainLogprobsJson(const Choice& c, size_t prompt) const {
  const Request& request = request_->requests[prompt];
  PlainLogprobs list(tokenizer_, request.special);
  if (request_->echo && prompt < prompt_logprobs_.size())
    list.AddPrompt(request.prompt[0], prompt_logprobs_[prompt]);
  for (const SampledToken& t : c.tokens) list.Add(t);
  return list.Take();
}

Json AnswerBuilder::ChoiceJson(size_t index) const {
  const Choice& c = choices_[index];
  const size_t prompt = index / static_cast<size_t>(request_->requests[0].n);
  Json out = {{"index", index}};
  if (request_->endpoint == Endpoint::kChat) {
    out["message"] = {{"role", "assistant"}, {"content", c.text}};
    if (!c.reasoning.empty()) out["message"]["reasoning_content"] = c.reasoning;
    out["logprobs"] = nullptr;
    if (request_->logprobs) {
      Json content = Json::array();
      for (const SampledToken& t : c.tokens) content.push_back(ChatLogprobJson(t, *tokenizer_));
      out["logprobs"] = {{"content", std::move(content)}};
    }
  } else {
    out["text"] = request_->echo ? request_->prompt_texts[prompt] + c.text : c.text;
    out["logprobs"] = request_->logprobs ? PlainLogprobsJson(c, prompt) : Json();
  }
  out["finish_reason"] = FinishReasonOf(c.reason);
  if (request_->prompt_logprobs && prompt < prompt_logprobs_.size()) {
    Json list = Json::array({nullptr});
    for (const SampledToken& t : prompt_logprobs_[prompt])
      list.push_back(ChatLogprobJson(t, *tokenizer_));
    out["prompt_logprobs"] = std::move(list);
  }
  return out;
}

Json AnswerBuilder::Body(const AnswerHead& head) const {
  Json choices = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (choices_[i].finished) choices.push_back(ChoiceJson(i));
  }
  Json usage = UsageJson(usage_);
  if (request_->report)
    usage["kvasir"] = ReportJson(choices_[0].stats, request_->requests[0].tenant,
                                 request_->names.get(), *tokenizer_);
  return {{"id", head.id},
          {"object", request_->endpoint == Endpoint::kChat ? "chat.completion" : "text_completion"},
          {"created", head.created},
          {"model", head.model},
          {"choices", std::move(choices)},
          {"usage", std::move(usage)},
          {"timings", TimingsJson(usage_)}};
}

}  // namespace kvasir
