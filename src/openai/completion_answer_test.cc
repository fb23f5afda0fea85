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
  usage.Add(stats, 0, 0);
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
  usage.Add({.prompt_tokens = 5, .cached_tokens = 5, .output_tokens = 1}, 0, 0);
  const nlohmann::ordered_json timings = TimingsJson(usage);
  for (const char* name : {"prompt_per_token_ms", "prompt_per_second", "predicted_per_token_ms",
                           "predicted_per_second"})
    EXPECT_EQ(timings[name], 0) << name;
}

TEST(Timings, PromptsOfOneBodyAreAddedUp) {
  UsageCount usage;
  RequestStats stats{.prompt_tokens = 10, .output_tokens = 1};
  stats.times.prefill = 0.25;
  for (size_t i = 0; i < 4; ++i) usage.Add(stats, i, 0);
  EXPECT_DOUBLE_EQ(TimingsJson(usage)["prompt_ms"], 1000);
  EXPECT_DOUBLE_EQ(TimingsJson(usage)["prompt_per_second"], 40);
}

constexpr int64_t kSecond = 1'000'000'000;

/// Of a choice whose tokens came between these seconds after it was asked for.
RequestStats Between(int64_t first, int64_t last, int32_t tokens) {
  return {.prompt_tokens = 10,
          .output_tokens = tokens,
          .first_token_ns = first * kSecond,
          .last_token_ns = last * kSecond};
}

TEST(Timings, DecodingIsFromTheFirstTokenOfAllChoicesToTheLast) {
  // Choices end in any order: the first one last, and that of a later prompt before it.
  UsageCount usage;
  usage.Add(Between(3, 5, 21), 1, 0);
  usage.Add(Between(2, 10, 41), 0, 1);
  usage.Add(Between(2, 4, 11), 0, 0);
  usage.Add({.prompt_tokens = 10}, 2, 0);  // had none
  const nlohmann::ordered_json timings = TimingsJson(usage);
  EXPECT_DOUBLE_EQ(timings["ttft_ms"], 2000) << "the first prompt's";
  EXPECT_EQ(timings["predicted_n"], 73);
  EXPECT_DOUBLE_EQ(timings["predicted_ms"], 8000);
  EXPECT_DOUBLE_EQ(timings["predicted_per_second"], 70.0 / 8);
}

TEST(Timings, TokensThatComeAllAtOnceHaveNoTimeOfDecoding) {
  // As beam search gives them.
  UsageCount usage;
  for (int32_t i = 0; i < 3; ++i) usage.Add(Between(4, 4, 16), 0, i);
  const nlohmann::ordered_json timings = TimingsJson(usage);
  EXPECT_DOUBLE_EQ(timings["ttft_ms"], 4000);
  EXPECT_EQ(timings["predicted_ms"], 0);
  EXPECT_EQ(timings["predicted_per_second"], 0);
}

}  // namespace
}  // namespace kvasir
