#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <random>
#include <set>
#include <thread>

#include "loadgen/load_client.h"
#include "loadgen/load_report.h"
#include "loadgen/load_run.h"
#include "loadgen/sse_reader.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

TEST(SseReader, GivesTheSameEventsHoweverTheBytesAreCut) {
  const std::string text =
      ": comment\n\ndata: one\n\nevent: x\ndata:two\ndata: three\r\n\r\nid: 5\n\ndata: \n\n"
      "data: a\rdata: b\r\rdata: unfinished";
  const std::vector<std::string> want = {"one", "two\nthree", "", "a\nb"};
  for (size_t step = 1; step <= text.size(); ++step) {
    SseReader reader;
    std::vector<std::string> got;
    for (size_t at = 0; at < text.size(); at += step) {
      EXPECT_TRUE(reader.Push(std::string_view(text).substr(at, step),
                              [&](std::string_view data) { got.emplace_back(data); }));
    }
    EXPECT_EQ(got, want) << "in pieces of " << step;
  }
}

TEST(SseReader, AnEventWithoutEndIsAnError) {
  SseReader reader;
  const std::string piece(1 << 20, 'x');
  bool fine = true;
  for (size_t i = 0; i < 70 && fine; ++i) fine = reader.Push(piece, [](std::string_view) {});
  EXPECT_FALSE(fine);
}

TEST(LoadReport, StatisticsAreThoseOfNumpy) {
  // numpy.percentile([1, 2, 3, 4, 10], [50, 90, 95, 99]) and numpy.std
  const LoadStatistics s = StatisticsOf({10, 3, 1, 4, 2});
  EXPECT_DOUBLE_EQ(s.mean, 4);
  EXPECT_DOUBLE_EQ(s.median, 3);
  EXPECT_NEAR(s.std, 3.1622776601683795, 1e-12);
  EXPECT_NEAR(s.p90, 7.6, 1e-12);
  EXPECT_NEAR(s.p95, 8.8, 1e-12);
  EXPECT_NEAR(s.p99, 9.76, 1e-12);
  EXPECT_DOUBLE_EQ(s.most, 10);
  EXPECT_DOUBLE_EQ(StatisticsOf({}).p99, 0);
}

TEST(LoadReport, CountsTokensErrorsAndTheGoodOnes) {
  const auto record = [](double ttft, double itl, const char* error) {
    return LoadRecord{.start_s = 1,
                      .ttft_s = ttft,
                      .end_s = 1 + ttft + 2 * itl,
                      .itl_s = {itl, itl},
                      .prompt_tokens = 10,
                      .cached_tokens = 4,
                      .output_tokens = 3,
                      .ok = *error == '\0',
                      .error = error};
  };
  const std::vector<LoadRecord> records = {record(0.1, 0.01, ""), record(0.3, 0.01, ""),
                                           record(0.1, 0.05, ""), record(0, 0, "timeout"),
                                           record(0, 0, "timeout")};
  const LoadSummary s = Summarize(records, 2, {.ttft_s = 0.2, .itl_s = 0.02});
  EXPECT_EQ(s.completed, 3);
  EXPECT_EQ(s.failed, 2);
  EXPECT_EQ(s.good, 1);
  EXPECT_NEAR(s.tpot.median, 0.01, 1e-12);
  const Json json = ToJson(s, "m", "today", true);
  EXPECT_DOUBLE_EQ(json["request_throughput"], 1.5);
  EXPECT_DOUBLE_EQ(json["request_goodput"], 0.5);
  EXPECT_DOUBLE_EQ(json["output_throughput"], 4.5);
  EXPECT_DOUBLE_EQ(json["total_token_throughput"], 19.5);
  EXPECT_EQ(json["errors"]["timeout"], 2);
  EXPECT_EQ(json["endpoint_type"], "openai-chat");
  EXPECT_EQ(json["tokenizer_id"], "m");
  EXPECT_TRUE(json.contains("label"));
  for (const char* name : {"ttft", "tpot", "itl", "e2el"}) {
    for (const char* kind : {"mean", "median", "std", "p99", "max"})
      EXPECT_TRUE(json.contains(fmt::format("{}_{}_ms", kind, name))) << kind << name;
  }
  EXPECT_NE(ToSvg({s}, true).find("<polyline"), std::string::npos);
}

TEST(LoadReport, TheBusiestSecondsAreCountedFromTheFirstRequestThatWasAnswered) {
  LoadRecord first{.start_s = 10.5, .ttft_s = 0.2, .end_s = 11.6, .itl_s = {0.2, 0.7}, .ok = true};
  LoadRecord second{.start_s = 11.4, .ttft_s = 0.05, .end_s = 11.45, .ok = true};
  LoadRecord lost{.start_s = 0, .end_s = 20};
  // Tokens at 0.2, 0.4 and 1.1 s, and at 0.95 s.
  const LoadSummary s = Summarize({first, second, lost}, 20, {});
  EXPECT_EQ(s.most_tokens_in_a_second, 3);
  EXPECT_EQ(s.most_open_in_a_second, 2);
  const Json json = ToJson(s, "m", "today", false);
  EXPECT_EQ(json["max_output_tokens_per_s"], 3);
  EXPECT_EQ(json["max_concurrent_requests"], 2);
  EXPECT_EQ(Summarize({lost}, 20, {}).most_open_in_a_second, 0);
}

TEST(Arrivals, HaveTheRateAndTheSpreadOfTheirDistribution) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    const auto times = Arrivals(20'000, 5, burstiness, 3);
    double sum = 0, squares = 0, before = 0;
    for (const double t : times) {
      EXPECT_GE(t, before);
      sum += t - before;
      squares += (t - before) * (t - before);
      before = t;
    }
    const double mean = sum / 20'000, variance = squares / 20'000 - mean * mean;
    EXPECT_NEAR(mean, 0.2, 0.01);
    EXPECT_NEAR(std::sqrt(variance) / mean, 1 / std::sqrt(burstiness), 0.05 / burstiness);
  }
  EXPECT_EQ(Arrivals(100, 5, 1, 3), Arrivals(100, 5, 1, 3));
  EXPECT_NE(Arrivals(100, 5, 1, 3), Arrivals(100, 5, 1, 4));
}

TEST(LoadTarget, AUrlIsTakenApartOrRefused) {
  const auto target = ParseTarget("http://[::1]:81/v9/");
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->host, "::1");
  EXPECT_EQ(target->port, 81);
  EXPECT_EQ(target->prefix, "/v9");
  EXPECT_EQ(ParseTarget("http://a")->port, 80);
  for (const char* wrong : {"https://a", "a:80", "http://", "http://a:b", "http://a:99999"}) {
    const auto refused = ParseTarget(wrong);
    ASSERT_FALSE(refused.ok()) << wrong;
    EXPECT_NE(refused.error().message.find(wrong), std::string::npos);
  }
}

/// A server of canned answers: one connection after the other, each request by the next of them.
class CannedServer {
 public:
  explicit CannedServer(std::function<std::string(const std::string& request)> answer)
      : answer_(std::move(answer)), fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd_, 16), 0);
    socklen_t size = sizeof(address);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~CannedServer() {
    stop_ = true;
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }

 private:
  void Serve() {
    while (!stop_) {
      const int client = accept(fd_, nullptr, nullptr);
      if (client < 0) return;
      std::string request;
      char buffer[4096];
      while (true) {
        const size_t head = request.find("\r\n\r\n");
        const size_t at = request.find("Content-Length: ");
        const size_t length =
            head != std::string::npos && at < head ? std::stoul(request.substr(at + 16)) : 0;
        if (head != std::string::npos && request.size() >= head + 4 + length) break;
        const ssize_t n = recv(client, buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        request.append(buffer, static_cast<size_t>(n));
      }
      const std::string text = answer_(request);
      send(client, text.data(), text.size(), MSG_NOSIGNAL);
      close(client);
    }
  }
  std::function<std::string(const std::string&)> answer_;
  int fd_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string Ok(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body;
}
std::string Models() { return Ok(R"({"data":[{"id":"canned"}]})"); }
std::string Answer(int tokens, int words) {
  std::string out;
  for (int i = 0; i < tokens; ++i)
    out += "data: {\"choices\":[{\"delta\":{\"content\":\"x \"}}]}\n\n";
  // Two tokens for each word, and ten of a template.
  out += fmt::format(
      "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},"
      "\"prompt_tokens_details\":{{\"cached_tokens\":3}}}}}}\n\ndata: [DONE]\n\n",
      2 * words + 10, tokens);
  return Ok(out);
}

/// Words of the last message's content.
int WordsIn(const std::string& request) {
  const Json body = Json::parse(request.substr(request.find("\r\n\r\n") + 4));
  const std::string text = body["messages"].back()["content"];
  return 1 + static_cast<int>(std::count(text.begin(), text.end(), ' '));
}

Result<LoadResult> RunAgainst(const CannedServer& server, LoadgenOptions options) {
  options.url = server.url();
  options.concurrency = 1;
  return RunLoad(
      options, [] { return false; }, [](size_t, size_t) {});
}

TEST(LoadRun, PromptsHaveTheLengthInTokensThatWasAskedFor) {
  std::atomic<int> seen{0};
  const CannedServer server([&](const std::string& request) {
    if (request.rfind("GET", 0) == 0) return Models();
    const int words = WordsIn(request);
    seen = words;
    return Answer(4, words);
  });
  const auto result = RunAgainst(server, {.requests = 3, .prompt_tokens = 210, .output_tokens = 4});
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result->model, "canned");
  ASSERT_EQ(result->records.size(), 3u);
  for (const LoadRecord& r : result->records) {
    EXPECT_TRUE(r.ok) << r.error;
    EXPECT_EQ(r.prompt_tokens, 210);
    EXPECT_EQ(r.output_tokens, 4);
    EXPECT_EQ(r.cached_tokens, 3);
    EXPECT_EQ(r.itl_s.size(), 3u);
  }
  EXPECT_EQ(seen, 100);
}

TEST(LoadRun, ARunEndsWithItsLastAnswer) {
  const CannedServer server([&](const std::string& request) {
    return request.rfind("GET", 0) == 0 ? Models() : Answer(1, WordsIn(request));
  });
  const auto result = RunAgainst(server, {.requests = 3, .prompt_tokens = 50, .output_tokens = 1});
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_EQ(result->records.size(), 3u);
  EXPECT_EQ(result->duration_s, result->records.back().end_s);
}

TEST(LoadRun, EachTurnHasTheHistoryAndTheServersOwnAnswers) {
  std::vector<size_t> messages;
  const CannedServer server([&](const std::string& request) {
    if (request.rfind("GET", 0) == 0) return Models();
    const Json body = Json::parse(request.substr(request.find("\r\n\r\n") + 4));
    messages.push_back(body["messages"].size());
    if (messages.back() > 1) {
      EXPECT_EQ(body["messages"][1]["content"], "x x ");
    }
    return Answer(2, 5);
  });
  const auto result = RunAgainst(server, {.requests = 6, .output_tokens = 2, .turns = 3});
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(messages, (std::vector<size_t>{1, 1, 1, 3, 5, 1, 3, 5}));  // two calibrate
}

/// The last message of each request that counts, cut after `words` words.
std::set<std::string> Beginnings(LoadgenOptions options, int words) {
  std::set<std::string> out;
  int request_number = 0;
  const CannedServer server([&](const std::string& request) {
    if (request.rfind("GET", 0) == 0) return Models();
    if (++request_number > 2) {  // two calibrate
      const Json body = Json::parse(request.substr(request.find("\r\n\r\n") + 4));
      const std::string text = body["messages"].back()["content"];
      size_t end = 0;
      for (int i = 0; i < words; ++i) end = text.find(' ', end) + 1;
      out.insert(text.substr(0, end));
    }
    return Answer(1, WordsIn(request));
  });
  const auto result = RunAgainst(server, std::move(options));
  EXPECT_TRUE(result.ok()) << result.error().message;
  return out;
}

TEST(LoadRun, NoRowAndNoOtherSeedHasPromptsThatAServerHasSeen) {
  const LoadgenOptions alone{.requests = 20, .prompt_tokens = 100, .output_tokens = 1};
  LoadgenOptions shared = alone, traced = alone;
  shared.shared_tokens = 60;
  for (int i = 0; i < 3; ++i)
    traced.trace.push_back({.input_tokens = 600, .output_tokens = 1, .pieces = {7, 8 + i}});
  for (const LoadgenOptions& first : {alone, shared, traced}) {
    LoadgenOptions row = first, seed = first;
    row.row = 1;
    seed.seed = 2;
    const std::set<std::string> before = Beginnings(first, 8);
    const bool own_beginnings = first.shared_tokens == 0 && first.trace.empty();
    EXPECT_EQ(before.size(), own_beginnings ? 20u : 1u);
    EXPECT_EQ(Beginnings(first, 8), before);
    for (const LoadgenOptions& other : {row, seed}) {
      for (const std::string& text : Beginnings(other, 8))
        EXPECT_EQ(before.count(text), 0u) << text;
    }
  }
}

TEST(LoadRun, WhatGoesWrongIsCountedWithItsReason) {
  int request_number = 0;
  const CannedServer server([&](const std::string& request) {
    if (request.rfind("GET", 0) == 0) return Models();
    switch (++request_number) {
      case 4:
        return std::string(
            "HTTP/1.1 429 Too Many\r\nConnection: close\r\n\r\n"
            "{\"error\":{\"message\":\"come\\nlater\"}}");
      case 5:
        return Ok("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n");
      case 6:
        return Ok("data: nonsense\n\ndata: [DONE]\n\n");
      case 7:
        return Ok("data: {\"error\":{\"message\":\"no\"}}\n\ndata: [DONE]\n\n");
      case 8:
        return std::string("garbage\r\n\r\n");
      case 9:
        return "HTTP/1.1 500 Bad\r\nConnection: close\r\n\r\n" + std::string(299, '.') + "\xC3\xA9";
      default:
        return Answer(2, WordsIn(request));
    }
  });
  const auto result = RunAgainst(server, {.requests = 8, .output_tokens = 2});
  ASSERT_TRUE(result.ok()) << result.error().message;
  std::vector<std::string> errors;
  for (const LoadRecord& r : result->records) errors.push_back(r.error);
  ASSERT_EQ(errors.size(), 8u);
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1], "status 429");
  EXPECT_EQ(result->records[1].message, "come later");
  EXPECT_EQ(result->records[4].message, "no");
  EXPECT_NE(ToText(Summarize(result->records, 1, {}), false).find("status 429: come later\n"),
            std::string::npos);
  EXPECT_EQ(errors[2], "the stream was cut off");
  EXPECT_EQ(errors[3], "a chunk is no JSON object");
  EXPECT_EQ(errors[4], "an error within the stream");
  EXPECT_EQ(errors[5].rfind("no HTTP answer", 0), 0u) << errors[5];
  EXPECT_EQ(errors[6], "status 500");
  EXPECT_EQ(result->records[6].message, std::string(299, '.') + "\xEF\xBF\xBD") << "valid UTF-8";
  EXPECT_EQ(errors[7], "");
}

TEST(LoadRun, AServerThatIsNotThereIsAnError) {
  LoadgenOptions options;
  options.url = "http://127.0.0.1:1";
  options.concurrency = 1;
  const auto result = RunLoad(
      options, [] { return false; }, [](size_t, size_t) {});
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("http://127.0.0.1:1"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
