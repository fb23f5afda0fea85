#include "openai/completion_request.h"

#include <atomic>
#include <charconv>
#include <set>

#include "api/chat_prompt.h"
#include "base/rng.h"
#include "openai/chat_messages.h"
#include "openai/field_reader.h"
#include "openai/reasoning.h"
#include "text/detokenizer.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// Answers of one body: prompts times the choices of each. An answer takes memory before its first
/// token, whether there is room for it in the engine or not.
constexpr int64_t kMostChoices = 1024;
constexpr int32_t kMostTopLogprobs = 20;

uint64_t NewSeed(int64_t now) {
  static std::atomic<uint64_t> counter{0};
  const uint64_t n = counter.fetch_add(1);
  const auto bits = Philox4x32(static_cast<uint64_t>(now),
                               {static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), 0, 0});
  return uint64_t{bits[0]} << 32 | bits[1];
}

void ReadStop(FieldReader* f, int32_t vocab, StopRules* out) {
  const Json* stop = f->Get("stop");
  if (stop != nullptr && stop->is_string()) {
    out->strings.push_back(stop->get<std::string>());
  } else if (stop != nullptr) {
    if (!stop->is_array()) return f->Fail("stop", "must be a string or a list of strings");
    for (const Json& s : *stop) {
      if (!s.is_string()) return f->Fail("stop", "must be a string or a list of strings");
      out->strings.push_back(s.get<std::string>());
    }
    if (out->strings.size() > kMaxStopStrings)
      return f->Fail("stop", fmt::format("has {} strings; {} are possible", out->strings.size(),
                                         kMaxStopStrings));
  }
  const Json* ids = f->Get("stop_token_ids");
  if (ids == nullptr) return;
  if (!ids->is_array()) return f->Fail("stop_token_ids", "must be a list of token ids");
  if (ids->size() > kMaxStopTokens)
    return f->Fail("stop_token_ids",
                   fmt::format("has {} ids; {} are possible", ids->size(), kMaxStopTokens));
  for (const Json& id : *ids) {
    if (!id.is_number_integer() || id < 0 || id >= vocab)
      return f->Fail("stop_token_ids",
                     fmt::format("must be a list of token ids from 0 to {}", vocab - 1));
    out->token_ids.push_back(id.get<int32_t>());
  }
}

void ReadLogitBias(FieldReader* f, SamplingParams* out) {
  const Json* bias = f->Get("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object())
    return f->Fail("logit_bias", "must be an object of token ids and numbers");
  std::set<int32_t> seen;
  for (const auto& [key, value] : bias->items()) {
    int32_t token = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), token);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || !value.is_number())
      return f->Fail("logit_bias", "must be an object of token ids and numbers");
    if (!seen.insert(token).second)
      return f->Fail("logit_bias", fmt::format("has the token {} twice; leave one out", token));
    out->logit_bias.emplace_back(token, value.get<float>());
  }
}

/// -1 is no limit, as llama-server and LM Studio have it.
void ReadMaxTokens(FieldReader* f, const char* name, int32_t least, int32_t* out) {
  const Json* value = f->Get(name);
  if (value != nullptr && value->is_number_integer() && *value == -1) {
    *out = -1;
  } else {
    f->Int(name, out, least, INT32_MAX);
  }
}

/// The engine's own checks of what is copied for each prompt, before it is.
void CheckRules(FieldReader* f, const Request& r, int32_t vocab) {
  // All else that is checked of the sampling was read within its range.
  if (const Status s = Validate(r.sampling, vocab); !s.ok())
    f->Refuse("logit_bias", s.error().message);
  if (const Status s = Validate(r.stop, vocab); !s.ok()) f->Refuse("stop", s.error().message);
}

/// OpenAI's fields that change no answer here.
void ReadForOthers(FieldReader* f) {
  std::string text;
  bool store = false;
  f->String("user", &text);
  f->Object("metadata");
  f->Bool("store", &store);
  f->String("service_tier", &text);
}

/// What both endpoints have.
void ReadCommon(FieldReader* f, int32_t vocab, CompletionRequest* out, Request* r, int64_t now) {
  SamplingParams& p = r->sampling;
  f->String("model", &out->model);
  f->Bool("stream", &out->stream);
  f->Int("n", &r->n, 1, 128);
  p.temperature = 1;  // the API's default
  f->Number("temperature", &p.temperature, 0, 100);
  f->Number("top_p", &p.top_p, 0, 1);
  f->Number("presence_penalty", &p.presence_penalty, -2, 2);
  f->Number("frequency_penalty", &p.frequency_penalty, -2, 2);
  p.seed = NewSeed(now);
  int64_t seed = 0;
  if (f->Get("seed") != nullptr) {
    f->Int("seed", &seed, INT64_MIN, INT64_MAX);
    p.seed = static_cast<uint64_t>(seed);
  }
  ReadLogitBias(f, &p);
  ReadStop(f, vocab, &r->stop);
  // Extensions, named as in vLLM and llama.cpp.
  f->Int("top_k", &p.top_k, -1, INT32_MAX);
  p.top_k = std::max(p.top_k, 0);
  f->Number("min_p", &p.min_p, 0, 1);
  f->Number("typical_p", &p.typical_p, 0, 1);
  f->Number("repeat_penalty", &p.repetition_penalty, 0.01, 100);
  f->Number("repetition_penalty", &p.repetition_penalty, 0.01, 100);
  f->Int("min_tokens", &p.min_tokens, 0, INT32_MAX);
  f->Bool("ignore_eos", &p.ignore_eos);
  // As in vLLM the lowest goes first; in the engine it is the highest.
  int32_t priority = 0;
  f->Int("priority", &priority, -100, 100);
  r->priority = -priority;
  f->Int("prompt_logprobs", &r->prompt_logprobs, 0, kMostTopLogprobs);
  out->prompt_logprobs = r->prompt_logprobs >= 0;
  // They would be whole only with the last chunk of the prompt; nobody else sends them in a stream.
  if (out->stream && out->prompt_logprobs)
    f->Fail("prompt_logprobs", "is not possible with stream; leave one of them out, or use echo");
  bool special = true;
  f->Bool("skip_special_tokens", &special);
  r->special = !special;
  bool beams = false;
  f->Bool("use_beam_search", &beams);
  f->Int("beam_width", &r->beam_width, 1, 128);
  f->Number("length_penalty", &r->length_penalty, -10, 10);
  if (f->Get("use_beam_search") != nullptr && !beams && r->beam_width > 0)
    f->Fail("beam_width", fmt::format("is {}, and use_beam_search is false; leave one of them out",
                                      r->beam_width));
  f->Number("timeout_s", &r->deadline_s, 0, 1e6);
  f->Bool("return_progress", &out->return_progress);
  f->Bool("kvasir_report", &out->report);
  ReadForOthers(f);
  CheckRules(f, *r, vocab);
  if (beams && r->beam_width == 0) r->beam_width = r->n;
  // As it is, which is what the API's default stands for.
  if (r->beam_width > 0 && p.temperature == 1) p.temperature = 0;
  if (r->beam_width > 0 && r->n > r->beam_width) {
    f->Fail("n", fmt::format("is {}, and beam search keeps only {} (beam_width); ask for fewer",
                             r->n, r->beam_width));
  }
  if (const Json* options = f->Get("stream_options"); options != nullptr) {
    if (!options->is_object()) return f->Fail("stream_options", "must be an object");
    FieldReader inner(*options, "stream_options.");
    inner.Bool("include_usage", &out->include_usage);
    if (inner.error()) f->Fail(inner.error()->param, "must be true or false");
    if (!out->stream) f->Fail("stream_options", "needs stream to be true");
  }
}

/// What would change or bind the answer and Kvasir does not have: ignored, the answer would be
/// taken for one that keeps to it.
struct Unsupported {
  const char* field;
  const char* what;
  const char* harmless = "null";  // JSON: a value that asks for nothing
};
constexpr const char* kNoForm =
    "is not supported: answers cannot be held to a form; leave it out, and check the answer";
constexpr const char* kNoWords = "is not supported; leave it out, or use logit_bias";
constexpr Unsupported kUnsupported[] = {
    {"tools", "are not supported yet; leave them out", "[]"},
    {"tool_choice", "is not supported yet; leave it out, or use \"none\"", "\"none\""},
    {"functions", "are not supported; leave them out"},
    {"function_call", "is not supported; leave it out, or use \"none\"", "\"none\""},
    {"cache_salt", "is not taken from clients: an API key decides what is shared"},
    {"guided_json", kNoForm},
    {"guided_regex", kNoForm},
    {"guided_choice", kNoForm},
    {"guided_grammar", kNoForm},
    {"structured_outputs", kNoForm},
    {"grammar", kNoForm, "\"\""},
    {"json_schema", kNoForm},
    {"allowed_token_ids", kNoWords},
    {"bad_words", kNoWords, "[]"},
    {"chat_template", "is not taken from clients: the model's own is used; leave it out"},
    {"continue_final_message",
     "is not supported; leave it out, or send the rendered text to /v1/completions", "false"},
};

void RefuseUnsupported(FieldReader* f) {
  if (const Json* format = f->Get("response_format"); format != nullptr) {
    if (!format->is_object() || !format->contains("type") || !(*format)["type"].is_string())
      return f->Fail("response_format", "must be an object with a type");
    if ((*format)["type"] != "text")
      return f->Fail("response_format", "of type " + (*format)["type"].dump() +
                                            " is not supported yet; only \"text\" is");
  }
  for (const Unsupported& row : kUnsupported) {
    const Json* value = f->Get(row.field);
    if (value != nullptr && *value != Json::parse(row.harmless)) f->Fail(row.field, row.what);
  }
}

/// The tokens of a prompt's text. One that is longer than any text of the context is refused
/// unread: what it takes to read it is time that others wait.
std::vector<int32_t> EncodePrompt(const LoadedModel& model, FieldReader* f, const char* field,
                                  const std::string& text) {
  const int64_t context = model.plan().context;
  const auto longest = static_cast<int64_t>(model.tokenizer().longest_token());
  if (static_cast<int64_t>(text.size()) > context * longest) {
    f->Refuse(field,
              fmt::format("This model's maximum context length is {} tokens, of {} bytes at most, "
                          "and there are {} bytes in the {}; send fewer",
                          context, longest, text.size(), field),
              "context_length_exceeded");
    return {};
  }
  return model.tokenizer().Encode(text, {.add_special = true, .parse_special = true});
}

void ReadChat(const LoadedModel& model, FieldReader* f, CompletionRequest* out, Request r,
              int64_t now) {
  const Json messages = ReadMessages(f);
  ReadMaxTokens(f, "max_tokens", 1, &r.max_tokens);
  ReadMaxTokens(f, "max_completion_tokens", 1, &r.max_tokens);
  int32_t top = 0;
  f->Bool("logprobs", &out->logprobs);
  f->Int("top_logprobs", &top, 0, kMostTopLogprobs);
  if (top > 0 && !out->logprobs) f->Fail("top_logprobs", "needs logprobs to be true");
  if (out->logprobs) r.sampling.logprobs = top;
  const Json arguments = ReadTemplateArguments(f);
  std::string reasoning = "auto";
  f->String("reasoning_format", &reasoning);
  if (reasoning != "auto" && reasoning != "none" && reasoning != "deepseek")
    f->Fail("reasoning_format", "must be \"auto\", \"deepseek\" or \"none\"");
  if (f->error()) return;
  Result<std::string> text = RenderChat(model, messages, arguments, now);
  if (!text.ok()) return f->Fail("messages", "cannot be rendered: " + text.error().message);
  out->split_reasoning = reasoning != "none" && ThinksInTags(model.chat_template_source());
  out->thinking_begun = out->split_reasoning && EndsThinking(*text);
  r.prompt = EncodePrompt(model, f, "messages", *text);
  if (r.prompt.empty()) f->Fail("messages", "give a prompt without tokens; send some text");
  out->requests.push_back(std::move(r));
}

/// prompt: a string, a list of strings, a list of token ids, or a list of such lists. Each has
/// `choices` answers.
std::vector<std::vector<int32_t>> ReadPrompts(const LoadedModel& model, FieldReader* f,
                                              int32_t choices) {
  std::vector<std::vector<int32_t>> out;
  const Json* prompt = f->Get("prompt");
  const auto fail = [&] {
    f->Fail("prompt",
            "must be a string, a list of strings, a list of token ids, or a list of such lists");
    return std::vector<std::vector<int32_t>>();
  };
  const auto encode = [&](const Json& text) {
    out.push_back(EncodePrompt(model, f, "prompt", text.get_ref<const std::string&>()));
  };
  const auto ids = [&](const Json& list) {
    std::vector<int32_t> tokens;
    for (const Json& id : list) {
      if (!id.is_number_integer()) return false;
      if (id < 0 || id >= model.tokenizer().vocab_size()) {
        f->Fail("prompt", fmt::format("has the token {}; the vocabulary has {}", id.dump(),
                                      model.tokenizer().vocab_size()));
        return true;
      }
      tokens.push_back(id.get<int32_t>());
    }
    out.push_back(std::move(tokens));
    return true;
  };
  if (prompt == nullptr) return fail();
  if (prompt->is_string()) {
    encode(*prompt);
    return out;
  }
  if (!prompt->is_array() || prompt->empty()) return fail();
  if ((*prompt)[0].is_number()) {
    if (!ids(*prompt)) return fail();
    return out;
  }
  if (static_cast<int64_t>(prompt->size()) * choices > kMostChoices) {
    f->Fail("prompt", fmt::format("has {} prompts, and each {} choices; {} choices are possible in "
                                  "one request: send several",
                                  prompt->size(), choices, kMostChoices));
    return out;
  }
  for (const Json& one : *prompt) {
    if (one.is_string()) {
      encode(one);
    } else if (!one.is_array() || !ids(one)) {
      return fail();
    }
  }
  return out;
}

void ReadPlain(const LoadedModel& model, FieldReader* f, CompletionRequest* out, Request r) {
  Request common = std::move(r);
  common.max_tokens = 16;  // the API's default
  ReadMaxTokens(f, "max_tokens", 0, &common.max_tokens);
  f->Bool("echo", &out->echo);
  int32_t logprobs = -1, best_of = common.n;
  f->Int("logprobs", &logprobs, 0, kMostTopLogprobs);
  out->logprobs = logprobs >= 0;
  common.sampling.logprobs = logprobs;
  if (out->echo && out->logprobs)
    common.prompt_logprobs = std::max(common.prompt_logprobs, logprobs);
  f->Int("best_of", &best_of, 1, 128);
  if (best_of != common.n && best_of != common.beam_width)
    f->Fail("best_of",
            fmt::format(
                "is {}, and n is {}: choosing among more than n is not supported; use beam_width",
                best_of, common.n));
  if (const Json* suffix = f->Get("suffix"); suffix != nullptr && *suffix != "")
    f->Fail("suffix", "is not supported; leave it out");
  if (common.max_tokens == 0) {
    if (!out->echo)
      f->Fail("max_tokens", "is 0, which is possible with echo only; use 1 or more, or echo");
    out->only_prompt = true;
    common.max_tokens = 1;
  }
  std::vector<std::vector<int32_t>> prompts =
      ReadPrompts(model, f, std::max(common.n, common.beam_width));
  for (const std::vector<int32_t>& tokens : prompts) {
    if (tokens.empty()) f->Fail("prompt", "has no tokens; send at least one");
  }
  if (f->error()) return;
  for (std::vector<int32_t>& tokens : prompts) {
    if (out->echo) out->prompt_texts.push_back(EchoText(model.tokenizer(), tokens, common.special));
    out->requests.push_back(common);
    out->requests.back().prompt = std::move(tokens);
  }
}

/// Beam search on another distribution than the model's, or what it does not know.
void RefuseWithBeams(FieldReader* f, const CompletionRequest& r) {
  if (r.requests.empty() || r.requests[0].beam_width == 0) return;
  const char* name = ForbiddenWithBeams(r.requests[0]);
  if (name == nullptr) return;
  const bool plain = r.endpoint == Endpoint::kCompletions;
  if (plain && std::string_view(name) == "top_logprobs") name = "logprobs";
  f->Fail(name,
          "is not possible with beam search, which keeps to the model's own distribution; "
          "leave it out, or use_beam_search and beam_width");
}

}  // namespace

std::string EchoText(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt, bool special) {
  Detokenizer text(tokenizer, special, true);
  std::string out;
  for (const int32_t token : prompt) out += text.Push(token);
  return out;  // without what the end cuts, as in an answer
}

ParsedCompletion ParseCompletion(const LoadedModel& model, Endpoint endpoint, const Json& body,
                                 int64_t now) {
  if (!body.is_object())
    return ApiError{.message = "the body is not a JSON object", .param = {}, .code = {}};
  CompletionRequest out;
  out.endpoint = endpoint;
  FieldReader f(body);
  Request common;
  ReadCommon(&f, model.tokenizer().vocab_size(), &out, &common, now);
  RefuseUnsupported(&f);
  if (endpoint == Endpoint::kChat) {
    ReadChat(model, &f, &out, std::move(common), now);
  } else {
    ReadPlain(model, &f, &out, std::move(common));
  }
  RefuseWithBeams(&f, out);
  if (f.error()) return *f.error();
  out.unknown_fields = f.Unknown();
  return out;
}

}  // namespace kvasir
