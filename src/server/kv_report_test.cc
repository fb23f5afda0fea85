#include "server/kv_report.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "sched/fake_executor.h"
#include "server/byte_tokenizer.h"

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

class KvReport : public ::testing::Test {
 protected:
  static constexpr int32_t kBlockTokens = 16;
  void Make(int32_t blocks, int32_t sequences) {
    auto layout = KvLayout::Create({.window = {0, 0},
                                    .kv_heads = 1,
                                    .head_dim = 16,
                                    .block_tokens = kBlockTokens,
                                    .dtype = KvDType::kF32});
    ASSERT_TRUE(layout.ok());
    tokenizer_ = ByteTokenizer();
    executor_ = std::make_unique<FakeExecutor>(*layout, blocks, 256);
    engine_ = std::make_unique<Engine>(
        EngineOptions{.context = 512, .max_step_tokens = 64, .max_sequences = sequences}, *layout,
        blocks, executor_.get(), tokenizer_.get(), &SteadyClock());
  }
  RequestId Submit(std::vector<int32_t> prompt, int32_t tokens, uint64_t tenant = 0) {
    Request request{.prompt = std::move(prompt), .max_tokens = tokens};
    request.sampling.ignore_eos = true;
    request.tenant = tenant;
    request.salt = tenant;
    const auto id = engine_->Submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.error().message;
    return id.ok() ? *id : 0;
  }
  void Step() {
    std::vector<Event> events;
    engine_->Step(&events);
  }
  Json Report(uint64_t after = 0) const {
    return ToJson(ReadKv(*engine_), {.model = "m",
                                     .tenant_names = {{0, "nobody"}, {1, "one"}, {2, "two"}},
                                     .after_step = after,
                                     .ledger = {}});
  }
  static std::map<char, int64_t> Count(const Json& report) {
    std::map<char, int64_t> out;
    for (const char c : report["map"]["cells"].get<std::string>()) ++out[c];
    return out;
  }
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(KvReport, TheMapAgreesWithThePoolAfterEveryStepOfARandomRun) {
  Make(60, 8);
  std::mt19937 random(3);
  std::vector<RequestId> open;
  for (int step = 0; step < 300; ++step) {
    if (random() % 3 == 0) {
      std::vector<int32_t> prompt(20 + random() % 100, static_cast<int32_t>(random() % 3));
      open.push_back(
          Submit(std::move(prompt), 1 + static_cast<int32_t>(random() % 40), 1 + random() % 2));
    }
    if (!open.empty() && random() % 10 == 0) engine_->Cancel(open[random() % open.size()]);
    Step();
    const Json report = Report();
    auto cells = Count(report);
    const Json& pool = report["pool"];
    ASSERT_EQ(cells['.'], pool["free"]);
    ASSERT_EQ(cells['.'] + cells['c'] + cells['r'] + cells['s'] + cells['w'], pool["blocks"]);
    ASSERT_EQ(cells['r'] + cells['s'] + cells['w'], pool["referenced"]) << "step " << step;
    int64_t covered = 0, held = 0;
    for (const Json& run : report["map"]["owners"]) covered += run[1].get<int64_t>();
    ASSERT_EQ(covered, pool["blocks"]);
    for (const Json& tenant : report["tenants"]) held += tenant["blocks"].get<int64_t>();
    ASSERT_GE(held, pool["referenced"]) << "blocks of several sequences count for each";
  }
}

TEST_F(KvReport, APrefixThatTwoUseShowsAsShared) {
  Make(60, 8);
  const std::vector<int32_t> prompt(40, 5);
  Submit(prompt, 30);
  Step();
  EXPECT_EQ(Count(Report())['s'], 0);
  Submit(prompt, 30);
  Step();
  const Json report = Report();
  EXPECT_EQ(Count(report)['s'], 2);
  ASSERT_EQ(report["sequences"].size(), 2u);
  EXPECT_EQ(report["sequences"][1]["cached_tokens"], 32);
  EXPECT_EQ(report["sequences"][0]["state"], "running");
}

TEST_F(KvReport, ASequenceThatIsCancelledIsGone) {
  Make(60, 8);
  const RequestId id = Submit(std::vector<int32_t>(40, 5), 100, 1);
  Step();
  EXPECT_EQ(Report()["sequences_total"], 1);
  engine_->Cancel(id);
  Step();
  const Json report = Report();
  EXPECT_EQ(report["sequences_total"], 0);
  EXPECT_EQ(report["pool"]["referenced"], 0);
  EXPECT_EQ(report["pool"]["usage"], 0.0);
}

TEST_F(KvReport, StaysSmallWithThousandsOfSequences) {
  Make(20'000, 16);
  for (int i = 0; i < 2000; ++i) {
    std::vector<int32_t> prompt(64, i % 7);
    prompt[3] = i % 250;
    Submit(std::move(prompt), 4, 1 + i % 2);
  }
  for (int i = 0; i < 700; ++i) Step();
  const Json report = Report();
  EXPECT_LE(report["sequences"].size(), 200u);
  EXPECT_LE(report["map"]["cells"].get<std::string>().size(), 16384u);
  EXPECT_EQ(report["map"]["blocks_per_cell"], 2);
  EXPECT_LE(report["steps"].size(), StepLog::kKept);
  EXPECT_LT(report.dump().size(), size_t{1} << 20);
}

TEST_F(KvReport, TheTreeHasAncestorsBeforeChildrenAndChainsAsOne) {
  Make(200, 8);
  std::vector<int32_t> common(64, 1);
  for (int32_t i = 0; i < 3; ++i) {
    std::vector<int32_t> prompt = common;
    prompt.insert(prompt.end(), 64, 2 + i);
    Submit(prompt, 1);
    for (int k = 0; k < 10; ++k) Step();
  }
  const Json report = Report();
  std::set<uint64_t> seen;
  int64_t tokens = 0;
  for (const Json& p : report["prefixes"]) {
    if (!p["parent"].is_null()) {
      EXPECT_EQ(seen.count(p["parent"].get<uint64_t>()), 1u);
    }
    seen.insert(p["id"].get<uint64_t>());
    tokens += p["tokens"].get<int64_t>();
  }
  // One way in common, and three that go on: each whole block is there once.
  EXPECT_EQ(report["prefixes"].size(), 4u) << report["prefixes"].dump(1);
  EXPECT_GE(tokens, 4 * 64);
}

TEST_F(KvReport, StepsAreToldOnceAndTheOldestAreForgotten) {
  Make(60, 8);
  Submit(std::vector<int32_t>(100, 1), 400);
  Step();
  Json report = Report();
  ASSERT_EQ(report["steps"].size(), 1u);
  EXPECT_EQ(report["steps"][0]["prefill"], 64);
  EXPECT_EQ(report["steps"][0]["decode"], 0);
  const uint64_t first = report["steps"][0]["id"];
  for (int i = 0; i < 4; ++i) Step();
  report = Report(first);
  EXPECT_EQ(report["steps"].size(), 4u);
  EXPECT_EQ(report["steps"].back()["decode"], 1);
  for (size_t i = 0; i < StepLog::kKept; ++i) Step();
  report = Report();
  EXPECT_EQ(report["steps"].size(), StepLog::kKept);
  EXPECT_GT(report["steps"][0]["id"].get<uint64_t>(), first);
}

}  // namespace
}  // namespace kvasir
