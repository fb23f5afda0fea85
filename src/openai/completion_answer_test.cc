#include "openai/completion_answer.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(Timings, ThePromptsTimeIsWithoutTheWaitBeforeIt) {
  UsageCount usage;
  RequestStats stats{.prompt_tokens = 30,
                     .cached_tokens = 10,
                     .output_tokens = 5,
                     .submitted_ns = 0,
                     .first_token_ns = 3'000'000'000,
                     .last_token_ns = 4'000'000'000};
  stats.times.queue = 2.5;
  stats.times.prefill = 0.5;
  usage.Add(stats, true);
  const nlohmann::ordered_json timings = TimingsJson(usage);
  EXPECT_DOUBLE_EQ(timings["ttft_ms"], 3000);
  EXPECT_DOUBLE_EQ(timings["prompt_ms"], 500);
  EXPECT_DOUBLE_EQ(timings["prompt_per_token_ms"], 25);
  EXPECT_DOUBLE_EQ(timings["prompt_per_second"], 40);
  // Four tokens come in the second after the first one.
  EXPECT_EQ(timings["predicted_n"], 5);
  EXPECT_DOUBLE_EQ(timings["predicted_ms"], 1000);
  EXPECT_DOUBLE_EQ(timings["predicted_per_token_ms"], 250);
  EXPECT_DOUBLE_EQ(timings["predicted_per_second"], 4);
}

TEST(Timings, NothingIsDividedByNothing) {
  UsageCount usage;
  usage.Add({.prompt_tokens = 5, .cached_tokens = 5, .output_tokens = 1}, true);
  const nlohmann::ordered_json timings = TimingsJson(usage);
  for (const char* name : {"prompt_per_token_ms", "prompt_per_second", "predicted_per_token_ms",
                           "predicted_per_second"})
    EXPECT_EQ(timings[name], 0) << name;
}

TEST(Timings, PromptsOfOneBodyAreAddedUp) {
  UsageCount usage;
  RequestStats stats{.prompt_tokens = 10, .output_tokens = 1};
  stats.times.prefill = 0.25;
  for (int i = 0; i < 4; ++i) usage.Add(stats, true);
  EXPECT_DOUBLE_EQ(TimingsJson(usage)["prompt_ms"], 1000);
  EXPECT_DOUBLE_EQ(TimingsJson(usage)["prompt_per_second"], 40);
}

}  // namespace
}  // namespace kvasir
