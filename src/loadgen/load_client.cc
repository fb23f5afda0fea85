#include "loadgen/load_client.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <charconv>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace kvasir {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

std::chrono::nanoseconds Nanoseconds(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

}  // namespace

Result<LoadTarget> ParseTarget(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  const auto wrong = [&](const char* what) {
    return MakeError(ErrorCode::kInvalid, "--url {} {}; write http://HOST:PORT", url, what);
  };
  if (url.rfind("https://", 0) == 0)
    return MakeError(ErrorCode::kUnsupported,
                     "--url {}: only http is measured; give the server a plain port", url);
  if (url.rfind(kScheme, 0) != 0) return wrong("is no http URL");
  std::string rest = url.substr(kScheme.size());
  LoadTarget target;
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    target.prefix = rest.substr(slash);
    rest.resize(slash);
  }
  while (!target.prefix.empty() && target.prefix.back() == '/') target.prefix.pop_back();
  size_t colon = rest.rfind(':');
  if (!rest.empty() && rest[0] == '[' && rest.back() == ']') colon = std::string::npos;  // IPv6
  if (colon != std::string::npos) {
    const char* end = rest.data() + rest.size();
    const auto parsed = std::from_chars(rest.data() + colon + 1, end, target.port);
    if (parsed.ec != std::errc() || parsed.ptr != end) return wrong("has no port that is a number");
    rest.resize(colon);
  }
  if (rest.size() > 2 && rest[0] == '[') rest = rest.substr(1, rest.size() - 2);
  if (rest.empty()) return wrong("names no host");
  target.host = rest;
  return target;
}

struct LoadClient::Core {
  asio::io_context io{1};
  LoadTarget target;
  std::string key;
  std::vector<tcp::socket> idle;  // connected, and not in use

  struct Exchange;
};

/// One request and its answer.
struct LoadClient::Core::Exchange : std::enable_shared_from_this<Exchange> {
  Exchange(Core* c, OnData on_data, OnDone on_done)
      : core(c), socket(c->io), timer(c->io), data(std::move(on_data)), done(std::move(on_done)) {
    parser.body_limit(boost::none);
    parser.eager(true);
  }

  void Start(double timeout_s) {
    timer.expires_after(Nanoseconds(timeout_s));
    timer.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->Finish("timeout");
    });
    if (!core->idle.empty()) {
      socket = std::move(core->idle.back());
      core->idle.pop_back();
      reused = true;
      return Write();
    }
    Connect();
  }

  void Connect() {
    reused = false;
    socket = tcp::socket(core->io);
    error_code error;
    tcp::resolver resolver(core->io);
    const auto found =
        resolver.resolve(core->target.host, std::to_string(core->target.port), error);
    if (error) return Finish(error.message());
    asio::async_connect(socket, found, [self = shared_from_this()](error_code e, const auto&) {
      if (e) return self->Finish(e.message());
      self->socket.set_option(tcp::no_delay(true), e);
      self->Write();
    });
  }

  void Write() {
    asio::async_write(socket, asio::buffer(text),
                      [self = shared_from_this()](error_code error, size_t) {
                        if (error) return self->Broken(error);
                        self->Read();
                      });
  }

  void Read() {
    socket.async_read_some(asio::buffer(buffer),
                           [self = shared_from_this()](error_code error, size_t bytes) {
                             self->OnRead(error, bytes);
                           });
  }

  /// A kept connection that the server has closed meanwhile is no failure of the request.
  void Broken(error_code error) {
    if (reused && pending.empty() && !parser.is_header_done()) return Connect();
    Finish(error.message());
  }

  void OnRead(error_code error, size_t bytes) {
    if (finished) return;
    if (error == asio::error::eof && parser.is_header_done() && parser.need_eof()) {
      error_code ignored;
      parser.put_eof(ignored);
      return Finish("");
    }
    if (error) return Broken(error);
    pending.append(buffer.data(), bytes);
    while (!pending.empty() && !parser.is_done()) {
      const size_t used = parser.put(asio::buffer(pending), error);
      pending.erase(0, used);
      if (error == http::error::need_more) {
        error = {};
        break;
      }
      if (error) return Finish("no HTTP answer: " + error.message());
    }
    std::string& body = parser.get().body();
    if (!body.empty()) {
      data(body);
      body.clear();
    }
    if (finished) return;
    if (!parser.is_done()) return Read();
    if (parser.keep_alive()) core->idle.push_back(std::move(socket));
    Finish("");
  }

  void Finish(const std::string& error) {
    if (std::exchange(finished, true)) return;
    timer.cancel();
    error_code ignored;
    if (!error.empty()) socket.close(ignored);
    const int status = parser.is_header_done() ? static_cast<int>(parser.get().result_int()) : 0;
    done(status, error);
  }

  Core* core;
  tcp::socket socket;
  asio::steady_timer timer;
  OnData data;
  OnDone done;
  std::string text, pending;
  std::array<char, 16384> buffer;
  http::response_parser<http::string_body> parser;
  bool reused = false, finished = false;
};

LoadClient::LoadClient(const LoadTarget& target, const std::string& key)
    : core_(std::make_unique<Core>()) {
  core_->target = target;
  core_->key = key;
}
LoadClient::~LoadClient() = default;

void LoadClient::Send(const std::string& path, const std::string& body, double timeout_s,
                      OnData data, OnDone done) {
  const auto exchange =
      std::make_shared<Core::Exchange>(core_.get(), std::move(data), std::move(done));
  exchange->text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}:{}\r\nAccept: */*\r\n",
                               body.empty() ? "GET" : "POST", core_->target.prefix, path,
                               core_->target.host, core_->target.port);
  if (!core_->key.empty()) exchange->text += "Authorization: Bearer " + core_->key + "\r\n";
  if (!body.empty()) {
    exchange->text +=
        fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  }
  exchange->text += "\r\n" + body;
  exchange->Start(timeout_s);
}

void LoadClient::After(double seconds, std::function<void()> fn) {
  auto timer = std::make_shared<asio::steady_timer>(core_->io, Nanoseconds(seconds));
  timer->async_wait([timer, fn = std::move(fn)](error_code error) {
    if (!error) fn();
  });
}

void LoadClient::Run() {
  core_->io.restart();
  core_->io.run();
}

void LoadClient::Stop() { core_->io.stop(); }

}  // namespace kvasir
