#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "tenant/key_table.h"
#include "tenant/rate_limiter.h"

namespace kvasir {
namespace {

class Keys : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("kvasir-keys-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "keys.toml";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }
  std::string ErrorOf(const std::string& text) const {
    Write(text);
    const auto table = KeyTable::Load(path_, nullptr);
    return table.ok() ? "" : table.error().message;
  }
  KeyTable Load(const KeyTable* before = nullptr) const {
    auto table = KeyTable::Load(path_, before);
    EXPECT_TRUE(table.ok()) << table.error().message;
    return std::move(*table);
  }
  int64_t Files() const { return std::distance(std::filesystem::directory_iterator(folder_), {}); }
  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(Keys, AreRandomAndOnlyTheirHashesAreKept) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = NewKey();
    EXPECT_EQ(key.size(), 46u);
    EXPECT_EQ(key.substr(0, 3), "kv-");
    EXPECT_EQ(
        key.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
        std::string::npos);
    EXPECT_TRUE(seen.insert(key).second);
  }
  const std::string key = NewKey();
  KeyFile file;
  file["alice"].keys = {HashKey(key)};
  ASSERT_TRUE(WriteKeyFile(path_, file).ok());
  std::ifstream in(path_);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(text.find(key.substr(3)), std::string::npos);
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(Files(), 1) << "what was written before it had its name is left";
}

TEST_F(Keys, ManyThatAddAtOnceLoseNothing) {
  std::vector<std::thread> threads;
  constexpr size_t kAtOnce = 12;
  for (size_t i = 0; i < kAtOnce; ++i) {
    threads.emplace_back([this, i] {
      const auto lock = KeyFileLock::Take(path_);
      ASSERT_TRUE(lock.ok()) << lock.error().message;
      KeyFile file;
      if (std::filesystem::exists(path_)) file = *ReadKeyFile(path_);
      file["t" + std::to_string(i)].keys = {HashKey(std::to_string(i))};
      EXPECT_TRUE(WriteKeyFile(path_, file).ok());
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(ReadKeyFile(path_)->size(), kAtOnce);
  EXPECT_EQ(Files(), 1);
  EXPECT_TRUE(KeyFileLock::Take(folder_ / "none" / "keys.toml").ok())
      << "reading tells, or writing";
}

TEST_F(Keys, WhoMightReadTheFileMayReadTheOneInItsPlace) {
  ASSERT_TRUE(WriteKeyFile(path_, {}).ok());
  const bool root = geteuid() == 0;
  const uid_t user = root ? 4711 : geteuid();
  const gid_t group = root ? 4712 : getegid();
  ASSERT_EQ(chown(path_.c_str(), user, group), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  const auto expect_kept = [&] {
    struct stat status;
    ASSERT_EQ(stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0640u);
    EXPECT_EQ(status.st_uid, user);
    EXPECT_EQ(status.st_gid, group);
    EXPECT_EQ(Files(), 1);
  };
  KeyFile file;
  file["alice"] = {};
  ASSERT_TRUE(WriteKeyFile(path_, file).ok());
  expect_kept();
  EXPECT_EQ(ReadKeyFile(path_)->size(), 1u);
  if (!root) GTEST_SKIP() << "only root has files of others";
  // Whoever may not give it to its owner does not replace it, though the folder would let him.
  ASSERT_EQ(chmod(folder_.c_str(), 0777), 0);
  ASSERT_EQ(seteuid(4713), 0);
  const Status refused = WriteKeyFile(path_, {});
  ASSERT_EQ(seteuid(0), 0);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("user 4711 and group 4712"), std::string::npos)
      << refused.error().message;
  expect_kept();
  EXPECT_EQ(ReadKeyFile(path_)->size(), 1u);
}

TEST_F(Keys, ALinkStaysALinkAndWhatItLeadsToIsWritten) {
  const std::filesystem::path there = std::filesystem::path(folder_) / "there";
  std::filesystem::create_directory(there);
  std::filesystem::create_symlink("there/keys.toml", path_);
  for (const bool exists : {false, true}) {
    KeyFile file;
    file[exists ? "old" : "new"] = {};
    ASSERT_TRUE(WriteKeyFile(path_, file).ok());
    EXPECT_TRUE(std::filesystem::is_symlink(path_));
    EXPECT_EQ(ReadKeyFile(there / "keys.toml")->count(exists ? "old" : "new"), 1u);
  }
}

TEST_F(Keys, WhatIsWrittenIsReadAgain) {
  KeyFile file;
  file["a.b-c_1"] = {.keys = {HashKey("one"), HashKey("two")},
                     .group = "team",
                     .is_operator = true,
                     .limits = {.weight = 2.5,
                                .requests_per_minute = 7,
                                .tokens_per_minute = 1'000'000'000'000,
                                .kv_share = 0.25,
                                .max_context = 4096,
                                .priority = -3,
                                .max_running = 2}};
  file["plain"] = {};
  ASSERT_TRUE(WriteKeyFile(path_, file).ok());
  const auto again = ReadKeyFile(path_);
  ASSERT_TRUE(again.ok()) << again.error().message;
  ASSERT_EQ(again->size(), 2u);
  const TenantEntry& e = again->at("a.b-c_1");
  EXPECT_EQ(e.keys, file["a.b-c_1"].keys);
  EXPECT_EQ(e.group, "team");
  EXPECT_TRUE(e.is_operator);
  EXPECT_EQ(e.limits.weight, 2.5);
  EXPECT_EQ(e.limits.requests_per_minute, 7);
  EXPECT_EQ(e.limits.tokens_per_minute, 1'000'000'000'000);
  EXPECT_EQ(e.limits.kv_share, 0.25);
  EXPECT_EQ(e.limits.max_context, 4096);
  EXPECT_EQ(e.limits.priority, -3);
  EXPECT_EQ(e.limits.max_running, 2);
  EXPECT_EQ(again->at("plain").limits.weight, 1);
}

TEST_F(Keys, EveryKeyFindsItsTenantAndNothingElseDoes) {
  KeyFile file;
  for (int i = 0; i < 50; ++i) {
    file["t" + std::to_string(i)].keys = {HashKey("key" + std::to_string(i)),
                                          HashKey("other" + std::to_string(i))};
  }
  ASSERT_TRUE(WriteKeyFile(path_, file).ok());
  const KeyTable table = Load();
  std::set<uint64_t> ids;
  for (int i = 0; i < 50; ++i) {
    for (const char* kind : {"key", "other"}) {
      const Tenant* tenant = table.Find(kind + std::to_string(i));
      ASSERT_NE(tenant, nullptr);
      EXPECT_EQ(tenant->name, "t" + std::to_string(i));
      ids.insert(tenant->id);
    }
  }
  EXPECT_EQ(ids.size(), 50u);
  EXPECT_EQ(ids.count(0), 0u);
  for (const char* wrong : {"", "key", "key50", "key1 ", "Key1"})
    EXPECT_EQ(table.Find(wrong), nullptr) << wrong;
}

TEST_F(Keys, SaltsAreSharedWithinAGroupOnlyAndOutliveAReload) {
  Write(
      "[tenant.a]\n[tenant.b]\n[tenant.c]\ngroup = \"g\"\n[tenant.d]\ngroup = \"g\"\n"
      "[tenant.g]\n");
  const KeyTable first = Load();
  const auto salt = [](const KeyTable& table, const std::string& name) {
    for (const Tenant& t : table.tenants()) {
      if (t.name == name) return t.salt;
    }
    return uint64_t{0};
  };
  std::set<uint64_t> salts;
  for (const char* name : {"a", "b", "c", "g"}) salts.insert(salt(first, name));
  EXPECT_EQ(salts.size(), 4u) << "a tenant named as a group is not in it";
  EXPECT_EQ(salts.count(0), 0u);
  EXPECT_EQ(salt(first, "c"), salt(first, "d"));
  const KeyTable again = Load(&first);
  for (const Tenant& t : first.tenants()) EXPECT_EQ(salt(again, t.name), t.salt);
  const KeyTable other = Load();
  EXPECT_NE(salt(other, "a"), salt(first, "a")) << "salts must not be predictable";
}

TEST_F(Keys, AFileThatIsWrongIsRefusedWithWhatAndWhere) {
  const std::string hash(64, 'a');
  const std::pair<std::string, std::string> cases[] = {
      {"nonsense = [", "line 1"},
      {"[other]", "other is not known"},
      {"tenant = 5", "tenant is not known"},
      {"[tenant]\na = 5", "tenant a is no table"},
      {"[tenant.\"a b\"]", "\"a b\" is no name"},
      {"[tenant.\"\"]", "is no name"},
      {"[tenant.a]\nwhat = 1", "tenant a: what is not known"},
      {"[tenant.a]\nweight = \"1\"", "weight must be a number"},
      {"[tenant.a]\nweight = 0", "weight is 0; it must be from 0.001 to 1000"},
      {"[tenant.a]\nweight = nan", "weight is nan"},
      {"[tenant.a]\nrequests_per_minute = 1.5", "must be an integer"},
      {"[tenant.a]\ntokens_per_minute = -1", "tokens_per_minute is -1"},
      {"[tenant.a]\nkv_share = 1.1", "kv_share is 1.1"},
      {"[tenant.a]\nmax_context = 4294967296", "which is too large"},
      {"[tenant.a]\npriority = 101", "priority is 101"},
      {"[tenant.a]\nmax_running = -1", "max_running is -1"},
      {"[tenant.a]\nrole = \"root\"", "role is \"root\""},
      {"[tenant.a]\ngroup = \"x y\"", "\"x y\" is no name"},
      {"[tenant.a]\nkey_sha256 = \"" + hash + "\"", "must be a list"},
      {"[tenant.a]\nkey_sha256 = [\"abc\"]", "SHA-256"},
      {"[tenant.a]\nkey_sha256 = [5]", "SHA-256"},
      {"[tenant.a]\nkey_sha256 = [\"" + hash + "\"]\n[tenant.b]\nkey_sha256 = [\"" + hash + "\"]",
       "twice, for a and b"},
  };
  for (const auto& [text, what] : cases) {
    const std::string error = ErrorOf(text);
    EXPECT_NE(error.find(what), std::string::npos) << text << "\n  gave: " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
    EXPECT_NE(error.find(path_), std::string::npos) << error;
  }
  EXPECT_EQ(ErrorOf(""), "");
  EXPECT_NE(KeyTable::Load(path_ + "x", nullptr).error().message.find(path_ + "x"),
            std::string::npos);
}

Tenant Limited(int64_t requests, int64_t tokens) {
  return {.id = 7,
          .name = "t",
          .limits = {.requests_per_minute = requests, .tokens_per_minute = tokens}};
}

/// A request and its tokens at once.
std::optional<RateLimiter::Refusal> Take(RateLimiter* limiter, const Tenant& t, int64_t tokens,
                                         double now) {
  if (auto refusal = limiter->TakeRequest(t, now)) return refusal;
  return limiter->TakeTokens(t.id, tokens, now);
}

TEST(RateLimit, ABurstOfAMinutesWorthGoesThroughAndThenAtTheRate) {
  RateLimiter limiter;
  const Tenant t = Limited(6, 0);
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(Take(&limiter, t, 100, 0));
  const auto refusal = Take(&limiter, t, 100, 0);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->limit, "6 requests a minute");
  EXPECT_DOUBLE_EQ(refusal->retry_after_s, 10);
  EXPECT_TRUE(Take(&limiter, t, 100, 9.9));
  EXPECT_FALSE(Take(&limiter, t, 100, 10.1));
  EXPECT_TRUE(Take(&limiter, t, 100, 10.2));
}

TEST(RateLimit, OutputThatWasNotKnownBeforeIsADebt) {
  RateLimiter limiter;
  const Tenant t = Limited(0, 60);
  EXPECT_FALSE(Take(&limiter, t, 10, 0));
  limiter.Spend(t.id, 110, 0);  // 60 below zero
  const auto refusal = limiter.TakeTokens(t.id, 30, 0);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->limit, "60 tokens a minute");
  EXPECT_DOUBLE_EQ(refusal->retry_after_s, 90);
  // What has no token at all is not read.
  const auto unread = limiter.TakeRequest(t, 0);
  ASSERT_TRUE(unread);
  EXPECT_DOUBLE_EQ(unread->retry_after_s, 61);
  EXPECT_FALSE(Take(&limiter, t, 30, 90.001));
}

TEST(RateLimit, ARequestLargerThanAMinuteIsPossibleAtAll) {
  RateLimiter limiter;
  const Tenant t = Limited(0, 100);
  EXPECT_FALSE(Take(&limiter, t, 250, 0));
  const auto refusal = limiter.TakeTokens(t.id, 250, 0);
  ASSERT_TRUE(refusal);
  EXPECT_DOUBLE_EQ(refusal->retry_after_s, 150);
}

TEST(RateLimit, AClockThatGoesBackStandsStillAndLimitsMayChange) {
  RateLimiter limiter;
  Tenant t = Limited(1, 0);
  EXPECT_FALSE(Take(&limiter, t, 0, 100));
  EXPECT_TRUE(Take(&limiter, t, 0, 50));
  EXPECT_TRUE(Take(&limiter, t, 0, 110)) << "time that went back must not be counted twice";
  t.limits.requests_per_minute = 0;
  EXPECT_FALSE(Take(&limiter, t, 1'000'000'000'000'000, 110));
  limiter.Spend(t.id, INT64_MAX, 110);
}

TEST(RateLimit, ALimitThatComesLaterBeginsFullAndWithoutDebts) {
  RateLimiter limiter;
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(Take(&limiter, Limited(0, 1'000'000), 1000, 0));
  limiter.Spend(7, 0, 0);
  EXPECT_FALSE(Take(&limiter, Limited(2, 1'000'000), 0, 60)) << "requests counted without a limit";
  RateLimiter other;
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(Take(&other, Limited(1000, 0), 1000, 0));
  other.Spend(7, 1'000'000, 0);
  EXPECT_FALSE(Take(&other, Limited(1000, 50), 50, 60)) << "tokens counted without a limit";
  EXPECT_TRUE(other.TakeTokens(7, 1, 60));
}

TEST(RateLimit, AChangedLimitNeverFillsABucket) {
  RateLimiter limiter;
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(Take(&limiter, Limited(10, 0), 0, 0));
  // Between two values, off and on again, and what ends meanwhile with the limits of before.
  for (const int64_t limit : {10, 1000, 10, 0, 10, 0, 1000, 10}) {
    const bool refused = limiter.TakeRequest(Limited(limit, 0), 0).has_value();
    EXPECT_EQ(refused, limit > 0) << limit;
    limiter.Spend(7, 5, 0);
  }
  // It fills at the rate of now.
  EXPECT_TRUE(limiter.TakeRequest(Limited(60, 0), 0));
  EXPECT_TRUE(limiter.TakeRequest(Limited(60, 0), 0.9));
  EXPECT_FALSE(limiter.TakeRequest(Limited(60, 0), 1.1));
  // A smaller one holds no more than its own minute.
  EXPECT_TRUE(limiter.TakeRequest(Limited(60, 0), 1.1));
  int taken = 0;
  while (!limiter.TakeRequest(Limited(taken == 0 ? 3 : 100, 0), 1000)) ++taken;
  EXPECT_EQ(taken, 3);
}

TEST(RateLimit, WhatWasNotDoneIsGivenBackAndNoMore) {
  RateLimiter limiter;
  const Tenant t = Limited(3, 100);
  EXPECT_FALSE(Take(&limiter, t, 100, 0));
  limiter.GiveBack(t.id, 1, 100, 0);
  for (int i = 0; i < 2; ++i) limiter.GiveBack(t.id, 1, 100, 0);
  EXPECT_FALSE(Take(&limiter, t, 98, 0));
  EXPECT_FALSE(Take(&limiter, t, 1, 0));
  EXPECT_FALSE(Take(&limiter, t, 1, 0));
  EXPECT_EQ(Take(&limiter, t, 0, 0)->limit, "3 requests a minute");
  EXPECT_TRUE(limiter.TakeTokens(t.id, 1, 0));
  limiter.GiveBack(8, 1, 1, 0);  // one without limits
  EXPECT_FALSE(Take(&limiter, {.id = 8, .name = "u", .limits = {}}, 1, 0));
}

TEST(RateLimit, NeverMoreThanTheRateAndAMinutesWorth) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    RateLimiter limiter;
    const auto below = [&](uint32_t n) { return static_cast<int64_t>(random() % n); };
    const Tenant t = Limited(1 + below(20), 1 + below(1000));
    double now = 0;
    int64_t requests = 0, tokens = 0, largest = 0;
    for (int i = 0; i < 500; ++i) {
      now += static_cast<double>(below(1000)) * 1e-3;
      const int64_t wanted = below(300);
      if (limiter.TakeRequest(t, now)) continue;
      ++requests;
      if (limiter.TakeTokens(t.id, wanted, now)) continue;
      tokens += wanted;
      largest = std::max(largest, wanted);
    }
    const double minutes = now / 60 + 1;
    EXPECT_LE(static_cast<double>(requests),
              static_cast<double>(t.limits.requests_per_minute) * minutes + 1e-6);
    EXPECT_LE(static_cast<double>(tokens - largest),
              static_cast<double>(t.limits.tokens_per_minute) * minutes + 1e-6);
  }
}

}  // namespace
}  // namespace kvasir
