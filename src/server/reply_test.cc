#include "server/reply.h"

#include <gtest/gtest.h>

#include "server/request_log.h"

namespace kvasir {
namespace {

std::string Find(const HttpHeaders& headers, const std::string& name) {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(HeadersOfError, EveryRefusalThatMayBeRepeatedTellsWhen) {
  const auto after = [](ApiError error, std::optional<double> seconds) {
    return Find(HeadersOfError(error, {}, seconds), "Retry-After");
  };
  for (const ApiError& error :
       {LoadingError(), DrainingError(), NoMemoryError(), ApiError{.status = 429}}) {
    EXPECT_EQ(after(error, {}), "1") << error.code;
    EXPECT_EQ(after(error, 12.3), "13") << error.code;
    EXPECT_EQ(after(error, 1e9), "3600") << error.code;
  }
  for (const int status : {400, 401, 403, 404, 413, 500})
    EXPECT_EQ(after({.status = status}, {}), "") << status;
}

TEST(ClientId, IsTakenWhereAHeaderAndALogCanHoldIt) {
  const auto id = [](const std::string& value) {
    return ClientIdOf({.headers = {{"x-request-id", value}}});
  };
  EXPECT_EQ(id("trace 7/a"), "trace 7/a");
  EXPECT_EQ(id(std::string(128, 'x')), std::string(128, 'x'));
  EXPECT_EQ(id(std::string(129, 'x')), "");
  for (const char* bad : {"a\nb", "a\tb",
                          "gr\xc3\xb6\xc3\x9f"
                          "e",
                          "\x7f"})
    EXPECT_EQ(id(bad), "");
  EXPECT_EQ(ClientIdOf({}), "");
}

TEST(LineLimit, LetsSoManyThroughInASecondAndCountsTheRest) {
  constexpr int64_t kSecond = 1'000'000'000;
  LineLimit limit;
  for (int64_t now = 5 * kSecond; now < 8 * kSecond; now += kSecond) {
    int written = 0;
    for (int i = 0; i < 25; ++i) written += limit.Take(now + i);
    EXPECT_EQ(written, LineLimit::kPerSecond);
  }
  EXPECT_EQ(limit.TakeLeftOut(), 3u * (25 - LineLimit::kPerSecond));
  EXPECT_EQ(limit.TakeLeftOut(), 0u);
}

}  // namespace
}  // namespace kvasir
