// The HTTP server against raw sockets, so that clients of every kind can be played.

#include "http/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <random>
#include <thread>

namespace kvasir {
namespace {

/// A client's end of a connection.
class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0)
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  explicit Client(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  Client(Client&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        connected_(other.connected_),
        rest_(std::move(other.rest_)) {}
  ~Client() { Close(); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  bool connected() const { return connected_; }

  /// False when the server has closed.
  bool Send(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t n = send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  /// Everything until the server closes.
  std::string ReadAll() {
    while (Receive()) {
    }
    return std::move(rest_);
  }
  /// Until `end` has come; then all up to it.
  std::string ReadUntil(std::string_view end) {
    size_t at = 0;
    while ((at = rest_.find(end)) == std::string::npos) {
      if (!Receive()) return std::move(rest_);
    }
    std::string out = rest_.substr(0, at + end.size());
    rest_.erase(0, at + end.size());
    return out;
  }
  /// One answer with a Content-Length: its head and body.
  std::pair<std::string, std::string> ReadAnswer() {
    const std::string head = ReadUntil("\r\n\r\n");
    const size_t at = head.find("Content-Length: ");
    const size_t length = at == std::string::npos ? 0 : std::stoul(head.substr(at + 16));
    while (rest_.size() < length && Receive()) {
    }
    std::string body = rest_.substr(0, length);
    rest_.erase(0, length);
    return {head, body};
  }

 private:
  bool Receive() {
    pollfd ready{fd_, POLLIN, 0};
    if (poll(&ready, 1, 60'000) != 1) {
      ADD_FAILURE() << "nothing came within a minute";
      return false;
    }
    char buffer[4096];
    const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
    if (n > 0) rest_.append(buffer, static_cast<size_t>(n));
    return n > 0;
  }
  int fd_;
  bool connected_ = false;
  std::string rest_;
};

int StatusOf(const std::string& head) { return head.size() > 12 ? std::atoi(head.c_str() + 9) : 0; }

/// A server on a thread of its own. Paths: /echo gives method, path, query and body; /wait answers
/// when released; /stream begins a stream that the test writes; /throw throws; /drop forgets.
class Http : public ::testing::Test {
 protected:
  void Start(HttpOptions options = {}) {
    options.port = 0;
    auto server = HttpServer::Listen(
        options,
        [this](HttpRequest&& request, auto reply) { Handle(std::move(request), std::move(reply)); },
        [](const HttpRequest& head) -> std::optional<uint64_t> {
          if (head.Header("X-Owner") == "stranger") return {};
          return head.Header("X-Owner").size();
        });
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(*server);
    thread_ = std::thread([this] { server_->Run(); });
  }
  void TearDown() override {
    if (!thread_.joinable()) return;
    server_->Post([this] { server_->Stop(); });
    thread_.join();
    waiting_.clear();
  }
  void Handle(HttpRequest&& request, std::shared_ptr<HttpReply> reply) {
    ++handled_;
    if (request.path == "/throw") throw std::runtime_error("on purpose");
    if (request.path == "/drop") return;
    if (request.path == "/wait" || request.path == "/stream") {
      if (request.path == "/stream") reply->Begin(200, {{"Content-Type", "text/plain"}});
      reply->OnGone([this] { ++gone_; });
      waiting_.push_back(std::move(reply));
      return;
    }
    reply->Send(200, {},
                request.method + " " + request.path + "?" + request.query + "\n" + request.body);
  }
  /// Runs on the I/O thread, and waits for it.
  template <typename F>
  auto On(F fn) {
    std::promise<decltype(fn())> result;
    server_->Post([&] {
      if constexpr (std::is_void_v<decltype(fn())>) {
        fn();
        result.set_value();
      } else {
        result.set_value(fn());
      }
    });
    return result.get_future().get();
  }
  /// Polls: what is waited for comes soon, but nobody says when.
  template <typename F>
  void WaitFor(F condition) {
    for (int i = 0; i < 60'000 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(condition()) << "it did not come within a minute";
  }
  size_t Waiting() {
    return On([this] { return waiting_.size(); });
  }
  HttpCounters Counters() {
    return On([this] { return server_->counters(); });
  }
  std::string Once(const std::string& text) {
    Client client(server_->port());
    client.Send(text);
    return client.ReadAnswer().first;
  }

  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::vector<std::shared_ptr<HttpReply>> waiting_;  // of the I/O thread
  std::atomic<int> handled_{0}, gone_{0};
};

TEST_F(Http, RequestsOnOneConnectionAreAnsweredInOrderHoweverTheyAreCut) {
  Start();
  std::string all, want;
  for (int i = 0; i < 20; ++i) {
    const std::string body(static_cast<size_t>(i * 37 % 101), static_cast<char>('a' + i));
    const std::string path = "/echo/" + std::to_string(i);
    if (i % 3 == 0) {
      all += "GET " + path + "?q=" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
      want += "GET " + path + "?q=" + std::to_string(i) + "\n";
    } else if (i % 3 == 1) {
      all += "POST " + path +
             " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
             body;
      want += "POST " + path + "?\n" + body;
    } else {
      const std::string half = body.substr(0, body.size() / 2), rest = body.substr(half.size());
      all += "POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
      for (const std::string& part : {half, rest}) {
        char size[16];
        std::snprintf(size, sizeof(size), "%zx\r\n", part.size());
        if (!part.empty()) all += size + part + "\r\n";
      }
      all += "0\r\n\r\n";
      want += "POST " + path + "?\n" + body;
    }
  }
  std::mt19937 random(1);
  for (int round = 0; round < 30; ++round) {
    Client client(server_->port());
    std::thread sender([&] {
      for (size_t at = 0; at < all.size();) {
        const size_t n = round == 0 ? all.size() : 1 + random() % (round < 5 ? 3 : 400);
        client.Send(std::string_view(all).substr(at, n));
        at += n;
      }
    });
    std::string got;
    for (int i = 0; i < 20; ++i) {
      const auto [head, body] = client.ReadAnswer();
      ASSERT_EQ(StatusOf(head), 200) << head;
      got += body;
    }
    sender.join();
    ASSERT_EQ(got, want);
  }
}

TEST_F(Http, AHeadRequestGetsNoBodyAndTheConnectionGoesOn) {
  Start();
  Client client(server_->port());
  client.Send("HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.ReadUntil("\r\n\r\n").find("Content-Length: 12"), std::string::npos);
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().second, "GET /echo?\n");
}

TEST_F(Http, AnOldClientGetsItsAnswerAndTheEnd) {
  Start();
  Client client(server_->port());
  client.Send("GET /echo HTTP/1.0\r\n\r\n");
  const std::string all = client.ReadAll();
  EXPECT_EQ(StatusOf(all), 200);
  EXPECT_NE(all.find("\r\n\r\nGET /echo?\n"), std::string::npos);
}

TEST_F(Http, ABodyIsAskedForWhenItsSenderWaits) {
  Start();
  Client client(server_->port());
  client.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("abc");
  EXPECT_EQ(client.ReadAnswer().second, "POST /echo?\nabc");
}

TEST_F(Http, WhatIsNoRequestIsRefusedWithAStatusAndTheEnd) {
  HttpOptions options;
  options.limits.header_bytes = 1000;
  options.limits.body_bytes = 100;
  Start(options);
  const std::string host = " HTTP/1.1\r\nHost: x\r\n";
  const std::pair<std::string, int> cases[] = {
      {"nonsense\r\n\r\n", 400},
      {std::string(50, '\0') + "\r\n\r\n", 400},
      {"GET /a HTTP/2.0\r\nHost: x\r\n\r\n", 505},
      {"GET /a HTTP/1.1\r\n\r\n", 400},
      {"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
      {"GET /%zz" + host + "\r\n", 400},
      {"GET /%00" + host + "\r\n", 400},
      {"GET /a%0d%0ab" + host + "\r\n", 400},
      {"GET a" + host + "\r\n", 400},
      {"GET /a" + host + "X: " + std::string(2000, 'x') + "\r\n\r\n", 431},
      {"GET /" + std::string(3000, 'x'), 431},
      {"POST /a" + host + "Content-Length: 101\r\n\r\n", 413},
      {"POST /a" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {"POST /a" + host + "Content-Length: -1\r\n\r\n", 400},
      {"POST /a" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"POST /a" + host + "Transfer-Encoding: chunked\r\n\r\n80\r\n" + std::string(128, 'x'), 413},
      {"POST /a" + host + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"POST /a" + host + "Transfer-Encoding: gzip\r\n\r\n", 501},
      {"POST /a" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"POST /a" + host + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
      {"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST /a" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"POST /a" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400},
      {"POST /a" + host + "Content-Length: 3\r\nExpect: wonders\r\n\r\n", 417},
  };
  for (const auto& [text, status] : cases) {
    Client client(server_->port());
    client.Send(text);
    const std::string all = client.ReadAll();  // it ends: the connection is closed
    EXPECT_EQ(StatusOf(all), status) << text.substr(0, 120) << "\n-> " << all;
    EXPECT_NE(all.find("{\"error\":{\"message\":"), std::string::npos) << all;
  }
  EXPECT_EQ(handled_, 0);
}

TEST_F(Http, WhatIsTooLargeIsToldItsLimitAndACode) {
  HttpOptions options;
  options.limits.header_bytes = 1000;
  options.limits.body_bytes = 100;
  Start(options);
  const std::string host = " HTTP/1.1\r\nHost: x\r\n";
  const std::tuple<std::string, std::string, std::string> cases[] = {
      {"POST /a" + host + "Content-Length: 101\r\n\r\n", "100 bytes", "\"too_large\""},
      {"POST /a" + host + "Transfer-Encoding: chunked\r\n\r\n80\r\n" + std::string(128, 'x'),
       "100 bytes", "\"too_large\""},
      {"GET /a" + host + "X: " + std::string(2000, 'x') + "\r\n\r\n", "1000 bytes",
       "\"header_too_large\""},
      {"GET /a HTTP/1.1\r\n\r\n", "Host", "null"},
  };
  for (const auto& [text, limit, code] : cases) {
    Client client(server_->port());
    client.Send(text);
    const std::string all = client.ReadAll();
    EXPECT_NE(all.find(limit), std::string::npos) << all;
    EXPECT_NE(all.find("\"code\":" + code + "}}"), std::string::npos) << all;
  }
}

TEST_F(Http, PathsAreDecodedAndTheAbsoluteFormIsTaken) {
  Start();
  Client client(server_->port());
  client.Send("GET /a%20b/%e4%b8%9c?x=%41&y HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().second, "GET /a b/\xe4\xb8\x9c?x=%41&y\n");
  client.Send("GET http://somewhere/else?q HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().second, "GET /else?q\n");
  HttpRequest request;
  request.query = "a=1%202&b=&c&a=3";
  EXPECT_EQ(request.QueryParam("a"), "1 2");
  for (const char* name : {"b", "c"}) EXPECT_EQ(request.QueryParam(name), "") << name;
  EXPECT_FALSE(request.QueryParam("d"));
}

TEST_F(Http, SlowRequestsAreCutOffWithAStatus) {
  HttpOptions options;
  options.limits.header_timeout_s = 0.05;
  options.limits.body_timeout_s = 0.05;
  options.limits.idle_timeout_s = 0.05;
  Start(options);
  Client header(server_->port()), body(server_->port()), idle(server_->port());
  header.Send("GET / HTTP/1.1\r\nHo");
  body.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(StatusOf(header.ReadAll()), 408);
  EXPECT_EQ(StatusOf(body.ReadAll()), 408);
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_EQ(Counters().timeouts, 2);
}

TEST_F(Http, AStreamArrivesInChunksAndEnds) {
  Start();
  Client client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  WaitFor([&] { return Waiting() == 1; });
  EXPECT_NE(client.ReadUntil("\r\n\r\n").find("Transfer-Encoding: chunked"), std::string::npos);
  On([&] { waiting_[0]->Write("hello"); });
  EXPECT_EQ(client.ReadUntil("hello\r\n"), "5\r\nhello\r\n");
  On([&] {
    waiting_[0]->Write("");  // must not be the end
    waiting_[0]->Write(std::string(17, 'x'));
    waiting_[0]->End();
    waiting_[0]->Write("too late");
  });
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "11\r\n" + std::string(17, 'x') + "\r\n0\r\n\r\n");
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().second, "GET /echo?\n");
  EXPECT_EQ(gone_, 0);
}

TEST_F(Http, AClientThatLeavesIsNoticedAlsoWhileNothingIsWritten) {
  Start();
  for (const char* path : {"/wait", "/stream"}) {
    const int before = gone_;
    Client client(server_->port());
    client.Send(std::string("GET ") + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
    WaitFor([&] { return Waiting() == 1; });
    client.Close();
    WaitFor([&] { return gone_ == before + 1; });
    EXPECT_TRUE(On([&] { return waiting_[0]->gone(); }));
    On([&] {
      waiting_[0]->Write("nobody reads this");
      waiting_[0]->Send(200, {}, "nor this");
      waiting_.clear();
    });
  }
  EXPECT_EQ(gone_, 2);
}

TEST_F(Http, AReaderThatDoesNotReadIsCutOffWithinItsBound) {
  HttpOptions options;
  options.limits.pending_bytes = 100'000;
  Start(options);
  Client client(server_->port(), 2048);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  WaitFor([&] { return Waiting() == 1; });
  size_t most = 0;
  for (int i = 0; i < 100'000 && gone_ == 0; ++i) {
    On([&] { waiting_[0]->Write(std::string(1000, 'x')); });
    most = std::max(most, On([&] { return waiting_[0]->pending(); }));
  }
  EXPECT_EQ(gone_, 1);
  EXPECT_LE(most, 102'000u);  // the bound, and one write with its chunk's size
  EXPECT_EQ(Counters().slow_readers, 1);
}

TEST_F(Http, AReaderThatStopsIsCutOffAfterAWhile) {
  HttpOptions options;
  options.limits.stall_timeout_s = 0.05;
  Start(options);
  Client client(server_->port(), 2048);
  client.Send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  WaitFor([&] { return Waiting() == 1; });
  On([&] { waiting_[0]->Send(200, {}, std::string(20'000'000, 'x')); });
  WaitFor([&] { return Counters().slow_readers == 1; });
}

TEST_F(Http, AHandlerThatThrowsOrForgetsIsAnswered500) {
  Start();
  EXPECT_EQ(StatusOf(Once("GET /throw HTTP/1.1\r\nHost: x\r\n\r\n")), 500);
  EXPECT_EQ(StatusOf(Once("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n")), 500);
  EXPECT_EQ(StatusOf(Once("GET /drop HTTP/1.0\r\n\r\n")), 500);
  // The body of a 500 would be taken for the next answer.
  Client client(server_->port());
  client.Send("HEAD /drop HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(StatusOf(client.ReadUntil("\r\n\r\n")), 500);
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().second, "GET /echo?\n");
}

TEST_F(Http, DrainingFinishesWhatIsOpenAndTakesNothingNew) {
  Start();
  Client open(server_->port()), idle(server_->port());
  idle.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  idle.ReadAnswer();
  open.Send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  WaitFor([&] { return Waiting() == 1; });
  On([&] { server_->Drain(); });
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_FALSE(Client(server_->port()).connected());
  On([&] { waiting_[0]->Send(200, {}, "whole"); });
  const std::string all = open.ReadAll();
  EXPECT_NE(all.find("Connection: close"), std::string::npos);
  EXPECT_EQ(all.substr(all.size() - 5), "whole");
  open.Close();
  thread_.join();  // Run returns by itself
}

TEST_F(Http, MoreConnectionsThanMayBeAreRefusedAndRoomIsFoundAgain) {
  HttpOptions options;
  options.limits.connections = 3;
  Start(options);
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) clients.emplace_back(server_->port());
  WaitFor([&] { return Counters().connections == 3; });
  EXPECT_EQ(StatusOf(Client(server_->port()).ReadAll()), 503);
  clients.pop_back();
  WaitFor([&] { return Counters().connections == 2; });
  EXPECT_EQ(StatusOf(Once("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
}

TEST_F(Http, WithoutFileDescriptorsItWaitsAndGoesOnWhenThereAreSome) {
  Start();
  Client first(server_->port());
  first.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  first.ReadAnswer();
  Client late(server_->port());
  WaitFor([&] { return Counters().connections == 2; });
  std::vector<int> taken;
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit before = limit;
  const int probe = dup(0);
  limit.rlim_cur = static_cast<rlim_t>(probe) + 1;  // the client's own end fits, and nothing else
  close(probe);
  setrlimit(RLIMIT_NOFILE, &limit);
  Client waiting(server_->port());
  ASSERT_TRUE(waiting.connected());  // by the kernel; the server cannot accept it
  late.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(StatusOf(late.ReadAnswer().first), 200) << "others are served meanwhile";
  setrlimit(RLIMIT_NOFILE, &before);
  waiting.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(StatusOf(waiting.ReadAnswer().first), 200);
}

TEST_F(Http, LargeBodiesTogetherHaveABound) {
  HttpOptions options;
  options.limits.all_bodies_bytes = 1000;
  Start(options);
  Client first(server_->port());
  first.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nabc");
  WaitFor([&] { return Counters().bytes_in > 50; });
  EXPECT_EQ(StatusOf(Once("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n")), 503);
  first.Send(std::string(897, 'x'));
  EXPECT_EQ(StatusOf(first.ReadAnswer().first), 200);
  EXPECT_EQ(StatusOf(Once("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")), 200);
}

TEST_F(Http, OneOwnerTakesHalfOfTheRoomForBodiesAndAStrangerNone) {
  HttpOptions options;
  options.limits.all_bodies_bytes = 1000;
  options.limits.body_bytes = 500;
  Start(options);
  const auto post = [](const std::string& owner, int length) {
    return "POST /echo HTTP/1.1\r\nHost: x\r\nX-Owner: " + owner +
           "\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n";
  };
  // A stranger's request is the handler's at once, without its body, and the last of its
  // connection.
  Client stranger(server_->port());
  stranger.Send(post("stranger", 400) + "abc");
  const std::string all = stranger.ReadAll();
  EXPECT_NE(all.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(all.ends_with("POST /echo?\n")) << all;
  const int64_t before = Counters().bytes_in;
  Client first(server_->port());
  first.Send(post("a", 450));
  WaitFor(
      [&] { return Counters().bytes_in - before == static_cast<int64_t>(post("a", 450).size()); });
  EXPECT_EQ(StatusOf(Once(post("a", 51))), 503);
  EXPECT_EQ(StatusOf(Once(post("bb", 3) + "abc")), 200);
  first.Send(std::string(450, 'x'));
  EXPECT_EQ(StatusOf(first.ReadAnswer().first), 200);
  EXPECT_EQ(StatusOf(Once(post("a", 51) + std::string(51, 'x'))), 200);
}

TEST_F(Http, ABodyThatItsHandlerHasReadLeavesRoomForOthers) {
  HttpOptions options;
  options.limits.all_bodies_bytes = 1000;
  Start(options);
  Client first(server_->port());
  first.Send("POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" +
             std::string(900, 'x'));
  WaitFor([&] { return Waiting() == 1; });
  const std::string second =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + std::string(500, 'x');
  EXPECT_EQ(StatusOf(Once(second)), 503);
  On([&] { waiting_[0]->BodyTaken(); });
  EXPECT_EQ(StatusOf(Once(second)), 200);
}

TEST_F(Http, LargeAnswersThatNobodyReadsHaveABound) {
  HttpOptions options;
  options.limits.all_bodies_bytes = 30'000'000;
  Start(options);
  std::vector<Client> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(server_->port(), 2048);
    clients.back().Send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    WaitFor([&] { return Waiting() == static_cast<size_t>(i + 1); });
    On([&] { waiting_.back()->Send(200, {}, std::string(20'000'000, 'x')); });
  }
  EXPECT_EQ(StatusOf(clients[1].ReadAnswer().first), 503);
  const auto [head, body] = clients[0].ReadAnswer();
  EXPECT_EQ(StatusOf(head), 200);
  EXPECT_EQ(body.size(), 20'000'000u);
}

TEST_F(Http, ALineOfAChunkThatDoesNotEndIsBounded) {
  HttpOptions options;
  options.limits.header_bytes = 1000;
  Start(options);
  const std::string begin = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1";
  for (const std::string& rest :
       {";" + std::string(3000, 'a'), "\r\nx\r\n0\r\nA: " + std::string(3000, 'a')})
    EXPECT_EQ(StatusOf(Once(begin + rest)), 431);
}

TEST_F(Http, AWriteThatIsLargerThanTheBoundReachesAReaderThatReads) {
  HttpOptions options;
  options.limits.pending_bytes = 1000;
  Start(options);
  Client client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  WaitFor([&] { return Waiting() == 1; });
  On([&] {
    waiting_[0]->Write(std::string(5'000'000, 'x'));
    waiting_[0]->End();
  });
  EXPECT_GT(client.ReadUntil("\r\n0\r\n\r\n").size(), 5'000'000u);
}

TEST_F(Http, WhatFollowsALargeWriteDoesNotCutItsReaderOff) {
  HttpOptions options;
  options.limits.pending_bytes = 1000;
  Start(options);
  Client client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  WaitFor([&] { return Waiting() == 1; });
  On([&] {
    waiting_[0]->Write(std::string(5'000'000, 'x'));
    for (int i = 0; i < 9; ++i) waiting_[0]->Write(std::string(100, 'y'));
  });
  On([&] { waiting_[0]->End(); });
  EXPECT_GT(client.ReadUntil("\r\n0\r\n\r\n").size(), 5'000'900u);
  EXPECT_EQ(Counters().slow_readers, 0);
}

TEST_F(Http, AHeadRequestForAStreamEndsWithItsHead) {
  Start();
  Client client(server_->port());
  client.Send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(StatusOf(client.ReadUntil("\r\n\r\n")), 200);
  EXPECT_EQ(client.ReadAnswer().second, "GET /echo?\n");
}

TEST_F(Http, PagesOfAllowedOriginsMayCallAndOthersMayNot) {
  HttpOptions options;
  options.cors_origins = {"https://a.example"};
  Start(options);
  const std::string ask =
      "OPTIONS /echo HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Method: POST\r\nOrigin: ";
  const std::string yes = Once(ask + "https://a.example\r\n\r\n"),
                    no = Once(ask + "https://b.example\r\n\r\n");
  EXPECT_EQ(StatusOf(yes), 204);
  EXPECT_NE(yes.find("Access-Control-Allow-Origin: https://a.example\r\n"), std::string::npos);
  EXPECT_EQ(no.find("Access-Control-Allow-Origin"), std::string::npos);
  const std::string own = Once(ask + "https://a.example\r\nAccess-Control-Request-Headers: " +
                               "authorization,x-stainless-os\r\n\r\n");
  EXPECT_NE(own.find("Access-Control-Allow-Headers: authorization,x-stainless-os\r\n"),
            std::string::npos);
  // Also what never reaches a handler.
  const std::string bad =
      Once("GET /echo HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nExpect: x\r\n\r\n");
  EXPECT_EQ(StatusOf(bad), 417);
  EXPECT_NE(bad.find("Access-Control-Allow-Origin: https://a.example\r\n"), std::string::npos);
  const std::string get =
      Once("GET /echo HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\r\n");
  EXPECT_NE(get.find("Access-Control-Allow-Origin: https://a.example\r\n"), std::string::npos);
  EXPECT_NE(get.find("Vary: Origin"), std::string::npos);
}

TEST_F(Http, AUnixSocketServesAndAStaleOneIsReplaced) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("kvasir-" + std::to_string(getpid()))).string();
  HttpOptions options;
  options.unix_path = path;
  Start(options);
  Client client(path);
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().second, "GET /echo?\n");
  EXPECT_FALSE(HttpServer::Listen(options, nullptr).ok()) << "another server has it";
  client.Close();
  TearDown();
  thread_ = {};
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  const int left = socket(AF_UNIX, SOCK_STREAM, 0);  // as a killed server leaves it
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(left, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(left);
  EXPECT_TRUE(HttpServer::Listen(options, nullptr).ok());
  std::ofstream(path) << "a file of mine";
  EXPECT_FALSE(HttpServer::Listen(options, nullptr).ok());
  EXPECT_TRUE(std::filesystem::exists(path));
  std::filesystem::remove(path);
}

TEST_F(Http, BadOptionsAreRefusedWithTheirValue) {
  HttpOptions options;
  options.host = "no such host!";
  auto listen = [&] { return HttpServer::Listen(options, nullptr); };
  EXPECT_NE(listen().error().message.find("no such host!"), std::string::npos);
  options = {};
  options.unix_path = std::string(200, 'x');
  EXPECT_NE(listen().error().message.find("200 bytes"), std::string::npos);
  options = {};
  options.tls_cert = options.tls_key = "/nonexistent.pem";
  EXPECT_NE(listen().error().message.find("/nonexistent.pem"), std::string::npos);
}

uint64_t ResidentBytes() {
  std::ifstream in("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST_F(Http, ThousandsOfConnectionsAreCheapAndAThousandStreamsAllEnd) {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < 9000) GTEST_SKIP() << "only " << limit.rlim_max << " files may be open";
  Start();
  constexpr int kIdle = 3000, kStreams = 1000;
  std::vector<Client> idle, streams;
  idle.reserve(kIdle);
  const auto ask = [](Client& c) {
    c.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    return StatusOf(c.ReadAnswer().first);
  };
  for (int i = 0; i < 100; ++i) idle.emplace_back(server_->port());
  for (Client& c : idle) ASSERT_EQ(ask(c), 200);
  const uint64_t before = ResidentBytes();
  for (int i = 100; i < kIdle; ++i) {
    idle.emplace_back(server_->port());
    ASSERT_EQ(ask(idle.back()), 200);  // each has been used once
  }
  // Both ends are in this process: the bound holds for the two together.
  EXPECT_LE((ResidentBytes() - before) / (kIdle - 100), 32u << 10);
  for (int i = 0; i < kStreams; ++i) {
    streams.emplace_back(server_->port());
    streams.back().Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  WaitFor([&] { return Waiting() == kStreams; });
  for (int round = 0; round < 20; ++round) {
    On([&] {
      for (auto& reply : waiting_) reply->Write("data: token\n\n");
    });
  }
  On([&] {
    for (auto& reply : waiting_) reply->End();
  });
  for (Client& c : streams) {
    const std::string all = c.ReadUntil("0\r\n\r\n");
    size_t events = 0;
    for (size_t at = 0; (at = all.find("token", at)) != std::string::npos; ++at) ++events;
    ASSERT_EQ(events, 20u);
  }
}

}  // namespace
}  // namespace kvasir
