#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/loaded_model.h"
#include "sample/params.h"

namespace kvasir {

/// Flags of every subcommand that opens a model.
struct ModelFlags {
  std::string model;
  int32_t context = 0;
  std::string kv_dtype = "bf16";
  std::string kv_memory;
  int32_t block_tokens = 32;
  std::optional<int32_t> step_tokens;  ///< not given: see ToLoadOptions
  int threads = 0;
  bool no_pin = false, fast = false;
};

/// Says what is wrong with a MODEL that is empty, a variable that is not set say: that is no wish
/// for the default.
std::string NotEmpty(const std::string& model);

/// MODEL only: for subcommands that read the file but compute nothing.
void AddModelFlag(CLI::App* app, ModelFlags* flags);
/// MODEL and all that decides memory and threads.
void AddComputeFlags(CLI::App* app, ModelFlags* flags);
/// The same without MODEL: for subcommands that take it in another way.
void AddComputeOptions(CLI::App* app, ModelFlags* flags);

/// Checks the flags and finds the file. `logit_rows`: rows of one step whose logits are wanted, at
/// most as many as sequences decode at once. Without --step-tokens a step has room for twice as
/// many: with less, decoding sequences would take turns.
Result<LoadOptions> ToLoadOptions(const ModelFlags& flags, int32_t logit_rows);

struct SamplingFlags {
  // Not given: see TakeModelsSampling.
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  float typical_p = 1.0f, presence_penalty = 0.0f, frequency_penalty = 0.0f;
  int32_t penalty_last_n = -1;
  std::string seed = "-1";
  std::vector<std::string> logit_bias;  ///< "ID=BIAS"
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int32_t min_tokens = 0;
  int32_t logprobs = -1;
};
void AddSamplingFlags(CLI::App* app, SamplingFlags* flags);

/// Without --seed a new seed each time. Ranges are checked by Validate; see NamedByFlags.
Result<SamplingParams> ToSamplingParams(const SamplingFlags& flags);
/// What `file` says of how its model is sampled best (general.sampling.*, named as llama.cpp names
/// them) becomes that of `params` where no flag was given. An Error names the key, the value and
/// what is allowed.
Status TakeModelsSampling(const GgufFile& file, const SamplingFlags& flags, SamplingParams* params);
/// `checked`, what Validate found: fields of requests are called by their flags.
Status NamedByFlags(const Status& checked);
StopRules ToStopRules(const SamplingFlags& flags);

/// "512M", "2G", "1048576": bytes. Errors name the flag and the text.
Result<uint64_t> ParseBytes(std::string_view flag, const std::string& text);

}  // namespace kvasir
