#include "server/engine_loop.h"

#include <chrono>
#include <new>

#include "base/clock.h"

namespace kvasir {

EngineLoop::EngineLoop(std::unique_ptr<Engine> engine, Outbox outbox)
    : engine_(std::move(engine)), outbox_(std::move(outbox)) {}

void EngineLoop::Put(Item item) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(item));
  }
  wake_.notify_one();
}

void EngineLoop::Submit(uint64_t ticket, std::vector<Request> requests) {
  Put({.kind = Item::Kind::kSubmit, .ticket = ticket, .requests = std::move(requests), .call = {}});
}

void EngineLoop::Cancel(uint64_t ticket) {
  Put({.kind = Item::Kind::kCancel, .ticket = ticket, .requests = {}, .call = {}});
}

void EngineLoop::Call(std::function<void(Engine&)> fn) {
  Put({.kind = Item::Kind::kCall, .requests = {}, .call = std::move(fn)});
}

void EngineLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
}

/// False when the loop is to end.
bool EngineLoop::TakeInbox(bool idle, std::vector<Item>* items) {
  std::unique_lock lock(mutex_);
  if (idle) wake_.wait(lock, [this] { return stop_ || !inbox_.empty(); });
  if (stop_) return false;
  items->swap(inbox_);
  return true;
}

/// Memory for one more request may be short while all that run have theirs.
Result<RequestId> EngineLoop::SubmitOne(Item& item, size_t prompt) {
  try {
    std::vector<RequestId>& mine = requests_[item.ticket];
    mine.reserve(item.requests.size());
    Result<RequestId> id = engine_->Submit(std::move(item.requests[prompt]));
    if (!id.ok()) return id;
    // First: what the engine took and is then not kept is cancelled with the rest.
    mine.push_back(*id);
    tickets_[*id] = {item.ticket, prompt};
    return id;
  } catch (const std::bad_alloc&) {
    return MakeError(ErrorCode::kBusy, "no memory for another request now");
  }
}

void EngineLoop::SubmitAll(Item& item, std::vector<Delivery>* out) {
  for (size_t i = 0; i < item.requests.size(); ++i) {
    const Result<RequestId> id = SubmitOne(item, i);
    if (id.ok()) continue;
    CancelAll(item.ticket);
    out->push_back({.ticket = item.ticket,
                    .kind = Delivery::Kind::kRefused,
                    .event = {},
                    .error = id.error()});
    return;
  }
  out->push_back(
      {.ticket = item.ticket, .kind = Delivery::Kind::kAccepted, .event = {}, .error = {}});
}

/// After a refusal: nothing of the ticket is heard of any more.
void EngineLoop::CancelAll(uint64_t ticket) {
  const auto it = requests_.find(ticket);
  if (it == requests_.end()) return;
  for (const RequestId id : it->second) {
    engine_->Cancel(id);
    tickets_.erase(id);
  }
  requests_.erase(it);
}

void EngineLoop::Handle(Item& item, std::vector<Delivery>* out) {
  switch (item.kind) {
    case Item::Kind::kSubmit:
      return SubmitAll(item, out);
    case Item::Kind::kCancel:
      if (const auto it = requests_.find(item.ticket); it != requests_.end()) {
        for (const RequestId id : it->second) engine_->Cancel(id);
      }
      return;
    case Item::Kind::kCall:
      try {
        item.call(*engine_);
      } catch (const std::bad_alloc&) {
        // A look at the cache. Whoever waits for it is answered 500 when the call is let go of.
      }
  }
}

void EngineLoop::Run() {
  std::vector<Item> items;
  std::vector<Event> events;
  std::vector<Delivery> out;
  for (bool idle = true; TakeInbox(idle, &items);) {
    for (Item& item : items) Handle(item, &out);
    items.clear();
    idle = !engine_->Step(&events);
    for (Event& e : events) {
      const auto it = tickets_.find(e.request);
      if (it == tickets_.end()) continue;
      const auto [ticket, prompt] = it->second;
      if (e.last) {
        tickets_.erase(it);
        std::vector<RequestId>& open = requests_[ticket];
        std::erase(open, e.request);
        if (open.empty()) requests_.erase(ticket);
      }
      out.push_back({.ticket = ticket, .prompt = prompt, .event = std::move(e), .error = {}});
    }
    events.clear();
    if (!out.empty()) outbox_(std::exchange(out, {}), SteadyClock().NowNs());
  }
}

}  // namespace kvasir
