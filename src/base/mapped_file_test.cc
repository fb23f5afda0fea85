#include "base/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>

namespace kvasir {
namespace {

/// A file of a page and a half, removed at the end.
struct TemporaryFile {
  TemporaryFile() {
    const int fd = mkstemp(path.data());
    EXPECT_EQ(ftruncate(fd, 6000), 0);
    EXPECT_EQ(pwrite(fd, "end", 3, 5997), 3);
    close(fd);
  }
  ~TemporaryFile() { std::remove(path.c_str()); }
  std::string path = testing::TempDir() + "kvasir-mapped-XXXXXX";
};

TEST(MappedFile, HasAllBytesAlsoAfterItWasMoved) {
  const TemporaryFile file;
  auto opened = MappedFile::Open(file.path);
  ASSERT_TRUE(opened.ok());
  MappedFile moved = std::move(*opened);
  ASSERT_EQ(moved.bytes().size(), 6000u);
  EXPECT_EQ(moved.bytes()[5999], 'd');
  EXPECT_EQ(moved.path(), file.path);
  moved.DropPages(0, 6000);
  EXPECT_EQ(moved.bytes()[5999], 'd');
}

TEST(MappedFile, WhatIsNoFileIsRefused) {
  EXPECT_EQ(MappedFile::Open("/nonexistent").error().code, ErrorCode::kNotFound);
  EXPECT_NE(MappedFile::Open("/").error().message.find("not a regular file"), std::string::npos);
}

TEST(MappedFileDeathTest, AFileThatIsCutEndsTheProcessWithItsName) {
  const TemporaryFile file;
  const auto read = [&] {
    MappedFile::EndProcessWhereLost();
    auto opened = MappedFile::Open(file.path);
    const MappedFile kept = std::move(*opened);
    if (truncate(file.path.c_str(), 0) != 0) _exit(3);
    _exit(kept.bytes()[5999] == 'd' ? 4 : 5);
  };
  EXPECT_EXIT(read(), testing::ExitedWithCode(1), file.path + ": the file was cut");
}

}  // namespace
}  // namespace kvasir
