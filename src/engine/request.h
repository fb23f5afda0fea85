#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kv/prefix_index.h"
#include "sample/params.h"
#include "sample/sampler.h"
#include "sched/sequence.h"

namespace kvasir {

using RequestId = uint64_t;

struct Request {
  std::vector<int32_t> prompt;  ///< at least one token
  int32_t max_tokens = -1;      ///< of each choice; -1: until the context is full
  SamplingParams sampling;
  StopRules stop;
  bool special = false;  ///< control tokens appear in the text

  /// Choices: so many samples of the same prompt, the i-th from the random stream
  /// sampling.stream + i; or the so many best of beam search.
  int32_t n = 1;
  /// > 0: beam search with so many beams on the model's own distribution. No sampling parameter but
  /// ignore_eos may be set, and no stop string: see ForbiddenWithBeams.
  int32_t beam_width = 0;
  /// Hypotheses are ranked by their log probability divided by (output tokens without an end
  /// token) to this power (Wu et al. 2016, without the constant).
  float length_penalty = 1.0f;
  /// >= 0: log probabilities of the prompt's tokens from the second on, with so many most likely
  /// ones beside each. The prompt is then computed, whatever is cached.
  int32_t prompt_logprobs = -1;

  uint64_t tenant = 0;    ///< whose share of the machine is used
  uint64_t salt = 0;      ///< requests of one salt may share prefixes
  int32_t priority = 0;   ///< higher goes first; in the API's bodies lower does
  double deadline_s = 0;  ///< from submission; then it ends, wherever it is. 0: none
};

/// The first parameter of a request, by its name in the API, that beam search does not take;
/// nullptr: none.
const char* ForbiddenWithBeams(const Request& request);

enum class FinishReason {
  kStop,      ///< a stop string, stop token or end-of-generation token
  kLength,    ///< max_tokens
  kContext,   ///< the context is full
  kDeadline,  ///< the request's deadline passed
  kCancelled,
  kError,
};
/// "stop", "length", "context", "deadline", "cancelled", "error"
std::string_view NameOf(FinishReason reason);

/// How much of a prompt was cached, and why no more. All that the operator may know; ForClient
/// gives what a client may.
struct CacheReport {
  int32_t cached_tokens = 0;
  MissReason reason = MissReason::kNone;
  int32_t diverged_had = -1, diverged_got = -1;  ///< kDiverged: the tokens at `cached_tokens`
  uint64_t diverged_tenant = 0;                  ///< kDiverged: whose token was there
  uint64_t evicted_steps_ago = 0;                ///< kEvicted
  uint64_t evicted_for = 0;                      ///< kEvicted: the tenant that needed the room
};
/// Without facts about other tenants: their tokens, and that they needed room.
CacheReport ForClient(const CacheReport& report, uint64_t tenant);

/// What a choice used, and when (Clock time).
struct RequestStats {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;  ///< of the prompt, whose K and V were still in the cache
  int32_t output_tokens = 0;  ///< generated, end-of-generation and stop tokens included
  int32_t preemptions = 0;
  int64_t submitted_ns = 0;
  int64_t first_token_ns = 0;  ///< 0: none yet
  int64_t last_token_ns = 0;
  int64_t finished_ns = 0;
  CacheReport cache;
  SequenceTimes times;  ///< where the time went; the sum is finished - submitted

  double ttft_seconds() const;  ///< submission to first token
  /// Of the tokens after the first; 0 with fewer than two.
  double decode_tokens_per_second() const;
};

/// Something that happened to a request, in order.
struct Event {
  enum class Kind { kPrefill, kToken, kFinished };
  RequestId request = 0;
  int32_t choice = 0;  ///< 0..n-1
  Kind kind = Kind::kToken;
  // kPrefill: progress of the prompt, cached tokens counted as done, `stats` until then, and log
  // probabilities of the prompt's next tokens, where they were asked for. The last one comes just
  // before the first token.
  int32_t prefill_done = 0, prefill_total = 0;
  std::vector<SampledToken> prompt_logprobs;
  // kToken: the token, and the text that became certain with it (may be empty). Stop strings and
  // stop tokens never show in the text. Beam search gives all its tokens at the end.
  SampledToken token;
  std::string text;
  // kFinished, once for each choice: `text` holds what was still held back.
  FinishReason reason = FinishReason::kStop;
  RequestStats stats;
  double beam_score = 0;  ///< with beam search
  bool last = false;      ///< nothing more comes for this request
  std::string error;      ///< kError: what happened
};

}  // namespace kvasir
