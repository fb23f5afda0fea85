#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// Kvasir as a library: one model, many requests at once on one KV cache. Link kvasir::kvasir.
namespace kvasir {

/// Whatever was refused or failed, in one line for a person.
class LlmError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// How a model is loaded.
struct LlmOptions {
  int threads = 0;                ///< 0: one for each physical core
  int32_t context = 0;            ///< longest sequence in tokens; 0: the model's own, or what fits
  uint64_t kv_bytes = 0;          ///< size of the KV pool; 0: one full context
  std::string kv_dtype = "bf16";  ///< how K and V are stored: bf16, f16, f32, int8
  int32_t block_tokens = 32;      ///< tokens of a KV block: 16 to 512, a power of two
  int32_t step_tokens = 512;      ///< tokens computed in one step, at most
  int32_t max_sequences = 16;     ///< sequences running at once, at most
  int64_t max_waiting = 0;        ///< requests that may wait; 0: no bound
  double itl_target_s = 0;        ///< a step in which somebody decodes takes no longer; 0: off
  bool fast = false;              ///< faster products, less accurate (docs/exactness.md)
};

/// One request. Exactly one of `messages`, `prompt` and `tokens` is given.
struct LlmRequest {
  std::vector<std::pair<std::string, std::string>> messages;  ///< role and content: a chat
  std::string prompt;                                         ///< a text to go on with
  std::vector<int32_t> tokens;                                ///< the same, as tokens
  int32_t max_tokens = -1;  ///< of output; -1: until the context is full
  // Sampling; temperature 0 takes the most likely token.
  float temperature = 0, top_p = 1, min_p = 0, typical_p = 1;
  int32_t top_k = 0;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
  bool ignore_eos = false;
  int32_t logprobs = -1;          ///< >= 0: the tokens' log probabilities are given
  std::vector<std::string> stop;  ///< ends the text, and is not part of it
  std::vector<int32_t> stop_tokens;
  int32_t n = 1;           ///< choices: samples of the same prompt, or the best of beam search
  int32_t beam_width = 0;  ///< > 0: beam search
  float length_penalty = 1;
  // Several tenants: shares of the machine by weight, and prefixes shared within a salt only.
  uint64_t tenant = 0, salt = 0;
  int32_t priority = 0;
  double deadline_s = 0;  ///< 0: none
};

/// Something that happened to a request.
struct LlmEvent {
  uint64_t request = 0;
  int32_t choice = 0;
  std::string text;           ///< that became certain; whole UTF-8 characters, never a stop string
  int32_t token = -1;         ///< -1: none with this event
  float logprob = 0;          ///< of the token, if logprobs were asked for
  bool finished = false;      ///< this choice is done, and the following are set:
  std::string finish_reason;  ///< "stop", "length", "context", "deadline", "cancelled", "error"
  std::string error;
  int32_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double ttft_s = 0, total_s = 0;
  bool last = false;  ///< nothing more comes for this request
};

/// A loaded model and its engine. One thread at a time may call it. Throws LlmError.
class Llm {
 public:
  explicit Llm(const std::string& path, const LlmOptions& options = {});
  ~Llm();
  Llm(Llm&&) noexcept;
  Llm& operator=(Llm&&) noexcept;

  /// Queues a request; gives its number.
  uint64_t Submit(const LlmRequest& request);
  /// Ends a request with the next step; unknown numbers are ignored.
  void Cancel(uint64_t request);
  /// Sets a tenant's share of the machine, and the KV blocks that it may hold (0: no limit).
  void SetTenant(uint64_t tenant, double weight, int64_t kv_blocks = 0);
  /// Computes one step for all that runs; false when there is nothing left to do.
  bool Step(const std::function<void(const LlmEvent&)>& on_event);
  /// Steps until nothing is left to do.
  void Run(const std::function<void(const LlmEvent&)>& on_event);
  /// The tokens of a text.
  std::vector<int32_t> Tokenize(const std::string& text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
