#include "server/server.h"

#include <fmt/format.h>
#include <signal.h>

#include <cstdlib>
#include <ctime>
#include <future>
#include <random>
#include <utility>

#include "base/clock.h"
#include "server/completions.h"
#include "server/kv_feed.h"
#include "server/reply.h"
#include "server/request_log.h"
#include "server/routes.h"
#include "server/server_state.h"

namespace kvasir {
namespace {

constexpr double kPingEvery = 5;         // seconds
constexpr double kLookForTheEnd = 0.05;  // seconds between looks while draining
constexpr double kLastWords = 1;         // seconds for errors to be sent after the deadline

uint64_t RandomKey() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

/// Of answers that are not done when the deadline of the drain passes.
ApiError TooLateError(double seconds) {
  return {.status = 503,
          .message = fmt::format("the server ends, and this was not done within {:g} s; send it "
                                 "again",
                                 seconds),
          .type = "server_error",
          .param = {},
          .code = "draining"};
}

Result<std::optional<KeyTable>> LoadKeys(const std::string& path, const KeyTable* before) {
  std::optional<KeyTable> keys;
  if (path.empty()) return keys;
  KV_ASSIGN(KeyTable table, KeyTable::Load(path, before));
  keys = std::move(table);
  return keys;
}

}  // namespace

struct Server::State : ServerState {
  std::promise<void> ready;  // of loop
  int64_t draining_since_ns = 0;

  void Signal(int signal);
  void Reload();
  void BeginDrain();
  void WatchDrain();
  void Stop();
  void TellTenants() const;
  void NameTenants();
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}
Server::~Server() {
  // Jobs of the workers look at the model and post to the I/O thread: none may be left.
  state_->workers.reset();
}

Result<std::unique_ptr<Server>> Server::Listen(ServerOptions options) {
  auto s = std::make_unique<State>();
  KV_ASSIGN(s->keys, LoadKeys(options.keys_path, nullptr));
  s->NameTenants();
  s->options = std::move(options);
  s->id_key = RandomKey();
  s->started = std::time(nullptr);
  State* state = s.get();
  KV_ASSIGN(s->http, HttpServer::Listen(
                         s->options.http,
                         [state](HttpRequest&& request, std::shared_ptr<HttpReply> reply) {
                           Route(state, std::move(request), std::move(reply));
                         },
                         [state](const HttpRequest& head) { return Admit(*state, head); }));
  s->metrics.SetModel(s->options.model_name);
  s->workers = std::make_unique<TextWorkers>();
  s->completions = std::make_unique<Completions>(state);
  s->kv_feed = std::make_unique<KvFeed>(state);
  s->http->Every(kPingEvery, [state] {
    state->completions->Ping(SteadyClock().NowNs());
    LogLeftOut(&state->refusals);
  });
  s->http->OnSignal({SIGTERM, SIGINT, SIGHUP}, [state](int signal) { state->Signal(signal); });
  return std::unique_ptr<Server>(new Server(std::move(s)));
}

std::string Server::url() const { return state_->http->url(); }

void Server::Run() {
  state_->http->Run();
  if (state_->loop) state_->loop->Stop();
}

void Server::State::Signal(int signal) {
  if (signal == SIGHUP) return Reload();
  if (model == nullptr) {
    // Loading cannot be interrupted, and nothing is lost.
    http->Stop();
    ending = true;
    LogInfo("event=end before the model was loaded");
    EndLog();
    std::quick_exit(128 + signal);
  }
  if (draining) {
    LogInfo("event=stop asked twice: closing at once");
    return Stop();
  }
  LogInfo(fmt::format("event=drain open={} deadline_s={:.0f}", completions->open(),
                      options.drain_timeout_s));
  BeginDrain();
}

void Server::State::BeginDrain() {
  if (draining) return;
  draining = true;
  ending = true;
  draining_since_ns = SteadyClock().NowNs();
  kv_feed->End();
  http->Drain();
  WatchDrain();
}

void Server::State::WatchDrain() {
  http->After(kLookForTheEnd, [this] {
    const double waited = SecondsBetween(draining_since_ns, SteadyClock().NowNs());
    if (waited < options.drain_timeout_s) return WatchDrain();
    LogWarning(fmt::format("event=stop open={}: the deadline of the drain has passed",
                           completions->open()));
    http->After(kLastWords, [this] { Stop(); });
    completions->FailAll(TooLateError(options.drain_timeout_s));
  });
}

void Server::State::Stop() {
  ending = true;
  http->Stop();
}

void Server::State::Reload() {
  if (!keys) return LogInfo("event=reload: there is no key file");
  Result<std::optional<KeyTable>> fresh = LoadKeys(options.keys_path, &*keys);
  if (!fresh.ok()) {
    return LogWarning("event=reload failed, the old keys stay: " + fresh.error().message);
  }
  keys = std::move(*fresh);
  NameTenants();
  TellTenants();
  kv_feed->EndRevoked();
  LogInfo(fmt::format("event=reload tenants={}", keys->tenants().size()));
}

void Server::State::NameTenants() {
  TenantNames names;
  if (!keys) names[0] = "everybody";
  if (keys) {
    for (const Tenant& t : keys->tenants()) names[t.id] = t.name;
  }
  tenant_names = std::make_shared<const TenantNames>(std::move(names));
}

/// The engine learns what each tenant may take.
void Server::State::TellTenants() const {
  if (!keys || !loop) return;
  loop->Call([tenants = keys->tenants()](Engine& engine) {
    const int64_t blocks = engine.kv().pool().total();
    for (const Tenant& t : tenants) {
      const auto quota = static_cast<int64_t>(t.limits.kv_share * static_cast<double>(blocks));
      engine.SetTenant(t.id,
                       {.weight = t.limits.weight,
                        .kv_blocks = t.limits.kv_share > 0 ? std::max<int64_t>(quota, 1) : 0});
    }
  });
}

void Server::Ready(LoadedModel* model, const EngineTuning& tuning) {
  State* s = state_.get();
  // A whole batch changes threads at once: one wake-up for each step.
  auto outbox = [s](std::vector<Delivery>&& deliveries, int64_t now_ns) {
    s->http->Post([s, now_ns, batch = std::move(deliveries)]() mutable {
      s->completions->Deliver(std::move(batch), now_ns);
    });
  };
  auto loop = std::make_unique<EngineLoop>(model->MakeEngine(tuning), std::move(outbox));
  std::promise<void> done;
  s->http->Post([s, model, max_sequences = tuning.max_sequences, &loop, &done] {
    s->loop = std::move(loop);
    s->model = model;
    s->max_sequences = max_sequences;
    s->TellTenants();
    done.set_value();
  });
  done.get_future().wait();
}

void Server::RunEngine() {
  // Before the first step all processors are free for it.
  const MachineLimits limits = state_->model->MeasureLimits();
  state_->http->Post(
      [s = state_.get(), limits] { s->metrics.SetLimits(limits.flops_per_s, limits.bytes_per_s); });
  state_->loop->Run();
}

void Server::Drain() {
  state_->http->Post([s = state_.get()] { s->BeginDrain(); });
}

bool Server::ending() const { return state_->ending; }

}  // namespace kvasir
