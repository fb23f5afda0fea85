#include "app/generate.h"

#include <utility>

#include "app/terminal.h"

namespace kvasir {

std::vector<int32_t> Reply::ids() const {
  std::vector<int32_t> out;
  out.reserve(tokens.size());
  for (const SampledToken& t : tokens) out.push_back(t.token);
  return out;
}

Result<Reply> Generate(Engine* engine, Request request,
                       const std::function<bool(std::string_view)>& on_text,
                       const std::function<void(int32_t done, int32_t total)>& on_prefill) {
  KV_ASSIGN(const RequestId id, engine->Submit(std::move(request)));
  Reply reply;
  std::vector<Event> events;
  for (;;) {
    if (InterruptScope::Take()) {
      reply.interrupted = true;
      engine->Cancel(id);
    }
    events.clear();
    engine->Step(&events);
    for (Event& e : events) {
      if (e.kind == Event::Kind::kPrefill) {
        on_prefill(e.prefill_done, e.prefill_total);
        continue;
      }
      if (e.kind == Event::Kind::kToken) reply.tokens.push_back(std::move(e.token));
      reply.text += e.text;
      const bool heard = e.text.empty() || on_text(e.text);
      if (e.kind == Event::Kind::kToken) {
        if (!heard) engine->Cancel(id);
        continue;
      }
      if (e.reason == FinishReason::kError) return MakeError(ErrorCode::kInvalid, "{}", e.error);
      reply.reason = e.reason;
      reply.stats = e.stats;
      // Ctrl-C ends the reader at the other end of a pipe too, and that may be seen first.
      reply.interrupted = reply.reason == FinishReason::kCancelled &&
                          (reply.interrupted || InterruptScope::Pending());
      return reply;
    }
  }
}

}  // namespace kvasir
