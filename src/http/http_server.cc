#include "http/http_server.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <new>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "http/connection.h"

namespace kvasir {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr int kBacklog = 4096;
/// After an accept that failed for want of file descriptors or memory.
constexpr double kAcceptAgain = 0.05;

std::chrono::nanoseconds Nanoseconds(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

/// As many connections as the system lets a process have.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // where it is refused, there are fewer
}

}  // namespace

struct HttpServer::Core {
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  HttpShared shared;
  std::optional<asio::ssl::context> tls;
  std::optional<tcp::acceptor> acceptor;
  std::optional<asio::local::stream_protocol::acceptor> unix_acceptor;
  asio::steady_timer tick{io};
  bool accepting = false, ticking = false;  // it is waited for
  struct Periodic {
    int64_t period_ns, next_ns;
    std::function<void()> fn;
  };
  std::vector<Periodic> periodic;
  asio::signal_set signals{io};
  std::string unix_path, host;
  uint16_t port = 0;
  double tick_seconds = 0.25;

  ~Core() {
    // Connections hold sockets of `io`, and replies hold connections: all go before it does.
    CloseAll();
    shared.handler = nullptr;
    if (!unix_path.empty()) unlink(unix_path.c_str());
  }

  Status ListenTcp(const std::string& name, uint16_t number);
  Status ListenUnix(const std::string& path);
  Status UseTls(const std::string& cert, const std::string& key);
  void Arm();
  template <typename Acceptor>
  void Accept(std::optional<Acceptor>* from);
  void Accepted(HttpSocket socket, std::string peer);
  void TickSoon();
  void Tick();
  void WaitForSignal(const std::function<void(int)>& fn);
  void CloseAcceptors();
  void CloseAll();
  void EndIfDrained();
};

Status HttpServer::Core::ListenTcp(const std::string& name, uint16_t number) {
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(name, std::to_string(number), tcp::resolver::passive, error);
  if (error || found.empty())
    return MakeError(ErrorCode::kInvalid, "--host {} is no address of this machine: {}", name,
                     error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.emplace(io);
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor->bind(endpoint, error);
  if (!error) acceptor->listen(kBacklog, error);
  if (error) {
    return MakeError(ErrorCode::kIo, "cannot listen on {} port {}: {}; use another --port", name,
                     number, error.message());
  }
  port = acceptor->local_endpoint().port();
  host = endpoint.address().is_v6() ? "[" + endpoint.address().to_string() + "]"
                                    : endpoint.address().to_string();
  return {};
}

Status HttpServer::Core::ListenUnix(const std::string& path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return MakeError(ErrorCode::kInvalid,
                     "the Unix socket {} has a path of {} bytes; {} are possible", path,
                     path.size(), sizeof(sockaddr_un::sun_path) - 1);
  }
  using Protocol = asio::local::stream_protocol;
  const Protocol::endpoint endpoint(path);
  error_code error;
  struct stat status;
  if (stat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode))
      return MakeError(ErrorCode::kInvalid, "{} is there and is no socket; name another", path);
    Protocol::socket probe(io);
    probe.connect(endpoint, error);
    if (!error)
      return MakeError(ErrorCode::kIo, "another server listens on the Unix socket {}", path);
    unlink(path.c_str());  // of one that was killed
    error = {};
  }
  unix_acceptor.emplace(io);
  unix_acceptor->open(endpoint.protocol(), error);
  if (!error) unix_acceptor->bind(endpoint, error);
  if (!error) unix_path = path;
  if (!error) unix_acceptor->listen(kBacklog, error);
  if (error)
    return MakeError(ErrorCode::kIo, "cannot listen on the Unix socket {}: {}", path,
                     error.message());
  return {};
}

Status HttpServer::Core::UseTls(const std::string& cert, const std::string& key) {
  if (cert.empty() && key.empty()) return {};
  error_code error;
  tls.emplace(asio::ssl::context::tls_server);
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                       asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                       asio::ssl::context::no_tlsv1_1,
                   error);
  // Idle connections keep no buffers.
  SSL_CTX_set_mode(tls->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  tls->use_certificate_chain_file(cert, error);
  if (error)
    return MakeError(ErrorCode::kInvalid, "cannot read the certificate {}: {}", cert,
                     error.message());
  tls->use_private_key_file(key, asio::ssl::context::pem, error);
  if (error)
    return MakeError(ErrorCode::kInvalid, "cannot use the key {} with {}: {}", key, cert,
                     error.message());
  return {};
}

template <typename Acceptor>
void HttpServer::Core::Accept(std::optional<Acceptor>* from) {
  if (!*from || !(*from)->is_open()) return;
  (*from)->async_accept([this, from](error_code error, typename Acceptor::protocol_type::socket s) {
    accepting = false;
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // No file descriptors, or no memory: there may be some when others have gone.
      auto timer = std::make_shared<asio::steady_timer>(io, Nanoseconds(kAcceptAgain));
      timer->async_wait([this, from, timer](error_code) {
        accepting = false;
        Accept(from);
      });
      accepting = true;
      return;
    }
    std::string peer;
    if constexpr (std::is_same_v<Acceptor, tcp::acceptor>) {
      const auto remote = s.remote_endpoint(error);
      if (!error) peer = remote.address().to_string();
    }
    Accepted(HttpSocket(std::move(s)), std::move(peer));
    Accept(from);
  });
  accepting = true;
}

/// What goes on for ever goes on, also after a handler that had no memory to ask for its next turn.
void HttpServer::Core::Arm() {
  if (!accepting) {
    Accept(&acceptor);
    Accept(&unix_acceptor);
  }
  if (!ticking) TickSoon();
}

void HttpServer::Core::Accepted(HttpSocket socket, std::string peer) {
  ++shared.counters.accepted;
  error_code error;
  socket.non_blocking(true, error);
  if (shared.counters.connections >= shared.limits.connections) {
    ++shared.counters.refused;
    ++shared.counters.refused_by_status[503];
    const std::string body =
        ErrorBody("too many connections are open; try again later", "server_error");
    const std::string text = HeadText(503, {{"Content-Type", "application/json"},
                                            {"Content-Length", std::to_string(body.size())},
                                            {"Retry-After", "1"},
                                            {"Connection", "close"}}) +
                             body;
    if (!tls) socket.write_some(asio::buffer(text), error);
    return;
  }
  try {
    const auto connection = std::make_shared<HttpConnection>(
        &shared, std::move(socket), tls ? &*tls : nullptr, std::move(peer));
    shared.connections.insert(connection);
    connection->Start();
  } catch (const std::bad_alloc&) {
    ++shared.counters.refused;
  }
}

void HttpServer::Core::TickSoon() {
  tick.expires_after(Nanoseconds(tick_seconds));
  tick.async_wait([this](error_code error) {
    ticking = false;
    if (error) return;
    TickSoon();
    Tick();
  });
  ticking = true;
}

void HttpServer::Core::Tick() {
  const int64_t now = SteadyClock().NowNs();
  for (Periodic& p : periodic) {
    if (now < p.next_ns) continue;
    p.next_ns = now + p.period_ns;
    p.fn();
  }
  // A connection that closes leaves the set.
  const std::vector<std::shared_ptr<HttpConnection>> all(shared.connections.begin(),
                                                         shared.connections.end());
  for (const auto& connection : all) connection->CheckTime(now);
}

void HttpServer::Core::WaitForSignal(const std::function<void(int)>& fn) {
  signals.async_wait([this, fn](error_code error, int signal) {
    if (error) return;
    fn(signal);
    WaitForSignal(fn);
  });
}

void HttpServer::Core::CloseAcceptors() {
  error_code ignored;
  if (acceptor) acceptor->close(ignored);
  if (unix_acceptor) unix_acceptor->close(ignored);
}

void HttpServer::Core::CloseAll() {
  CloseAcceptors();
  const std::vector<std::shared_ptr<HttpConnection>> all(shared.connections.begin(),
                                                         shared.connections.end());
  for (const auto& connection : all) connection->Close();
}

void HttpServer::Core::EndIfDrained() {
  if (shared.draining && shared.connections.empty()) io.stop();
}

HttpServer::HttpServer(std::unique_ptr<Core> core) : core_(std::move(core)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(const HttpOptions& options,
                                                       HttpHandler handler, HttpAdmit admit) {
  RaiseFileLimit();
  auto core = std::make_unique<Core>();
  Core* c = core.get();
  const HttpLimits& l = options.limits;
  c->shared.limits = l;
  c->shared.cors_origins = options.cors_origins;
  c->shared.handler = std::move(handler);
  c->shared.admit = std::move(admit);
  c->shared.closed = [c] { c->EndIfDrained(); };
  // Fine enough for the shortest of the timeouts.
  c->tick_seconds = std::clamp(
      std::min({l.header_timeout_s, l.body_timeout_s, l.idle_timeout_s, l.stall_timeout_s}) / 4,
      0.005, 0.25);
  KV_RETURN_IF_ERROR(c->UseTls(options.tls_cert, options.tls_key));
  if (options.unix_path.empty()) {
    KV_RETURN_IF_ERROR(c->ListenTcp(options.host, options.port));
  } else {
    KV_RETURN_IF_ERROR(c->ListenUnix(options.unix_path));
  }
  c->Arm();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

uint16_t HttpServer::port() const { return core_->port; }

std::string HttpServer::url() const {
  if (!core_->unix_path.empty()) return "unix://" + core_->unix_path;
  return fmt::format("{}://{}:{}", core_->tls ? "https" : "http", core_->host, core_->port);
}

void HttpServer::Run() {
  // What one request asks for must not end the others.
  const auto had_memory = [this](auto fn) {
    try {
      fn();
      return true;
    } catch (const std::bad_alloc&) {
      ++core_->shared.counters.refused;
      return false;
    }
  };
  asio::io_context& io = core_->io;
  while (!io.stopped()) {
    // Where there was none to arm, what is open goes on for a moment: it may give some back.
    const bool armed = had_memory([&] { core_->Arm(); });
    had_memory([&] { armed ? io.run() : io.run_for(Nanoseconds(kAcceptAgain)); });
  }
  core_->CloseAll();
}

void HttpServer::Post(std::function<void()> fn) { asio::post(core_->io, std::move(fn)); }

void HttpServer::After(double seconds, std::function<void()> fn) {
  auto timer = std::make_shared<asio::steady_timer>(core_->io, Nanoseconds(seconds));
  timer->async_wait([timer, fn = std::move(fn)](error_code error) {
    if (!error) fn();
  });
}

void HttpServer::Every(double seconds, std::function<void()> fn) {
  const int64_t period = Nanoseconds(seconds).count();
  core_->periodic.push_back({period, SteadyClock().NowNs() + period, std::move(fn)});
}

void HttpServer::OnSignal(const std::vector<int>& signals, const std::function<void(int)>& fn) {
  for (const int signal : signals) core_->signals.add(signal);
  core_->WaitForSignal(fn);
}

void HttpServer::Drain() {
  if (std::exchange(core_->shared.draining, true)) return;
  core_->CloseAcceptors();
  const std::vector<std::shared_ptr<HttpConnection>> all(core_->shared.connections.begin(),
                                                         core_->shared.connections.end());
  for (const auto& connection : all) connection->CloseIfIdle();
  core_->EndIfDrained();
}

void HttpServer::Stop() {
  core_->CloseAll();
  core_->io.stop();
}

const HttpCounters& HttpServer::counters() const { return core_->shared.counters; }

}  // namespace kvasir
