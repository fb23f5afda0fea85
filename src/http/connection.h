#pragma once

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include "http/http_server.h"

namespace kvasir {

using HttpSocket = boost::asio::generic::stream_protocol::socket;

/// What the connections of a server share.
struct HttpShared {
  HttpLimits limits;
  std::vector<std::string> cors_origins;
  HttpHandler handler;
  HttpAdmit admit;  ///< none: every request may have a body
  HttpCounters counters;
  size_t bodies_bytes = 0;  ///< reserved for requests and large answers, over all connections
  std::unordered_map<uint64_t, size_t> bodies_of;  ///< the part of each owner but 0
  bool draining = false;
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;
  std::function<void()> closed;  ///< called when a connection has gone
};

/// One connection: reads requests, one after the other, and writes their answers. A read is always
/// under way, also while an answer is computed: that is how a client's leaving is noticed. What
/// comes early waits in the buffer, as far as it may.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpShared* shared, HttpSocket socket, boost::asio::ssl::context* tls,
                 std::string peer);

  void Start();
  /// Closes what has waited too long.
  void CheckTime(int64_t now_ns);
  void CloseIfIdle();
  void Close();

  // For HttpReply.
  /// The reply was dropped without an answer, or before the end of a stream. Any thread.
  static void Abandoned(std::shared_ptr<HttpConnection> connection, bool begun, bool head);
  void Answer(int status, HttpHeaders headers, std::string&& body, bool head);
  void BeginStream(int status, HttpHeaders headers, bool head);
  void WriteStream(std::string_view bytes);
  void EndStream();
  /// What is reserved is not needed any more.
  void Release();
  /// Of the room for bodies and large answers, so much in all is this request's; see HttpReply.
  bool Reserve(size_t bytes);
  size_t pending() const { return pending_.size() + writing_.size() - written_; }

 private:
  enum class Phase {
    kHandshake,
    kIdle,     // between requests
    kHeader,   // some bytes of a request came
    kBody,     // its header is complete
    kAnswer,   // a handler has it, or its answer is being sent
    kClosing,  // an error was answered: the rest is dropped until the client has seen it
    kClosed,
  };
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using Tls = boost::asio::ssl::stream<HttpSocket>;

  template <typename F>
  void OnWire(F&& f) {
    std::visit(std::forward<F>(f), wire_);
  }
  HttpSocket& socket();
  void Read();
  void OnRead(boost::system::error_code error, size_t bytes);
  void OrNoMemory(const std::function<void()>& take);
  void Feed();
  bool HeaderDone();
  bool TakeHead();
  void Dispatch(bool whole);
  bool Preflight(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) const;
  void Refuse(int status, std::string_view message);
  void AddCors(HttpHeaders* headers) const;
  bool KeepsAlive() const;
  void Flush();
  void OnWritten(boost::system::error_code error, size_t bytes);
  void NextRequest();
  void LingerThenClose();
  void SetPhase(Phase phase, double seconds);

  HttpShared* shared_;
  std::variant<HttpSocket, std::unique_ptr<Tls>> wire_;
  std::string peer_;
  Phase phase_ = Phase::kIdle;
  int64_t deadline_ns_ = 0;  // of the phase; 0: none
  std::string incoming_;     // where a read puts its bytes
  std::string buffered_;     // read, and not parsed yet
  std::unique_ptr<Parser> parser_;
  HttpRequest request_;  // its head, while its body is received
  bool reading_ = false;
  // The request that is answered.
  std::weak_ptr<HttpReply> reply_;
  std::string origin_;
  bool http10_ = false, keep_alive_ = true, chunked_ = false;
  bool complete_ = false;    // all of its answer is in pending_
  size_t reserved_ = 0;      // of shared_->bodies_bytes
  uint64_t owner_ = 0;       // of them; see HttpAdmit
  std::string pending_;      // to be sent after writing_
  size_t most_pending_ = 0;  // of a stream, until what is pending is within its bound
  std::string writing_;      // being sent
  size_t written_ = 0;       // of writing_
  size_t progress_ = 0;      // of them at progress_ns_
  bool write_under_way_ = false;
  int64_t progress_ns_ = 0;  // when the reader had taken enough last, or the write began
};

}  // namespace kvasir
