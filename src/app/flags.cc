#include "app/flags.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <utility>

#include "app/model_path.h"

namespace kvasir {

std::string NotEmpty(const std::string& model) {
  return model.empty() ? "is empty; name a GGUF file, or leave it out for the default model" : "";
}

void AddModelFlag(CLI::App* app, ModelFlags* f) {
  app->add_option("model,-m,--model", f->model,
                  "GGUF file, or the name of one in the model folder (default: " +
                      std::string(kDefaultModel) + ")")
      ->check(NotEmpty)
      ->type_name("MODEL");
}

void AddComputeFlags(CLI::App* app, ModelFlags* f) {
  AddModelFlag(app, f);
  AddComputeOptions(app, f);
}

void AddComputeOptions(CLI::App* app, ModelFlags* f) {
  app->add_option("-t,--threads", f->threads, "threads; 0: one for each physical core")
      ->type_name("N");
  app->add_option("-c,--ctx,--ctx-size,--max-model-len", f->context,
                  "longest sequence in tokens; 0: the model's own, or what fits")
      ->type_name("N");
  app->add_option("--kv-dtype", f->kv_dtype, "how K and V are stored: bf16, f16, f32 or int8")
      ->type_name("TYPE");
  app->add_option("--kv-memory", f->kv_memory,
                  "size of the KV pool, e.g. 2G (default: one full context)")
      ->type_name("SIZE");
  app->add_option("--block-tokens", f->block_tokens,
                  "tokens of a KV block: 16, 32, 64, 128, 256 or 512")
      ->type_name("N");
  app->add_option("--step-tokens", f->step_tokens,
                  "tokens computed in one step, at most (default: 512, or twice the sequences at "
                  "once where that is more)")
      ->type_name("N");
  app->add_flag("--no-pin", f->no_pin,
                "let threads move between cores (they may where there are fewer than cores)");
  app->add_flag(
      "--fast", f->fast,
      "needs AVX-512 or AMX: quantized weights and their inputs as integers with one scale for "
      "256: faster, less accurate (docs/exactness.md)");
}

Result<uint64_t> ParseBytes(std::string_view flag, const std::string& text) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const std::string unit(rest, end);
  int shift = -1;
  if (unit.empty()) shift = 0;
  for (const auto& [letter, bits] : {std::pair{'k', 10}, {'m', 20}, {'g', 30}, {'t', 40}}) {
    if (!unit.empty() && std::tolower(static_cast<unsigned char>(unit[0])) == letter &&
        (unit.size() == 1 || unit.substr(1) == "iB" || unit.substr(1) == "B")) {
      shift = bits;
    }
  }
  if (error != std::errc() || shift < 0 || value > (UINT64_MAX >> shift)) {
    return FlagError("{} is \"{}\", which is not a size; write bytes, or 512K, 64M, 2G", flag,
                     text);
  }
  return value << shift;
}

Result<LoadOptions> ToLoadOptions(const ModelFlags& f, int32_t logit_rows) {
  LoadOptions o;
  const Result<KvDType> kv_dtype = ParseKvDType(f.kv_dtype);
  if (!kv_dtype.ok()) return FlagError("--kv-dtype: {}", kv_dtype.error().message);
  o.memory.kv_dtype = *kv_dtype;
  if (!f.kv_memory.empty()) {
    KV_ASSIGN(o.memory.kv_bytes, ParseBytes("--kv-memory", f.kv_memory));
    if (o.memory.kv_bytes == 0) {
      return FlagError("--kv-memory is 0; leave it out for one full context");
    }
  }
  constexpr int kMaxThreads = 1024;
  if (f.threads < 0 || f.threads > kMaxThreads) {
    return FlagError("--threads is {}; it must be from 0 to {}", f.threads, kMaxThreads);
  }
  if (f.context < 0) {
    return FlagError("--ctx is {}; it must be {} or more, or 0: the model's own, or what fits",
                     f.context, kLeastContext);
  }
  constexpr int32_t kMaxStepTokens = 65536, kUsualStepTokens = 512;
  const int32_t step_tokens = f.step_tokens.value_or(std::max(kUsualStepTokens, 2 * logit_rows));
  if (step_tokens < 1 || step_tokens > kMaxStepTokens) {
    return FlagError("--step-tokens is {}; it must be from 1 to {}", step_tokens, kMaxStepTokens);
  }
  // As KvLayout has it; said here by the flag's name, and before a model is looked for.
  if (!IsBlockSize(f.block_tokens)) {
    return FlagError("--block-tokens is {}; it must be 16, 32, 64, 128, 256 or 512",
                     f.block_tokens);
  }
  KV_ASSIGN(o.path, FindModel(f.model));
  o.cpu.threads = f.threads;
  o.cpu.pin = !f.no_pin;
  o.cpu.fast = f.fast;
  o.memory.context = f.context;
  o.memory.block_tokens = f.block_tokens;
  o.memory.max_step_tokens = step_tokens;
  o.memory.max_logit_rows = logit_rows;
  return o;
}

void AddSamplingFlags(CLI::App* app, SamplingFlags* f) {
  const std::string group = "Sampling";
  app->add_option("--temp,--temperature", f->temperature,
                  "temperature; 0: always the most likely token (default: the model file's, or 0)")
      ->type_name("T")
      ->group(group);
  app->add_option("--top-k", f->top_k, "only the K most likely tokens; 0: off")
      ->type_name("K")
      ->group(group);
  app->add_option("--top-p", f->top_p,
                  "only the most likely tokens that together have probability P")
      ->type_name("P")
      ->group(group);
  app->add_option("--min-p", f->min_p, "only tokens at least P times as likely as the best")
      ->type_name("P")
      ->group(group);
  app->add_option("--typical", f->typical_p, "locally typical sampling with probability P; 1: off")
      ->type_name("P")
      ->group(group);
  app->add_option("--repeat-penalty", f->repetition_penalty,
                  "above 1: tokens seen before are less likely")
      ->type_name("X")
      ->group(group);
  app->add_option("--repeat-last-n", f->penalty_last_n,
                  "how many last tokens count for it; -1: all (default)")
      ->type_name("N")
      ->group(group);
  app->add_option("--presence-penalty", f->presence_penalty,
                  "taken from tokens that the output has")
      ->type_name("X")
      ->group(group);
  app->add_option("--frequency-penalty", f->frequency_penalty,
                  "taken for each time the output has a token")
      ->type_name("X")
      ->group(group);
  app->add_option("--logit-bias", f->logit_bias, "added to a token's logit; may be repeated")
      ->type_name("ID=BIAS")
      ->group(group);
  app->add_option("--seed", f->seed,
                  "of the random numbers; the same seed gives the same text (default: -1, a new "
                  "one each time)")
      ->type_name("N")
      ->group(group);
  app->add_option("--stop", f->stop, "ends the text, and is not shown; may be repeated")
      ->type_name("TEXT")
      ->group(group)
      ->allow_extra_args(false);
  app->add_option("--stop-token", f->stop_token_ids, "a token that ends the text; may be repeated")
      ->type_name("ID")
      ->group(group)
      ->allow_extra_args(false);
  app->add_flag("--ignore-eos", f->ignore_eos, "go on when the model would end")->group(group);
  app->add_option("--min-tokens", f->min_tokens, "no end before N tokens")
      ->type_name("N")
      ->group(group);
  app->add_option("--logprobs", f->logprobs,
                  "with --json: log probabilities of each token and the N likeliest")
      ->type_name("N")
      ->group(group);
}

namespace {

Result<std::pair<int32_t, float>> ParseBias(const std::string& text) {
  const size_t equals = text.find('=');
  std::pair<int32_t, float> out;
  const char* begin = text.data();
  const char* end = begin + text.size();
  if (equals != std::string::npos) {
    const auto id = std::from_chars(begin, begin + equals, out.first);
    const auto bias = std::from_chars(begin + equals + 1, end, out.second);
    if (id.ec == std::errc() && id.ptr == begin + equals && bias.ec == std::errc() &&
        bias.ptr == end)
      return out;
  }
  return FlagError("--logit-bias \"{}\" is not a token id, '=' and a number", text);
}

/// As text: to CLI11 -1 and all above 64 bits are the largest number.
Result<uint64_t> ParseSeed(const std::string& text) {
  if (text == "-1") return std::random_device{}();
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && rest == end) return value;
  return FlagError("--seed is {}; it must be from 0 to {}, or -1: a new one each time", text,
                   UINT64_MAX);
}

}  // namespace

Result<SamplingParams> ToSamplingParams(const SamplingFlags& f) {
  SamplingParams p;
  for (const std::string& text : f.logit_bias) {
    KV_ASSIGN(const auto bias, ParseBias(text));
    p.logit_bias.push_back(bias);
  }
  p.repetition_penalty = f.repetition_penalty.value_or(p.repetition_penalty);
  p.frequency_penalty = f.frequency_penalty;
  p.presence_penalty = f.presence_penalty;
  p.penalty_last_n = f.penalty_last_n;
  p.ignore_eos = f.ignore_eos;
  p.min_tokens = f.min_tokens;
  p.temperature = f.temperature.value_or(p.temperature);
  p.top_k = f.top_k.value_or(p.top_k);
  p.typical_p = f.typical_p;
  p.top_p = f.top_p.value_or(p.top_p);
  p.min_p = f.min_p.value_or(p.min_p);
  p.logprobs = f.logprobs;
  KV_ASSIGN(p.seed, ParseSeed(f.seed));
  return p;
}

Status TakeModelsSampling(const GgufFile& file, const SamplingFlags& f, SamplingParams* p) {
  const struct {
    std::string_view key, flag;
    bool given;
    double min, max;
    float* out;
  } numbers[] = {
      {"temp", "--temp", f.temperature.has_value(), 0, 100, &p->temperature},
      {"top_p", "--top-p", f.top_p.has_value(), 0, 1, &p->top_p},
      {"min_p", "--min-p", f.min_p.has_value(), 0, 1, &p->min_p},
      {"penalty_repeat", "--repeat-penalty", f.repetition_penalty.has_value(), 0.01, 100,
       &p->repetition_penalty},
  };
  for (const auto& n : numbers) {
    const std::string key = fmt::format("general.sampling.{}", n.key);
    if (n.given) continue;
    KV_ASSIGN(const auto value, file.Float(key));
    if (!value) continue;
    if (*value < n.min || *value > n.max) {
      return MakeError(ErrorCode::kInvalid, "{}: {} is {}; {} to {} are allowed; give {}",
                       file.path(), key, *value, n.min, n.max, n.flag);
    }
    *n.out = static_cast<float>(*value);
  }
  if (f.top_k) return {};
  KV_ASSIGN(const auto top_k, file.Int("general.sampling.top_k", -1, INT32_MAX));
  if (top_k) p->top_k = static_cast<int32_t>(std::max<int64_t>(*top_k, 0));  // -1: off, as 0
  return {};
}

Status NamedByFlags(const Status& checked) {
  if (checked.ok()) return {};
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"repetition_penalty", "--repeat-penalty"},
      {"frequency_penalty", "--frequency-penalty"},
      {"presence_penalty", "--presence-penalty"},
      {"penalty_last_n", "--repeat-last-n"},
      {"min_tokens", "--min-tokens"},
      {"temperature", "--temp"},
      {"typical_p", "--typical"},
      {"logit_bias", "--logit-bias"},
      {"top_k", "--top-k"},
      {"top_p", "--top-p"},
      {"min_p", "--min-p"},
      {"logprobs", "--logprobs"},
      {"a stop token", "--stop-token"},
      {"a stop string", "--stop"}};
  std::string text = checked.error().message;
  for (const auto& [field, flag] : kNames) {
    const size_t at = text.find(field);
    if (at == std::string::npos) continue;
    text.replace(at, field.size(), flag);
    break;
  }
  return FlagError("{}", text);
}

StopRules ToStopRules(const SamplingFlags& f) {
  return {.strings = f.stop, .token_ids = f.stop_token_ids, .end_of_generation = !f.ignore_eos};
}

}  // namespace kvasir
