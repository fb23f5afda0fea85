#include "sim/synthetic.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "sim/machine_profile.h"

namespace kvasir {
namespace {

std::vector<TraceRequest> Made(const SyntheticOptions& options) {
  auto trace = MakeSynthetic(options);
  EXPECT_TRUE(trace.ok()) << trace.error().message;
  return trace.ok() ? std::move(*trace) : std::vector<TraceRequest>();
}

TEST(Synthetic, ArrivesAtItsRateInOrderAndTheSameForASeed) {
  for (const char* kind : {"shared", "chats", "documents", "flood"}) {
    const SyntheticOptions options{.kind = kind, .requests = 4000, .per_second = 5, .seed = 3};
    const auto trace = Made(options), again = Made(options);
    ASSERT_EQ(trace.size(), 4000u);
    EXPECT_NEAR(trace.back().arrival_s, 800, 60) << kind;
    for (size_t i = 0; i < trace.size(); ++i) {
      EXPECT_GE(trace[i].arrival_s, i == 0 ? 0 : trace[i - 1].arrival_s);
      EXPECT_EQ(trace[i].arrival_s, again[i].arrival_s);
      EXPECT_EQ(trace[i].pieces, again[i].pieces);
      EXPECT_EQ(static_cast<int32_t>(trace[i].pieces.size()),
                (trace[i].input_tokens + kTracePiece - 1) / kTracePiece);
      EXPECT_GT(trace[i].output_tokens, 0);
    }
  }
}

TEST(Synthetic, EachKindSharesWhatItSays) {
  const auto shares = [](const std::vector<TraceRequest>& trace) {
    std::set<int64_t> seen;
    double known = 0, all = 0;
    for (const TraceRequest& r : trace) {
      for (const int64_t piece : r.pieces) {
        known += seen.insert(piece).second ? 0 : 1;
        ++all;
      }
    }
    return known / all;
  };
  EXPECT_EQ(shares(Made({.kind = "documents"})), 0);
  EXPECT_GT(shares(Made({.kind = "shared"})), 0.6);
  EXPECT_GT(shares(Made({.kind = "chats"})), 0.7);
}

TEST(Synthetic, AFloodIsOneTenantsTenfold) {
  std::map<uint64_t, int> count;
  for (const TraceRequest& r : Made({.kind = "flood", .requests = 13'000})) ++count[r.tenant];
  ASSERT_EQ(count.size(), 4u);
  for (uint64_t t = 0; t < 3; ++t) EXPECT_NEAR(count[t], 1000, 130);
  EXPECT_NEAR(count[3], 10'000, 300);
}

TEST(Synthetic, RefusesWhatItDoesNotKnow) {
  EXPECT_NE(MakeSynthetic({.kind = "books"}).error().message.find("books"), std::string::npos);
  EXPECT_FALSE(MakeSynthetic({.requests = 0}).ok());
  EXPECT_FALSE(MakeSynthetic({.per_second = 0}).ok());
}

TEST(MachineProfile, IsReadAsItWasWrittenAndAWrongFieldIsNamed) {
  const MachineProfile machine{
      .step_s = 0.013, .prefill_tokens_per_s = 1234, .key_s = 2e-8, .prompt_key_s = 3e-9};
  const ModelShape shape{.windows = {512, 512, 0}, .kv_heads = 3, .head_dim = 96};
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("kvasir-profile-" + std::to_string(getpid()));
  nlohmann::ordered_json json = ProfileJson(machine, shape, "a test");
  std::ofstream(path) << json;
  MachineProfile m;
  ModelShape s;
  const Status read = ReadProfile(path, &m, &s);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_DOUBLE_EQ(m.step_s, machine.step_s);
  EXPECT_DOUBLE_EQ(m.prefill_tokens_per_s, machine.prefill_tokens_per_s);
  EXPECT_DOUBLE_EQ(m.key_s, machine.key_s);
  EXPECT_DOUBLE_EQ(m.prompt_key_s, machine.prompt_key_s);
  EXPECT_EQ(s.windows, shape.windows);
  EXPECT_EQ(s.kv_heads, 3);
  EXPECT_EQ(s.head_dim, 96);
  for (const auto& item : json.items()) {
    if (!item.value().is_number()) continue;
    nlohmann::ordered_json wrong = json;
    wrong[item.key()] = "much";
    std::ofstream(path) << wrong;
    const Status refused = ReadProfile(path, &m, &s);
    ASSERT_FALSE(refused.ok()) << item.key();
    EXPECT_NE(refused.error().message.find(item.key()), std::string::npos)
        << refused.error().message;
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace kvasir
