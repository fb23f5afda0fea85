#include "server/kv_feed.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "openai/completion_stream.h"
#include "openai/json_text.h"
#include "server/routes.h"

namespace kvasir {
namespace {

constexpr double kTickSeconds = 0.1;
constexpr int64_t kLeastMs = 100, kMostMs = 60'000, kUsualMs = 500;
/// A view as JSON, about: what text workers plan with.
constexpr size_t kViewBytes = 64 << 10;
constexpr int64_t kLedgerNs = 5'000'000'000;
/// A viewer that has so much unsent is left out until it has caught up.
constexpr size_t kBehindBytes = 512 << 10;

}  // namespace

/// The engine's thread reads what only it can, and hands over to the I/O thread. Pages are counted
/// one by one: not for every look, and by a text worker, for streams would wait for it.
void KvFeed::Ask(KvSnapshot (*read)(const Engine&), std::function<void(const Look&)> then) {
  const int64_t now = SteadyClock().NowNs();
  const bool count_bytes = ledger_ == nullptr || now - ledger_ns_ > kLedgerNs;
  if (count_bytes) ledger_ns_ = now;
  state_->loop->Call([this, read, count_bytes, then = std::move(then)](Engine& engine) {
    auto snapshot = std::make_shared<const KvSnapshot>(read(engine));
    const EngineBytes bytes = count_bytes ? ReadEngineBytes(engine) : EngineBytes{};
    auto tell = [this, then, snapshot](const std::shared_ptr<const Ledger>& ledger) {
      if (ledger != nullptr) ledger_ = ledger;
      then({snapshot, ledger_ != nullptr ? ledger_ : std::make_shared<const Ledger>()});
    };
    auto count = [state = state_, bytes, tell] {
      auto ledger = std::make_shared<const Ledger>(ReadLedger(*state->model, bytes));
      state->http->Post([tell, ledger] { tell(ledger); });
    };
    // Without room among the workers the last ledger is told.
    if (!count_bytes || !state_->workers->Run(kViewBytes, std::move(count)))
      state_->http->Post([tell] { tell(nullptr); });
  });
}

/// What a viewer sees beside the snapshot.
KvView KvFeed::ViewOf(const Look& look, uint64_t after_step) const {
  const int64_t now = SteadyClock().NowNs();
  return {.model = state_->options.model_name,
          .tenant_names = *state_->tenant_names,
          .after_step = after_step,
          .unix_time = static_cast<double>(std::time(nullptr)),
          .ttft = state_->metrics.RecentTtft(now),
          .itl = state_->metrics.RecentItl(now),
          .ledger = *look.ledger};
}

void KvFeed::Once(const std::shared_ptr<ApiReply>& reply) {
  Ask(ReadKv, [this, reply](const Look& look) {
    const auto job = [state = state_, reply, look, view = ViewOf(look, 0)] {
      std::string body = JsonLine(ToJson(*look.snapshot, view));
      state->http->Post([reply, body = std::move(body)]() mutable {
        reply->Send(200, {{"Content-Type", "application/json"}}, std::move(body));
      });
    };
    if (!state_->workers->Run(kViewBytes, job)) reply->SendError(NoMemoryError());
  });
}

void KvFeed::Metrics(const std::shared_ptr<ApiReply>& reply) {
  Ask(ReadKvTotals, [this, reply](const Look& look) {
    MetricGauges gauges = GaugesOf(*look.snapshot, *look.ledger);
    const HttpCounters& http = state_->http->counters();
    gauges.http_connections = http.connections;
    gauges.http_requests = http.requests;
    gauges.http_bad_requests = http.bad_requests;
    gauges.http_refused = http.refused_by_status;
    gauges.http_slow_readers = http.slow_readers;
    gauges.http_timeouts = http.timeouts;
    gauges.http_bytes_in = http.bytes_in;
    gauges.http_bytes_out = http.bytes_out;
    reply->Send(200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
                state_->metrics.Text(gauges));
  });
}

void KvFeed::Watch(const HttpRequest& request, std::shared_ptr<ApiReply> reply) {
  const std::string text = request.QueryParam("interval_ms").value_or(std::to_string(kUsualMs));
  int64_t ms = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), ms);
  const bool number = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (!number || ms < kLeastMs || ms > kMostMs) {
    return reply->SendError(
        {.status = 400,
         .message = fmt::format("interval_ms must be a number from {} to {}", kLeastMs, kMostMs),
         .param = "interval_ms",
         .code = {}});
  }
  if (viewers_.size() >= kMostViewers) {
    return reply->SendError(
        {.status = 429,
         .message = fmt::format("{} views are open, the most that may be", viewers_.size()),
         .type = "rate_limit_error",
         .param = {},
         .code = "too_many_views"},
        {}, 5);
  }
  reply->Begin(200, {{"Content-Type", "text/event-stream; charset=utf-8"},
                     {"Cache-Control", "no-cache"},
                     {"X-Accel-Buffering", "no"}});
  viewers_.push_back({std::move(reply), HashKey(KeyOf(request)), ms * 1'000'000, 0, 0});
  if (!ticking_) Tick();
}

void KvFeed::TickSoon() {
  state_->http->After(kTickSeconds, [this] { Tick(); });
  ticking_ = true;
}

void KvFeed::Tick() {
  std::erase_if(viewers_, [](const Viewer& v) { return v.reply->gone(); });
  ticking_ = false;
  if (viewers_.empty()) return;
  TickSoon();
  const int64_t now = SteadyClock().NowNs();
  const bool due = std::any_of(viewers_.begin(), viewers_.end(),
                               [now](const Viewer& v) { return v.due_ns <= now; });
  if (!due || asked_) return;
  asked_ = true;
  Ask(ReadKv, [this](const Look& look) {
    asked_ = false;
    Send(look);
  });
}

void KvFeed::Send(const Look& look) {
  const std::vector<StepRecord>& steps = look.snapshot->steps;
  const int64_t now = SteadyClock().NowNs();
  for (Viewer& v : viewers_) {
    if (v.due_ns > now || v.reply->gone() || v.reply->pending() > kBehindBytes) continue;
    v.due_ns = now + v.interval_ns;
    const auto job = [state = state_, reply = v.reply, look, view = ViewOf(look, v.seen_step)] {
      std::string event = SseData(JsonLine(ToJson(*look.snapshot, view)));
      state->http->Post([reply, event = std::move(event)] { reply->Write(event); });
    };
    // Without room among the workers it sees the next one.
    if (state_->workers->Run(kViewBytes, job) && !steps.empty()) v.seen_step = steps.back().id;
  }
}

void KvFeed::EndRevoked() {
  if (!state_->keys) return;
  std::erase_if(viewers_, [this](const Viewer& v) {
    const Tenant* tenant = state_->keys->Find(v.key);
    const bool may = tenant != nullptr && tenant->is_operator;
    if (!may) v.reply->End();
    return !may;
  });
}

void KvFeed::End() {
  for (Viewer& v : viewers_) v.reply->End();
  viewers_.clear();
}

}  // namespace kvasir
