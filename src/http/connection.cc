#include "http/connection.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <exception>
#include <functional>
#include <new>
#include <utility>

#include "base/clock.h"

namespace kvasir {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

/// Of a 500 for a handler that threw, or gave its reply up.
constexpr std::string_view kNoAnswer = "the server could not answer this request";
/// Bytes of a read: small while nothing is expected, for idle connections are many.
constexpr size_t kSmallRead = 1 << 10, kBodyRead = 64 << 10;
/// What comes while an answer is made is kept up to here; then it waits in the kernel.
constexpr size_t kMostEarly = 16 << 10;
/// How long a client has to see a last answer before the connection is closed under it.
constexpr double kLingerSeconds = 2;
/// Buffers that grew beyond this are given back between requests.
constexpr size_t kKeptBytes = 4 << 10;
/// Answers beyond this take of the room for bodies until they are sent.
constexpr size_t kLargeAnswer = 64 << 10;
/// A reader takes at least so much in HttpLimits::stall_timeout_s.
constexpr size_t kLeastProgress = 16 << 10;

void GiveBack(std::string* buffer) {
  buffer->clear();
  if (buffer->capacity() > kKeptBytes) buffer->shrink_to_fit();
}

/// What names of headers, and lists of them, consist of.
bool IsOfListOfNames(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == ',' || c == ' ';
}

std::string BodyTooLarge(const HttpLimits& l) {
  return fmt::format(
      "the body has more than {} bytes, the most that are taken: send less, or raise --body-limit",
      l.body_bytes);
}

std::string HeaderTooLarge(const HttpLimits& l) {
  return fmt::format(
      "the header, or that of a chunk, has more than {} bytes, the most that are taken: send fewer "
      "or shorter fields",
      l.header_bytes);
}

struct Refusal {
  int status;
  std::string message;
};

Refusal RefusalOf(error_code error, const HttpLimits& l) {
  if (error == http::error::header_limit) return {431, HeaderTooLarge(l)};
  if (error == http::error::body_limit || error == http::error::buffer_overflow)
    return {413, BodyTooLarge(l)};
  if (error == http::error::bad_version) return {505, "only HTTP/1.0 and HTTP/1.1 are spoken"};
  return {400, "this is no HTTP request"};
}

std::string_view CodeOf(int status) {
  if (status == 413) return "too_large";
  return status == 431 ? "header_too_large" : "";
}

}  // namespace

HttpConnection::HttpConnection(HttpShared* shared, HttpSocket socket, asio::ssl::context* tls,
                               std::string peer)
    : shared_(shared), wire_(std::move(socket)), peer_(std::move(peer)) {
  if (tls != nullptr) {
    auto stream = std::make_unique<Tls>(std::move(std::get<HttpSocket>(wire_)), *tls);
    wire_ = std::move(stream);
  }
  ++shared_->counters.connections;
}

HttpSocket& HttpConnection::socket() {
  if (auto* tls = std::get_if<std::unique_ptr<Tls>>(&wire_)) return (*tls)->next_layer();
  return std::get<HttpSocket>(wire_);
}

void HttpConnection::SetPhase(Phase phase, double seconds) {
  phase_ = phase;
  deadline_ns_ = seconds > 0 ? SteadyClock().NowNs() + static_cast<int64_t>(seconds * 1e9) : 0;
}

void HttpConnection::Start() {
  const int on = 1;
  setsockopt(socket().native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (auto* tls = std::get_if<std::unique_ptr<Tls>>(&wire_)) {
    SetPhase(Phase::kHandshake, shared_->limits.header_timeout_s);
    (*tls)->async_handshake(asio::ssl::stream_base::server,
                            [self = shared_from_this()](error_code error) {
                              if (error || self->phase_ == Phase::kClosed) return self->Close();
                              self->SetPhase(Phase::kIdle, self->shared_->limits.idle_timeout_s);
                              self->Read();
                            });
    return;
  }
  SetPhase(Phase::kIdle, shared_->limits.idle_timeout_s);
  Read();
}

void HttpConnection::Read() {
  if (reading_ || phase_ == Phase::kClosed) return;
  reading_ = true;
  const size_t size = phase_ == Phase::kBody ? kBodyRead : kSmallRead;
  if (incoming_.capacity() > 2 * size) std::string().swap(incoming_);
  incoming_.resize(size);
  auto done = [self = shared_from_this()](error_code error, size_t bytes) {
    self->OnRead(error, bytes);
  };
  OnWire([&](auto& wire) {
    if constexpr (std::is_same_v<std::decay_t<decltype(wire)>, HttpSocket>) {
      wire.async_read_some(asio::buffer(incoming_), std::move(done));
    } else {
      wire->async_read_some(asio::buffer(incoming_), std::move(done));
    }
  });
}

void HttpConnection::OnRead(error_code error, size_t bytes) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) return Close();  // in the middle of an answer: the client went away
  shared_->counters.bytes_in += static_cast<int64_t>(bytes);
  if (phase_ == Phase::kClosing) return Read();
  OrNoMemory([&] {
    buffered_.append(incoming_, 0, bytes);
    if (phase_ != Phase::kAnswer) return Feed();
    if (buffered_.size() < kMostEarly) Read();
  });
}

/// Does something for a request that is on its way, which ends where memory does: nobody else is
/// to lose by it, and the client is not to wait.
void HttpConnection::OrNoMemory(const std::function<void()>& take) {
  try {
    return take();
  } catch (const std::bad_alloc&) {
    GiveBack(&incoming_);
  }
  if (phase_ == Phase::kAnswer) return Close();
  try {
    Refuse(503, "there is no memory for this request now; try again later");
  } catch (const std::bad_alloc&) {
    Close();
  }
}

/// Parses what is buffered.
void HttpConnection::Feed() {
  if (phase_ == Phase::kIdle) {
    SetPhase(Phase::kHeader, shared_->limits.header_timeout_s);
    owner_ = 0;
    origin_.clear();
    parser_ = std::make_unique<Parser>();
    parser_->header_limit(
        static_cast<uint32_t>(std::min<size_t>(shared_->limits.header_bytes, UINT32_MAX)));
    parser_->body_limit(shared_->limits.body_bytes);
  }
  while (!buffered_.empty()) {
    error_code error;
    const size_t used = parser_->put(asio::buffer(buffered_), error);
    buffered_.erase(0, used);
    if (error == http::error::need_more) {
      // What is not taken yet is a line: of the header, of a chunk's size, or of the trailer.
      if (buffered_.size() > shared_->limits.header_bytes)
        return Refuse(431, HeaderTooLarge(shared_->limits));
      break;
    }
    if (error) {
      const Refusal refusal = RefusalOf(error, shared_->limits);
      return Refuse(refusal.status, refusal.message);
    }
    if (phase_ == Phase::kHeader && parser_->is_header_done()) {
      if (!HeaderDone()) return;
      parser_->eager(true);
    }
    if (!Reserve(parser_->get().body().size()))
      return Refuse(503, "too many large bodies are being received; try again later");
    if (parser_->is_done()) return Dispatch(/*whole=*/true);
  }
  Read();
}

/// False when the request was refused.
bool HttpConnection::HeaderDone() {
  const auto& message = parser_->get();
  const auto refuse = [this](int status, std::string_view text) {
    Refuse(status, text);
    return false;
  };
  if (message.version() != 10 && message.version() != 11)
    return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken");
  if (const auto encodings = message.count(http::field::transfer_encoding); encodings != 0) {
    // RFC 9112, 6.1: an old proxy on the way would not have understood it.
    if (message.version() == 10) return refuse(400, "HTTP/1.0 has no Transfer-Encoding");
    const auto encoding = message[http::field::transfer_encoding];
    if (encodings != 1 || !EqualIgnoringCase({encoding.data(), encoding.size()}, "chunked"))
      return refuse(501, "only chunked bodies are understood");
  }
  // Two readers could take a request with two for two different ones. Beast refuses one with two
  // lengths, or with a length and an encoding.
  if (message.version() == 11 && message.count(http::field::host) != 1)
    return refuse(400, "exactly one Host header is needed");
  if (!TakeHead()) return refuse(400, "the path is malformed");
  origin_ = request_.Header("Origin");
  const auto length = parser_->content_length();
  if (length && *length > shared_->limits.body_bytes)
    return refuse(413, BodyTooLarge(shared_->limits));
  if (length.value_or(1) > 0 && (length || parser_->chunked()) && shared_->admit) {
    const std::optional<uint64_t> owner = shared_->admit(request_);
    if (!owner) {
      Dispatch(/*whole=*/false);
      return false;
    }
    owner_ = *owner;
  }
  if (length) {
    if (!Reserve(static_cast<size_t>(*length)))
      return refuse(503, "too many large bodies are being received; try again later");
  }
  SetPhase(Phase::kBody, shared_->limits.body_timeout_s);
  if (const auto expect = message[http::field::expect]; !expect.empty()) {
    if (!EqualIgnoringCase({expect.data(), expect.size()}, "100-continue"))
      return refuse(417, "only Expect: 100-continue is understood");
    if (!parser_->is_done() && message.version() == 11) {
      pending_ += "HTTP/1.1 100 Continue\r\n\r\n";
      Flush();
    }
  }
  return true;
}

bool HttpConnection::Reserve(size_t bytes) {
  if (bytes <= reserved_) return true;
  const size_t more = bytes - reserved_;
  const HttpLimits& l = shared_->limits;
  if (shared_->bodies_bytes + more > l.all_bodies_bytes) return false;
  if (owner_ != 0) {
    // One body, or half of the room: nobody takes it all.
    size_t& theirs = shared_->bodies_of[owner_];
    if (theirs + more > std::max(l.body_bytes, l.all_bodies_bytes / 2)) return false;
    theirs += more;
  }
  shared_->bodies_bytes += more;
  reserved_ = bytes;
  return true;
}

void HttpConnection::Release() {
  const size_t bytes = std::exchange(reserved_, 0);
  shared_->bodies_bytes -= bytes;
  const auto owner = shared_->bodies_of.find(owner_);
  if (owner != shared_->bodies_of.end() && (owner->second -= bytes) == 0)
    shared_->bodies_of.erase(owner);
}

/// What the header says becomes `request_`. False for a path that is none.
bool HttpConnection::TakeHead() {
  const auto& message = parser_->get();
  request_ = {};
  request_.method = std::string(message.method_string());
  std::string_view target(message.target().data(), message.target().size());
  // RFC 9112, 3.2.2: the absolute form must be taken too.
  if (const size_t scheme = target.find("://");
      scheme != std::string_view::npos && target.find('/') == scheme + 1) {
    const size_t path = target.find('/', scheme + 3);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  auto split = SplitTarget(target);
  if (!split) return false;
  request_.path = std::move(split->first);
  request_.query = std::move(split->second);
  for (const auto& field : message) {
    const std::string_view name(field.name_string().data(), field.name_string().size());
    const std::string_view value(field.value().data(), field.value().size());
    request_.headers.emplace_back(name, value);
  }
  request_.peer = peer_;
  return true;
}

/// Hands the request to the handler; one that is not whole lacks its body, and is the last.
void HttpConnection::Dispatch(bool whole) {
  auto message = parser_->release();
  parser_.reset();
  keep_alive_ = message.keep_alive() && whole;
  http10_ = message.version() == 10;
  complete_ = false;
  SetPhase(Phase::kAnswer, 0);
  if (!whole) GiveBack(&buffered_);
  HttpRequest request = std::exchange(request_, {});
  if (whole) request.body = std::move(message.body());
  auto reply = std::make_shared<HttpReply>(shared_from_this(), request.method == "HEAD");
  reply_ = reply;
  ++shared_->counters.requests;
  Read();  // nothing is expected, but for the end
  if (Preflight(request, reply)) return;
  try {
    shared_->handler(std::move(request), reply);
  } catch (const std::exception&) {
    if (!reply->gone()) {
      ++shared_->counters.refused_by_status[500];
      reply->Send(500, {{"Content-Type", "application/json"}},
                  ErrorBody(kNoAnswer, "server_error"));
    }
  }
}

/// Answers a browser that asks whether a page of another origin may call.
bool HttpConnection::Preflight(const HttpRequest& request,
                               const std::shared_ptr<HttpReply>& reply) const {
  if (request.method != "OPTIONS" || origin_.empty() || shared_->cors_origins.empty() ||
      request.Header("Access-Control-Request-Method").empty())
    return false;
  // Clients have headers of their own beside ours: OpenAI's for browsers sends a dozen.
  std::string names = "authorization, content-type, x-api-key";
  const std::string_view asked = request.Header("Access-Control-Request-Headers");
  if (!asked.empty() && std::all_of(asked.begin(), asked.end(), IsOfListOfNames)) names = asked;
  reply->Send(204,
              {{"Access-Control-Allow-Methods", "GET, HEAD, POST"},
               {"Access-Control-Allow-Headers", std::move(names)},
               {"Access-Control-Max-Age", "600"}},
              "");
  return true;
}

void HttpConnection::AddCors(HttpHeaders* headers) const {
  if (shared_->cors_origins.empty()) return;
  headers->emplace_back("Vary", "Origin");
  const auto& allowed = shared_->cors_origins;
  if (origin_.empty() || !AllowsOrigin(allowed, origin_)) return;
  headers->emplace_back("Access-Control-Allow-Origin", AllowsOrigin(allowed, "*") ? "*" : origin_);
  headers->emplace_back("Access-Control-Expose-Headers",
                        "x-request-id, x-kvasir-ignored-fields, retry-after");
}

bool HttpConnection::KeepsAlive() const { return keep_alive_ && !shared_->draining; }

/// Answers what never reached a handler, and closes.
void HttpConnection::Refuse(int status, std::string_view message) {
  ++shared_->counters.bad_requests;
  ++shared_->counters.refused_by_status[status];
  parser_.reset();
  request_ = {};
  GiveBack(&buffered_);
  Release();
  SetPhase(Phase::kAnswer, 0);
  keep_alive_ = false;
  const std::string body =
      ErrorBody(message, status >= 500 ? "server_error" : "invalid_request_error", CodeOf(status));
  HttpHeaders headers = {{"Content-Type", "application/json"},
                         {"Content-Length", std::to_string(body.size())},
                         {"Connection", "close"}};
  if (status == 503) headers.emplace_back("Retry-After", "1");
  AddCors(&headers);
  pending_ += HeadText(status, headers);
  pending_ += body;
  complete_ = true;
  Flush();
}

void HttpConnection::Answer(int status, HttpHeaders headers, std::string&& body, bool head) {
  if (phase_ != Phase::kAnswer) return;
  Release();
  if (body.size() > kLargeAnswer && !Reserve(body.size())) {
    status = 503;
    ++shared_->counters.refused_by_status[status];
    headers = {{"Content-Type", "application/json"}, {"Retry-After", "1"}};
    body = ErrorBody("the answer is too large while others wait to be read; try again later",
                     "server_error");
  }
  AddCors(&headers);
  if (status != 204 && status != 304)
    headers.emplace_back("Content-Length", std::to_string(body.size()));
  if (!KeepsAlive()) {
    headers.emplace_back("Connection", "close");
  } else if (http10_) {
    headers.emplace_back("Connection", "keep-alive");
  }
  pending_ += HeadText(status, headers);
  if (!head) pending_ += body;
  complete_ = true;
  Flush();
}

void HttpConnection::BeginStream(int status, HttpHeaders headers, bool head) {
  if (phase_ != Phase::kAnswer) return;
  Release();
  AddCors(&headers);
  chunked_ = !http10_;
  if (http10_) keep_alive_ = false;  // its end is the end of the connection
  if (chunked_ && !head) headers.emplace_back("Transfer-Encoding", "chunked");
  if (!KeepsAlive()) headers.emplace_back("Connection", "close");
  pending_ += HeadText(status, headers);
  complete_ = head;
  Flush();
}

void HttpConnection::WriteStream(std::string_view bytes) {
  if (phase_ != Phase::kAnswer) return;
  // What is written at once may be larger than the bound: until it is sent, its reader is slow only
  // where stall_timeout_s says so.
  const size_t limit = shared_->limits.pending_bytes;
  if (pending() <= limit) {
    most_pending_ = bytes.size() > limit ? pending() + bytes.size() + limit : limit;
  } else if (pending() > most_pending_) {
    ++shared_->counters.slow_readers;
    return Close();
  }
  if (chunked_) {
    AppendChunk(bytes, &pending_);
  } else {
    pending_ += bytes;
  }
  Flush();
}

void HttpConnection::EndStream() {
  if (phase_ != Phase::kAnswer) return;
  if (chunked_) pending_ += "0\r\n\r\n";
  complete_ = true;
  Flush();
}

void HttpConnection::Abandoned(std::shared_ptr<HttpConnection> connection, bool begun, bool head) {
  const auto executor = connection->socket().get_executor();
  asio::post(executor, [connection = std::move(connection), begun, head] {
    if (connection->phase_ != Phase::kAnswer || connection->complete_) return;
    // A stream cannot be made an error any more: it is cut.
    if (begun) return connection->Close();
    ++connection->shared_->counters.refused_by_status[500];
    connection->Answer(500, {{"Content-Type", "application/json"}},
                       ErrorBody(kNoAnswer, "server_error"), head);
  });
}

void HttpConnection::Flush() {
  if (write_under_way_) return;
  if (pending_.empty()) {
    // Later, for the caller may be in the middle of a request.
    if (complete_) {
      complete_ = false;
      asio::post(socket().get_executor(), [self = shared_from_this()] { self->NextRequest(); });
    }
    return;
  }
  writing_.swap(pending_);
  pending_.clear();
  written_ = progress_ = 0;
  write_under_way_ = true;
  progress_ns_ = SteadyClock().NowNs();
  OnWritten({}, 0);
}

void HttpConnection::OnWritten(error_code error, size_t bytes) {
  if (phase_ == Phase::kClosed) return;
  if (error) return Close();
  written_ += bytes;
  shared_->counters.bytes_out += static_cast<int64_t>(bytes);
  if (written_ - progress_ >= kLeastProgress) {
    progress_ = written_;
    progress_ns_ = SteadyClock().NowNs();
  }
  if (written_ < writing_.size()) {
    auto done = [self = shared_from_this()](error_code e, size_t n) { self->OnWritten(e, n); };
    const auto rest = asio::buffer(writing_) + written_;
    OnWire([&](auto& wire) {
      if constexpr (std::is_same_v<std::decay_t<decltype(wire)>, HttpSocket>) {
        wire.async_write_some(rest, std::move(done));
      } else {
        wire->async_write_some(rest, std::move(done));
      }
    });
    return;
  }
  write_under_way_ = false;
  GiveBack(&writing_);
  written_ = 0;
  Flush();
}

void HttpConnection::NextRequest() {
  if (phase_ != Phase::kAnswer) return;
  reply_.reset();
  Release();
  chunked_ = false;
  if (!KeepsAlive()) return LingerThenClose();
  GiveBack(&pending_);
  if (origin_.capacity() > kKeptBytes) std::string().swap(origin_);
  SetPhase(Phase::kIdle, shared_->limits.idle_timeout_s);
  OrNoMemory([this] { return buffered_.empty() ? Read() : Feed(); });
}

/// Closed at once, with bytes of the client still on their way, the answer could be lost (RFC 9112,
/// 9.6).
void HttpConnection::LingerThenClose() {
  SetPhase(Phase::kClosing, kLingerSeconds);
  GiveBack(&buffered_);
  error_code ignored;
  socket().shutdown(HttpSocket::shutdown_send, ignored);
  Read();
}

void HttpConnection::CloseIfIdle() {
  if (phase_ == Phase::kIdle || phase_ == Phase::kHandshake) Close();
}

void HttpConnection::CheckTime(int64_t now_ns) {
  if (write_under_way_ &&
      static_cast<double>(now_ns - progress_ns_) * 1e-9 > shared_->limits.stall_timeout_s) {
    ++shared_->counters.slow_readers;
    return Close();
  }
  if (deadline_ns_ == 0 || now_ns < deadline_ns_) return;
  if (phase_ != Phase::kHeader && phase_ != Phase::kBody) return Close();
  ++shared_->counters.timeouts;
  Refuse(408, "the request did not come in time");
}

void HttpConnection::Close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  error_code ignored;
  socket().close(ignored);
  Release();
  --shared_->counters.connections;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  shared_->connections.erase(self);
  if (const auto reply = reply_.lock(); reply != nullptr) reply->ClientGone();
  shared_->closed();
}

HttpReply::HttpReply(std::shared_ptr<HttpConnection> connection, bool head)
    : connection_(std::move(connection)), head_(head) {}

HttpReply::~HttpReply() {
  if (connection_ != nullptr) HttpConnection::Abandoned(std::move(connection_), begun_, head_);
}

void HttpReply::Send(int status, HttpHeaders headers, std::string body) {
  if (connection_ == nullptr || begun_) return;
  const auto connection = std::exchange(connection_, nullptr);
  connection->Answer(status, std::move(headers), std::move(body), head_);
}

void HttpReply::Begin(int status, HttpHeaders headers) {
  if (connection_ == nullptr || begun_) return;
  begun_ = true;
  const auto connection = connection_;  // it may end, and let go of it
  connection->BeginStream(status, std::move(headers), head_);
  if (head_) connection_.reset();  // that was all
}

void HttpReply::Write(std::string_view bytes) {
  if (connection_ == nullptr || !begun_ || bytes.empty()) return;
  const auto connection = connection_;  // it may end, and let go of it
  connection->WriteStream(bytes);
}

void HttpReply::End() {
  if (connection_ == nullptr || !begun_) return;
  const auto connection = std::exchange(connection_, nullptr);
  connection->EndStream();
}

void HttpReply::BodyTaken() {
  if (connection_ != nullptr && !begun_) connection_->Release();
}

void HttpReply::OnGone(std::function<void()> gone) { gone_ = std::move(gone); }

bool HttpReply::Reserve(size_t bytes) {
  return connection_ == nullptr || begun_ || connection_->Reserve(bytes);
}

size_t HttpReply::pending() const { return connection_ == nullptr ? 0 : connection_->pending(); }

void HttpReply::ClientGone() {
  if (connection_ == nullptr) return;
  connection_.reset();
  if (const auto gone = std::exchange(gone_, nullptr); gone) gone();
}

}  // namespace kvasir
