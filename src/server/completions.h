#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "openai/completion_answer.h"
#include "openai/completion_stream.h"
#include "server/engine_loop.h"
#include "server/reply.h"
#include "server/server_state.h"

namespace kvasir {

/// A completion between its acceptance and its last event.
struct OpenCompletion {
  std::string id;
  Tenant caller;
  CompletionRequest request;
  AnswerHead head;
  std::string prompt_text;  ///< for the log, if prompts are logged
  std::shared_ptr<ApiReply> reply;
  std::unique_ptr<CompletionStream> stream;  ///< one of the two
  std::unique_ptr<AnswerBuilder> answer;
  int64_t received_ns = 0;
  int64_t written_ns = 0;             ///< when something was last written to the stream
  std::vector<RequestStats> prefill;  ///< of each prompt, until its first token
  std::vector<int64_t> token_ns;      ///< when each choice's last token came; 0: none yet
  double longest_gap_s = 0;           ///< between two tokens of a choice
  RequestStats first;                 ///< of the first choice
  FinishReason reason = FinishReason::kStop;
  std::string error;
  size_t open = 0;              ///< requests in the engine
  size_t room = 0;              ///< bytes reserved for its answer
  int64_t charged_tokens = 0;   ///< of the prompts, taken from the tenant's limit
  std::shared_ptr<void> place;  ///< of its choices among those that its tenant may have at once
};

/// The completions of the server: from a body to the last byte of its answer. On the I/O thread,
/// but for what text workers do to a body.
class Completions {
 public:
  explicit Completions(ServerState* state) : state_(state) {}

  /// A body came. Answers, now or later, whatever it is.
  void Begin(Endpoint endpoint, const Tenant& caller, HttpRequest&& request,
             const std::shared_ptr<ApiReply>& reply);
  /// What the engine did in a step.
  void Deliver(std::vector<Delivery>&& deliveries, int64_t now_ns);
  /// Writes a comment to streams that were silent for a while, so that proxies keep them open.
  void Ping(int64_t now_ns);
  /// Ends all that are open with an error: the status of an answer, the last event of a stream.
  void FailAll(const ApiError& error);
  size_t open() const { return open_.size(); }

 private:
  using OpenOnes = std::unordered_map<uint64_t, std::unique_ptr<OpenCompletion>>;  // by ticket

  /// A body on its way through a text worker.
  struct Body {
    Tenant caller;
    int64_t received_ns;
    std::shared_ptr<ApiReply> reply;
    std::shared_ptr<void> place;  ///< of one completion until it is read, then of all
  };
  bool Admit(Body* body);
  bool TakePlaces(Body* body, const CompletionRequest& request);
  void Parsed(Body&& body, ParsedCompletion parsed);
  std::string NewId(Endpoint endpoint);
  void Start(Body&& body, CompletionRequest&& request, int64_t tokens);
  std::optional<ApiError> Fit(const Tenant& caller, CompletionRequest* request) const;
  void Accepted(OpenCompletion* c, int64_t now_ns);
  std::optional<ApiError> TakeRoom(ApiReply* reply, const CompletionRequest& request) const;
  void Count(OpenCompletion* c, size_t prompt, const kvasir::Event& event, int64_t now_ns);
  bool Event(OpenCompletion* c, size_t prompt, kvasir::Event&& event, int64_t now_ns);
  void Answer(std::unique_ptr<OpenCompletion> c);
  void Finished(const OpenCompletion& c, int64_t now_ns);
  void Deliver(Delivery&& delivery, int64_t now_ns);
  std::unique_ptr<OpenCompletion> Forget(OpenOnes::iterator it);
  HttpHeaders HeadersOf(const OpenCompletion& c) const;

  ServerState* state_;
  OpenOnes open_;
  /// By tenant: choices of completions, from their bodies to their ends. Let go of on any thread.
  std::unordered_map<uint64_t, std::shared_ptr<std::atomic<int32_t>>> open_of_;
  uint64_t next_ticket_ = 1;
  double mean_seconds_ = 1;  // of completions that ended lately: what Retry-After tells
};

}  // namespace kvasir
