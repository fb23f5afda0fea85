#include "app/terminal.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvasir {
namespace {

int Characters(const std::string& utf8) {
  return static_cast<int>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

TEST(ProgressLine, IsNarrowerThanTheWindowAndAlwaysTellsThePercentWhereThereIsRoom) {
  for (const std::string label : {"loading", "a long label ä"}) {
    for (int columns = 0; columns < 100; ++columns) {
      for (const uint64_t done : {uint64_t{0}, uint64_t{1}, uint64_t{50}, uint64_t{100}}) {
        const std::string line = ProgressLine(label, done, 100, columns);
        EXPECT_LT(Characters(line), std::max(columns, 1));
        EXPECT_EQ(line.find('\033'), std::string::npos);
        EXPECT_EQ(line.ends_with(std::to_string(done) + "%"), columns > 4) << line;
      }
    }
  }
  EXPECT_EQ(ProgressLine("a", 1, 2, 12), "a ██░░  50%");
  EXPECT_EQ(ProgressLine("a", 1, 2, 11), " 50%");
  EXPECT_EQ(Characters(ProgressLine("loading", 1, 2, 200)), 7 + 1 + 30 + 1 + 4);
  // A product of these would wrap.
  EXPECT_TRUE(ProgressLine("a", uint64_t{1} << 62, uint64_t{1} << 63, 40).ends_with(" 50%"));
}

TEST(SafeForTerminal, LeavesNothingThatATerminalObeys) {
  EXPECT_EQ(SafeForTerminal("a\033[2J\r\b\x07\x7f\tb\nä"), "a␛[2J␍␈␇␡\tb\nä");
  EXPECT_EQ(SafeForTerminal("\xc2\x9b"
                            "31m"),
            "�31m");  // CSI as one character
  for (int byte = 0; byte < 256; ++byte) {
    for (const char c : SafeForTerminal(std::string(1, static_cast<char>(byte))))
      EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t') << byte;
  }
}

}  // namespace
}  // namespace kvasir
