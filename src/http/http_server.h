#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/http_message.h"

namespace kvasir {

/// What clients may take. Times in seconds.
struct HttpLimits {
  size_t header_bytes = 16 << 10;  ///< of a request; beyond: 431
  size_t body_bytes = 32 << 20;    ///< of a request; beyond: 413
  /// Of bodies that are received or wait for their handler, and of large answers that are not sent,
  /// over all connections; beyond: 503.
  size_t all_bodies_bytes = 256 << 20;
  int32_t connections = 10000;   ///< beyond: 503
  double header_timeout_s = 10;  ///< from its first byte to its last; then 408
  double body_timeout_s = 60;    ///< the same of a body
  double idle_timeout_s = 75;    ///< between requests; then closed
  double stall_timeout_s = 30;   ///< next to nothing of an answer could be sent: cut off
  /// Of a stream that are not sent yet: who has more to take when more comes is cut off.
  size_t pending_bytes = 1 << 20;
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;                   ///< 0: any free one
  std::string unix_path;                  ///< not empty: a Unix socket instead
  std::string tls_cert, tls_key;          ///< PEM files; both: TLS
  std::vector<std::string> cors_origins;  ///< whose pages may read answers; "*": all
  HttpLimits limits;
};

struct HttpCounters {
  int64_t connections = 0;   ///< open now
  int64_t accepted = 0;      ///< ever
  int64_t refused = 0;       ///< because there were too many
  int64_t requests = 0;      ///< that reached a handler
  int64_t bad_requests = 0;  ///< that did not
  int64_t timeouts = 0;      ///< slow headers and bodies
  int64_t slow_readers = 0;  ///< cut off
  int64_t bytes_in = 0, bytes_out = 0;
  std::map<int, int64_t> refused_by_status;  ///< answers of 400 and more that no handler made
};

class HttpConnection;

/// The answer to one request: whole (Send), or as a stream (Begin, Write ..., End). All calls on
/// the I/O thread; once the client is gone they do nothing. Dropped without an answer, it is a 500.
class HttpReply {
 public:
  HttpReply(std::shared_ptr<HttpConnection> connection, bool head);
  ~HttpReply();
  HttpReply(const HttpReply&) = delete;
  HttpReply& operator=(const HttpReply&) = delete;

  void Send(int status, HttpHeaders headers, std::string body);
  void Begin(int status, HttpHeaders headers);
  void Write(std::string_view bytes);
  void End();
  /// The handler has let go of the request's body: others may use its room. Answering says so too.
  void BodyTaken();
  /// Of the room for bodies and large answers, so much is for this answer from now on, until it is
  /// sent. False if there is not, or one client would have too much of it.
  bool Reserve(size_t bytes);

  /// `gone` is called once if the client goes away, or is cut off, before the answer is complete.
  void OnGone(std::function<void()> gone);
  /// True once the client is gone, or the answer is complete.
  bool gone() const { return connection_ == nullptr; }
  /// Bytes of the answer that are not sent yet.
  size_t pending() const;

 private:
  friend class HttpConnection;
  void ClientGone();
  std::shared_ptr<HttpConnection> connection_;
  std::function<void()> gone_;
  bool head_;           // no body is sent
  bool begun_ = false;  // a stream
};

/// On the I/O thread; must not block. What it throws is answered 500.
using HttpHandler = std::function<void(HttpRequest&& request, std::shared_ptr<HttpReply> reply)>;

/// Asked when the header of a request with a body is complete, so that a stranger's body takes no
/// room. Nothing: the handler will refuse it, and gets it at once, without the body. Else whose
/// body it is: each owner but 0 may hold half of the room for bodies. On the I/O thread.
using HttpAdmit = std::function<std::optional<uint64_t>(const HttpRequest& head)>;

/// HTTP/1.1 over TCP, TLS or a Unix socket, on one I/O thread: the one that calls Run.
class HttpServer {
 public:
  /// Listens. An Error says what of the options is wrong, or why the system refuses.
  static Result<std::unique_ptr<HttpServer>> Listen(const HttpOptions& options, HttpHandler handler,
                                                    HttpAdmit admit = {});
  ~HttpServer();

  uint16_t port() const;
  std::string url() const;

  /// Serves until Stop, or until Drain has no open request left.
  void Run();
  /// Runs `fn` on the I/O thread. Any thread. Dropped once Run has returned.
  void Post(std::function<void()> fn);

  // On the I/O thread, or before Run.
  void After(double seconds, std::function<void()> fn);
  /// Calls `fn` again and again, about every so many seconds; before Run.
  void Every(double seconds, std::function<void()> fn);
  void OnSignal(const std::vector<int>& signals, const std::function<void(int)>& fn);
  /// Takes no new connections, closes idle ones, and lets open requests finish.
  void Drain();
  void Stop();
  const HttpCounters& counters() const;

 private:
  struct Core;
  explicit HttpServer(std::unique_ptr<Core> core);
  friend class HttpConnection;
  std::unique_ptr<Core> core_;
};

}  // namespace kvasir
