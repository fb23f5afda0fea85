// A connection's bytes in pieces of any size: all that comes is an answer, and the connection ends.
#include <sys/socket.h>

#include "fuzz_input.h"
#include "http/connection.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  FuzzInput in(data, size);
  boost::asio::io_context io(1);
  HttpShared shared;
  shared.limits.header_bytes = 2000;
  shared.limits.body_bytes = 5000;
  shared.limits.all_bodies_bytes = 8000;
  shared.cors_origins = {"https://a"};
  shared.closed = [] {};
  std::vector<std::shared_ptr<HttpReply>> kept;
  shared.handler = [&](HttpRequest&& request, std::shared_ptr<HttpReply> reply) {
    CHECK(!request.path.empty() && request.path[0] == '/');
    CHECK_LE(request.body.size(), shared.limits.body_bytes);
    (void)request.QueryParam("a");
    if (request.path == "/keep") {
      kept.push_back(std::move(reply));
    } else if (request.path == "/stream") {
      reply->Begin(200, {});
      reply->Write(request.body);
      reply->End();
    } else if (request.path != "/forget") {
      reply->Send(200, {{"X", request.query}}, request.body);
    }
  };
  // Some paths are strangers', the others have owners.
  shared.admit = [](const HttpRequest& head) -> std::optional<uint64_t> {
    if (head.path == "/forget") return {};
    return head.path.size() % 3;
  };
  int ends[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  const auto connection = std::make_shared<HttpConnection>(
      &shared, HttpSocket(io, boost::asio::generic::stream_protocol(AF_UNIX, 0), ends[0]), nullptr,
      "peer");
  shared.connections.insert(connection);
  connection->Start();
  std::string answers;
  const auto work = [&] {
    io.restart();
    io.poll();
    char buffer[4096];
    for (ssize_t n; (n = read(ends[1], buffer, sizeof(buffer))) > 0;)
      answers.append(buffer, static_cast<size_t>(n));
  };
  while (!in.empty()) {
    const std::string_view piece = in.Take(1 + in.Byte());
    // A client that still sends is never cut off: the answer could be lost.
    CHECK_EQ(send(ends[1], piece.data(), piece.size(), MSG_NOSIGNAL),
             static_cast<ssize_t>(piece.size()));
    work();
    if (kept.size() > 1) kept.erase(kept.begin());
  }
  kept.clear();
  work();
  if (!answers.empty()) CHECK(answers.compare(0, 5, "HTTP/") == 0);
  close(ends[1]);
  io.restart();
  io.poll();
  connection->Close();
  io.restart();
  io.poll();
  CHECK_EQ(shared.counters.connections, 0);
  CHECK_EQ(shared.bodies_bytes, size_t{0});
  CHECK(shared.bodies_of.empty());
  shared.handler = nullptr;
  return 0;
}
