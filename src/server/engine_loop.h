#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace kvasir {

/// What happened to a ticket: a number that the server gives to all requests of one body.
struct Delivery {
  enum class Kind {
    kAccepted,  ///< all of its requests are in the engine; first
    kRefused,   ///< none is, `error` says why; the only one
    kEvent,
  };
  uint64_t ticket = 0;
  Kind kind = Kind::kEvent;
  size_t prompt = 0;  ///< kEvent: which of its requests
  Event event;
  Error error;
};

/// The thread that owns the engine. Others put work into its inbox and never wait for it; what
/// happened leaves through `outbox`, one call for each step, on the engine's thread.
class EngineLoop {
 public:
  using Outbox = std::function<void(std::vector<Delivery>&& deliveries, int64_t now_ns)>;

  EngineLoop(std::unique_ptr<Engine> engine, Outbox outbox);

  // Any thread.
  void Submit(uint64_t ticket, std::vector<Request> requests);
  /// Ends what is left of a ticket; its last events come as always.
  void Cancel(uint64_t ticket);
  /// Runs `fn` between two steps; it may throw no more than std::bad_alloc. Not called any more
  /// once the loop has ended.
  void Call(std::function<void(Engine&)> fn);
  /// Lets Run return after the current step, whatever is running.
  void Stop();

  /// Steps until Stop; sleeps while there is nothing to do.
  void Run();

 private:
  struct Item {
    enum class Kind { kSubmit, kCancel, kCall } kind;
    uint64_t ticket = 0;
    std::vector<Request> requests;
    std::function<void(Engine&)> call;
  };
  void Put(Item item);
  bool TakeInbox(bool idle, std::vector<Item>* items);
  void Handle(Item& item, std::vector<Delivery>* out);
  Result<RequestId> SubmitOne(Item& item, size_t prompt);
  void SubmitAll(Item& item, std::vector<Delivery>* out);
  void CancelAll(uint64_t ticket);

  std::unique_ptr<Engine> engine_;
  Outbox outbox_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Item> inbox_;
  bool stop_ = false;
  // Of the engine's thread.
  std::unordered_map<RequestId, std::pair<uint64_t, size_t>> tickets_;  // and which prompt
  std::unordered_map<uint64_t, std::vector<RequestId>> requests_;       // of a ticket
};

}  // namespace kvasir
