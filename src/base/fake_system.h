#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace kvasir {

/// For tests: a folder of text files to be read instead of the machine's /proc and /sys.
class FakeSystem : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ + path).substr(0, (root_ + path).rfind('/')));
    std::ofstream(root_ + path) << text;
  }
  const std::string& root() const { return root_; }

 private:
  const std::string root_ =
      std::filesystem::temp_directory_path() / ("kvasir-system-" + std::to_string(getpid()));
};

}  // namespace kvasir
