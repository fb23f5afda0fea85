#include "server/same_origin.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

/// The code of the refusal; empty: it is answered.
std::string CodeOf(const HttpOptions& options, HttpHeaders headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  const auto error = FromElsewhere(options, request);
  return error ? error->code : "";
}

TEST(SameOrigin, ProgramsAndTheServersOwnPageAreAnswered) {
  const HttpOptions options;
  for (const char* host : {"localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000",
                           "LocalHost", "localhost.", "localhost.:8000"})
    EXPECT_EQ(CodeOf(options, {{"Host", host}}), "") << host;
  EXPECT_EQ(CodeOf(options, {}), "");  // HTTP/1.0
  EXPECT_EQ(CodeOf(options, {{"Host", "localhost:8000"}, {"Origin", "http://localhost:8000"}}), "");
}

TEST(SameOrigin, APageOfAnotherOriginIsAnsweredOnlyWhereItIsAllowed) {
  HttpOptions options;
  for (const char* origin : {"http://evil.example", "null", "http://localhost:9000", "evil"}) {
    EXPECT_EQ(CodeOf(options, {{"Host", "localhost:8000"}, {"Origin", origin}}),
              "origin_not_allowed")
        << origin;
  }
  options.cors_origins = {"https://app.example"};
  EXPECT_EQ(CodeOf(options, {{"Host", "localhost:8000"}, {"Origin", "https://app.example"}}), "");
  EXPECT_NE(CodeOf(options, {{"Host", "localhost:8000"}, {"Origin", "http://app.example"}}), "");
  options.cors_origins = {"*"};
  EXPECT_EQ(CodeOf(options, {{"Host", "localhost:8000"}, {"Origin", "null"}}), "");
}

TEST(SameOrigin, ANameThatWasMadeToPointHereIsNotAnswered) {
  HttpOptions options;
  for (const char* host : {"evil.example", "evil.example:8000", "localhost.evil.example",
                           "127.0.0.1.evil.example", "evil.example.", "localhost..", "."}) {
    EXPECT_EQ(CodeOf(options, {{"Host", host}, {"Origin", std::string("http://") + host}}),
              "host_not_allowed")
        << host;
  }
  // A proxy that hands its own name on.
  options.cors_origins = {"https://llm.example"};
  EXPECT_EQ(CodeOf(options, {{"Host", "llm.example"}}), "");
  options.cors_origins = {};
  // Others are let in anyway, by whatever name the machine has.
  options.host = "0.0.0.0";
  EXPECT_EQ(CodeOf(options, {{"Host", "workstation:8000"}}), "");
  options.host = "127.0.0.1";
  options.unix_path = "/run/kvasir.socket";
  EXPECT_EQ(CodeOf(options, {{"Host", "anything"}}), "");
}

}  // namespace
}  // namespace kvasir
