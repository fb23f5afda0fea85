// Damaged model files: each is refused with one line, or is a model that works.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <sstream>

#include "test_model.h"

namespace {

size_t g_largest_allocation = 0;

}  // namespace

// Counts what the reader asks for. (Buffers of activations and KV are mapped, not counted, and
// small in these tests.)
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif
void* operator new(size_t size) {
  g_largest_allocation = std::max(g_largest_allocation, size);
  void* p = std::malloc(size);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  g_largest_allocation = std::max(g_largest_allocation, size);
  return std::malloc(size);
}
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace kvasir {
namespace {

constexpr size_t kAllowedBeyondFile = size_t{64} << 20;

std::string ReadFile(const std::string& name) {
  std::ifstream in(KVASIR_SOURCE_DIR "/tests/data/tiny/" + name, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << name;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

/// A number in the file that a damaged copy may hold wrongly.
struct Field {
  size_t offset, bytes;
  std::string name;
};

/// Finds all numbers of a GGUF header, knowing the format and nothing of Kvasir's reader.
class FieldFinder {
 public:
  explicit FieldFinder(const std::string& file) : file_(file) {
    Take(4, "magic");
    Take(4, "version");
    const uint64_t tensors = Take(8, "tensor count"), values = Take(8, "metadata count");
    for (uint64_t i = 0; i < values; ++i) {
      const std::string key = String("key length");
      Value(Take(4, key + " type"), key);
    }
    for (uint64_t i = 0; i < tensors; ++i) {
      const std::string name = String("tensor name length");
      const uint64_t dims = Take(4, name + " dims");
      for (uint64_t d = 0; d < dims; ++d) Take(8, name + " ne");
      Take(4, name + " type");
      Take(8, name + " offset");
    }
    header_bytes_ = at_;
  }
  const std::vector<Field>& fields() const { return fields_; }
  size_t header_bytes() const { return header_bytes_; }

 private:
  uint64_t Take(size_t bytes, const std::string& name) {
    fields_.push_back({at_, bytes, name});
    uint64_t value = 0;
    std::memcpy(&value, file_.data() + at_, bytes);
    at_ += bytes;
    return value;
  }
  std::string String(const std::string& name) {
    const uint64_t length = Take(8, name);
    at_ += length;
    return file_.substr(at_ - length, length);
  }
  void Value(uint64_t type, const std::string& key) {
    constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
      String(key + " length");
    } else if (type == 9) {
      const uint64_t item = Take(4, key + " item type"), count = Take(8, key + " count");
      for (uint64_t i = 0; i < count; ++i) {
        // Of long arrays the first and last few: the others are read by the same lines.
        const size_t before = fields_.size();
        Value(item, key + " item");
        if (i >= 4 && i + 4 < count) fields_.resize(before);
      }
    } else {
      Take(kBytes[type], key);
    }
  }

  const std::string& file_;
  size_t at_ = 0, header_bytes_ = 0;
  std::vector<Field> fields_;
};

class BadFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("kvasir-bad-files-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "model.gguf";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// Loads `bytes` as a model and computes with it. True if that worked; else the error must be one
  /// line that names the file.
  bool Works(const std::string& bytes) {
    {
      std::ofstream out(path_, std::ios::binary);
      out << bytes;
    }
    g_largest_allocation = 0;
    LoadOptions load{
        .path = path_,
        .cpu = {.threads = 1, .pin = false},
        .memory = {.context = 16, .block_tokens = 16, .max_step_tokens = 16, .max_logit_rows = 16}};
    Result<std::unique_ptr<LoadedModel>> model = LoadedModel::Load(load);
    if (!model.ok()) {
      const std::string& message = model.error().message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_NE(message.find(path_), std::string::npos) << message;
      EXPECT_LT(message.size(), 1000u) << message;
    } else {
      LogitsInChunks(model->get(), {1, 2, 3}, 2, 1);
      (*model)->tokenizer().Encode("the hat <|im_end|>", {.parse_special = true});
    }
    EXPECT_LE(g_largest_allocation, bytes.size() + kAllowedBeyondFile);
    return model.ok();
  }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(BadFiles, EachFieldAtItsExtremesIsRefusedOrWorks) {
  for (const char* name : {"llama.gguf", "gemma3.gguf"}) {
    const std::string good = ReadFile(name);
    ASSERT_TRUE(Works(good));
    const FieldFinder finder(good);
    EXPECT_GT(finder.fields().size(), 200u);
    int refused = 0;
    for (const Field& field : finder.fields()) {
      uint64_t value = 0;
      std::memcpy(&value, good.data() + field.offset, field.bytes);
      const uint64_t all = ~uint64_t{0} >> (64 - 8 * field.bytes), sign = all / 2 + 1;
      uint64_t not_a_number = field.bytes == 4 ? 0x7FC00000u : 0x7FF8000000000000u;
      for (const uint64_t bad : {uint64_t{0}, uint64_t{1}, value + 1, value - 1, value * 2, all,
                                 all - 1, sign, sign - 1, all / 32, not_a_number & all}) {
        if ((bad & all) == value) continue;
        std::string copy = good;
        std::memcpy(copy.data() + field.offset, &bad, field.bytes);
        SCOPED_TRACE(field.name + " = " + std::to_string(bad & all));
        if (!Works(copy)) ++refused;
        if (HasFailure()) return;
      }
    }
    EXPECT_GT(refused, 1000);
  }
}

TEST_F(BadFiles, AFileThatIsCutIsRefused) {
  const std::string good = ReadFile("llama.gguf");
  const size_t header = FieldFinder(good).header_bytes();
  for (size_t length = 0; length < header; ++length) {
    ASSERT_FALSE(Works(good.substr(0, length))) << "cut to " << length;
    if (HasFailure()) return;
  }
  constexpr size_t kPlaces = 200;
  for (size_t i = 0; i < kPlaces; ++i) {
    const size_t length = header + (good.size() - header) * i / kPlaces;
    ASSERT_FALSE(Works(good.substr(0, length))) << "cut to " << length;
  }
}

TEST_F(BadFiles, AnAlignmentIsAPowerOfTwoWithinItsBound) {
  const std::string good = ReadFile("llama.gguf");
  const size_t header = FieldFinder(good).header_bytes();
  const auto with_alignment = [&](uint32_t value) {
    // One more entry, before all others; the tensors' data go on from the next multiple of 32.
    const std::string key = "general.alignment";
    const uint64_t length = key.size();
    const uint32_t type = 4;  // uint32
    std::string entry(16, '\0');
    std::memcpy(entry.data(), &length, 8);
    entry.insert(8, key);
    std::memcpy(entry.data() + 8 + key.size(), &type, 4);
    std::memcpy(entry.data() + 12 + key.size(), &value, 4);
    std::string file = good.substr(0, 24) + entry + good.substr(24, header - 24);
    uint64_t count = 0;
    std::memcpy(&count, file.data() + 16, 8);
    ++count;
    std::memcpy(file.data() + 16, &count, 8);
    file.resize((file.size() + 31) / 32 * 32, '\0');
    return file + good.substr((header + 31) / 32 * 32);
  };
  EXPECT_TRUE(Works(with_alignment(32)));
  for (const uint32_t value : {0u, 3u, 48u, 1u << 21, 1u << 31, ~0u})
    EXPECT_FALSE(Works(with_alignment(value))) << value;
}

TEST_F(BadFiles, ATokenThatTheVocabularyDoesNotHaveIsRefused) {
  const std::string good = ReadFile("llama.gguf");
  const FieldFinder finder(good);
  int found = 0;
  for (const Field& f : finder.fields()) {
    if (f.name != "tokenizer.ggml.bos_token_id" && f.name != "tokenizer.ggml.eos_token_id")
      continue;
    std::string bad = good;
    const uint32_t id = 1 << 20;
    std::memcpy(bad.data() + f.offset, &id, f.bytes);
    EXPECT_FALSE(Works(bad)) << f.name;
    ++found;
  }
  EXPECT_EQ(found, 2);
}

TEST_F(BadFiles, TokensThatWouldTakeMemoryAndTimeInMatchingAreRefused) {
  ASSERT_TRUE(Works(ReadFile("llama.gguf")));
  const auto opened = GgufFile::Open(path_);
  ASSERT_TRUE(opened.ok());
  const auto good = ReadVocab(*opened);
  ASSERT_TRUE(good.ok());
  const auto create = [&](size_t count, size_t bytes, TokenType type) {
    VocabData data = *good;
    for (size_t i = 0; i < count; ++i) {
      std::string text = std::to_string(i) + ":";
      data.tokens.push_back(text.append(bytes - text.size(), 'x'));
      data.types.push_back(static_cast<int32_t>(type));
      if (!data.scores.empty()) data.scores.push_back(0);
    }
    const auto tokenizer = Tokenizer::Create(std::move(data));
    return tokenizer.ok() ? "" : tokenizer.error().message;
  };
  EXPECT_EQ(create(1, 4096, TokenType::kNormal), "");
  EXPECT_NE(create(1, 4097, TokenType::kNormal).find("at most 4096"), std::string::npos);
  for (const TokenType type : {TokenType::kControl, TokenType::kUserDefined}) {
    EXPECT_EQ(create(1, 512, type), "");
    EXPECT_NE(create(1, 513, type).find("at most 512"), std::string::npos);
    EXPECT_NE(create(5000, 512, type).find("more than 2097152 bytes"), std::string::npos);
    // Numbered ones have most of their bytes alike.
    EXPECT_EQ(create(200'000, 10, type), "");
  }
}

TEST_F(BadFiles, AStringThatLeavesTheFilesLastPageIsRefused) {
  // Behind a file that fills its pages there is no memory that a wrong length could be read from.
  const std::string good = ReadFile("llama.gguf");
  for (const uint64_t length : {uint64_t{4096}, uint64_t{60'000}}) {
    std::string file = good.substr(0, 24);
    file.append(reinterpret_cast<const char*>(&length), 8);
    file.resize(4096, 'k');
    EXPECT_FALSE(Works(file)) << length;
    // It is the length that is refused, not what happens to lie in memory behind the file.
    const auto opened = GgufFile::Open(path_);
    ASSERT_FALSE(opened.ok());
    EXPECT_NE(opened.error().message.find("length " + std::to_string(length)), std::string::npos)
        << opened.error().message;
  }
}

TEST_F(BadFiles, AnArrayOfAnotherTypeIsRefused) {
  // Each has the other's name, which is as long: the words are numbers, the scores words.
  std::string bytes = ReadFile("gemma3.gguf");
  const std::string words = "tokenizer.ggml.tokens", scores = "tokenizer.ggml.scores";
  const size_t a = bytes.find(words), b = bytes.find(scores);
  ASSERT_TRUE(a != std::string::npos && b != std::string::npos);
  bytes.replace(a, scores.size(), scores);
  bytes.replace(b, words.size(), words);
  EXPECT_FALSE(Works(bytes));
}

TEST_F(BadFiles, ATensorThatNobodyReadsAndThatMattersIsRefusedInAnyLayer) {
  const std::string good = ReadFile("qwen2.gguf");
  const size_t header = FieldFinder(good).header_bytes();
  ASSERT_TRUE(Works(good));
  // A bias that may be left out gets the name of one that may not be there.
  const std::string from = "blk.1.attn_q.bias";
  for (const std::string to : {"blk.1.ffn_up.bias", "blk.1.attn_output.bias", "blk.1.ffn_down.bias",
                               "blk.1.attn_norm.bias", "blk.1.attn_sinks.weight", "output.bias"}) {
    std::string file = good.substr(0, header);
    const size_t at = file.find(from);
    ASSERT_NE(at, std::string::npos);
    const uint64_t length = to.size();
    std::memcpy(file.data() + at - 8, &length, 8);
    file.replace(at, from.size(), to);
    file.resize((file.size() + 31) / 32 * 32, '\0');
    EXPECT_FALSE(Works(file + good.substr((header + 31) / 32 * 32))) << to;
    const auto opened = OpenModel(path_);
    ASSERT_FALSE(opened.ok());
    EXPECT_NE(opened.error().message.find("tensor " + to + ":"), std::string::npos)
        << opened.error().message;
  }
}

TEST_F(BadFiles, Version2WorksAndOthersAreNamed) {
  std::string copy = ReadFile("llama.gguf");
  copy[4] = 2;
  EXPECT_TRUE(Works(copy));
  copy[4] = 7;
  EXPECT_FALSE(Works(copy));
}

TEST_F(BadFiles, RandomBytesInTheHeaderAreRefusedOrWork) {
  const std::string good = ReadFile("qwen3.gguf");
  const size_t header = FieldFinder(good).header_bytes();
  uint32_t state = 12345;
  const auto next = [&] { return state = state * 1664525u + 1013904223u; };
  for (int i = 0; i < 1500; ++i) {
    std::string copy = good;
    for (uint32_t k = 0; k <= next() >> 30; ++k)
      copy[(next() >> 3) % header] = static_cast<char>(next() >> 24);
    Works(copy);
    if (HasFailure()) return;
  }
}

TEST_F(BadFiles, WeightsThatAreNotNumbersFailTheRequestOnly) {
  std::string copy = ReadFile("llama.gguf");
  // The last tensor's data: not a number anywhere.
  for (size_t i = copy.size() - 400; i + 4 <= copy.size(); i += 4)
    std::memcpy(copy.data() + i, "\xFF\xFF\xFF\x7F", 4);
  EXPECT_TRUE(Works(copy));
}

TEST_F(BadFiles, ASplitModelOpensByAnyPartAndNotWithoutOne) {
  const auto part = [](int i) { return "split-0000" + std::to_string(i) + "-of-00003.gguf"; };
  for (int i = 1; i <= 3; ++i) {
    std::ofstream(folder_ / part(i), std::ios::binary) << ReadFile(part(i));
  }
  const auto whole = LoadTestModel(KVASIR_SOURCE_DIR "/tests/data/tiny/llama.gguf", {});
  for (int i = 1; i <= 3; ++i) {
    const auto model = LoadTestModel(folder_ / part(i), {});
    ASSERT_NE(model, nullptr);
    EXPECT_TRUE(SameBits(LogitsInChunks(model.get(), {5, 6, 7}, 3, 3),
                         LogitsInChunks(whole.get(), {5, 6, 7}, 3, 3)));
  }
  std::filesystem::remove(folder_ / part(2));
  const auto missing = OpenModel(folder_ / part(1));
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("00002-of-00003"), std::string::npos)
      << missing.error().message;
}

}  // namespace
}  // namespace kvasir
