#include "app/output_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace kvasir {
namespace {

const std::string kPath = ::testing::TempDir() + "kvasir-output";

std::string Content() {
  std::ifstream in(kPath, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(OutputFile, KeepsWhatTheFileHadUntilItIsWritten) {
  std::ofstream(kPath) << "what was there before";
  { EXPECT_TRUE(OutputFile::Open(kPath).ok()); }
  EXPECT_EQ(Content(), "what was there before");
  {
    auto file = OutputFile::Open(kPath);
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE(file->Write("new").ok());
  }
  EXPECT_EQ(Content(), "new");
  std::filesystem::remove(kPath);
}

TEST(OutputFile, LeavesNoEmptyFileWhereNothingCame) {
  {
    const auto file = OutputFile::Open(kPath);
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE(std::filesystem::exists(kPath));
  }
  EXPECT_FALSE(std::filesystem::exists(kPath));
}

TEST(OutputFile, WhatCannotBeWrittenIsNamedWithTheReason) {
  const auto missing = OutputFile::Open("/nonexistent/plot.svg");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().message,
            "cannot write /nonexistent/plot.svg: No such file or directory");
  auto full = OutputFile::Open("/dev/full");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->Write("text").error().message, "cannot write /dev/full: No space left on device");
}

TEST(OutputFile, WithoutANameThereIsNone) {
  auto none = OutputFile::Open("");
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->Write("text").ok());
}

}  // namespace
}  // namespace kvasir
