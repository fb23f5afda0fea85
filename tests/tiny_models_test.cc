// The forward pass of each architecture against `transformers`, on tiny random models
// (tools/make_tiny_models.py), and its exactness over chunkings, batches, blocks and threads.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "api/chat_prompt.h"
#include "app/flags.h"
#include "test_model.h"

namespace kvasir {
namespace {

std::string TinyPath(const std::string& name) {
  return KVASIR_SOURCE_DIR "/tests/data/tiny/" + name;
}

struct Golden {
  std::vector<int32_t> tokens;
  int32_t vocab = 0;
  std::vector<float> logits;  // [tokens][vocab]
};

Golden ReadGolden(const std::string& name) {
  std::ifstream in(TinyPath(name + ".logits"), std::ios::binary);
  EXPECT_TRUE(in.is_open()) << name;
  Golden g;
  int32_t count = 0;
  in.read(reinterpret_cast<char*>(&count), 4);
  in.read(reinterpret_cast<char*>(&g.vocab), 4);
  g.tokens.resize(count);
  g.logits.resize(static_cast<size_t>(count) * g.vocab);
  in.read(reinterpret_cast<char*>(g.tokens.data()), count * 4);
  in.read(reinterpret_cast<char*>(g.logits.data()),
          static_cast<std::streamsize>(g.logits.size()) * 4);
  EXPECT_TRUE(in.good());
  return g;
}

int ArgMax(const float* x, int32_t n) { return static_cast<int>(std::max_element(x, x + n) - x); }

class TinyModels : public ::testing::TestWithParam<std::string> {};

TEST_P(TinyModels, LogitsAreThoseOfTransformers) {
  const Golden golden = ReadGolden(GetParam());
  const auto model = LoadTestModel(TinyPath(GetParam() + ".gguf"), {.kv_dtype = KvDType::kF32});
  ASSERT_NE(model, nullptr);
  const auto rows = static_cast<int32_t>(golden.tokens.size());
  const std::vector<float> logits = LogitsInChunks(model.get(), golden.tokens, rows, rows);
  ASSERT_EQ(logits.size(), golden.logits.size());
  double worst = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(logits[i]) - golden.logits[i]));
  }
  EXPECT_LE(worst, 1e-3);
  for (int32_t r = 0; r < rows; ++r) {
    const size_t at = static_cast<size_t>(r) * golden.vocab;
    EXPECT_EQ(ArgMax(&logits[at], golden.vocab), ArgMax(&golden.logits[at], golden.vocab)) << r;
  }
  RecordProperty("max_abs_difference", std::to_string(worst));
}

TEST_P(TinyModels, ChunksBlocksAndThreadsDoNotChangeABit) {
  const Golden golden = ReadGolden(GetParam());
  for (const KvDType dtype : {KvDType::kF32, KvDType::kF16, KvDType::kBF16, KvDType::kInt8}) {
    std::vector<float> first;
    for (const int32_t block : {16, 32}) {
      for (const int threads : {1, 2}) {
        const auto model =
            LoadTestModel(TinyPath(GetParam() + ".gguf"),
                          {.kv_dtype = dtype, .block_tokens = block, .threads = threads});
        ASSERT_NE(model, nullptr);
        for (const int32_t chunk : {40, 1, 7, 32}) {
          const std::vector<float> logits = LogitsInChunks(model.get(), golden.tokens, chunk, 40);
          if (first.empty()) first = logits;
          EXPECT_TRUE(SameBits(first, logits)) << NameOf(dtype) << " block " << block << " threads "
                                               << threads << " chunk " << chunk;
        }
      }
    }
  }
}

TEST_P(TinyModels, SequencesOfABatchDoNotTouchOneAnother) {
  const Golden golden = ReadGolden(GetParam());
  const auto model = LoadTestModel(TinyPath(GetParam() + ".gguf"),
                                   {.block_tokens = 16, .step_tokens = 256, .kv_bytes = 4 << 20});
  ASSERT_NE(model, nullptr);
  KvManager kv(model->plan().layout, model->plan().kv_blocks);
  std::vector<std::vector<int32_t>> texts;
  for (const int32_t length : {1, 3, 8, 16, 17, 25, 33, 40}) {
    texts.emplace_back(golden.tokens.begin(), golden.tokens.begin() + length);
    std::rotate(texts.back().begin(), texts.back().begin() + length / 2, texts.back().end());
  }
  std::vector<std::vector<float>> alone;
  for (const auto& text : texts) alone.push_back(LogitsInChunks(model.get(), text, 40, 1));
  // All at once: each is computed but for its last token in one step, then the last of all.
  std::vector<DirectSequence> sequences;
  for (const auto& text : texts) sequences.emplace_back(&model->executor(), &kv, text);
  for (const bool last : {false, true}) {
    std::vector<DirectSequence*> part;
    std::vector<SeqSlice> slices;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int32_t count = last ? 1 : static_cast<int32_t>(texts[i].size()) - 1;
      if (count == 0) continue;
      const auto slice = sequences[i].Plan(count, last ? 1 : 0);
      ASSERT_TRUE(slice.ok()) << slice.error().message;
      part.push_back(&sequences[i]);
      slices.push_back(*slice);
    }
    const auto logits = ComputeTogether(&model->executor(), kv.layout(), part, slices);
    if (!last) continue;
    ASSERT_EQ(logits.size(), texts.size() * static_cast<size_t>(golden.vocab));
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto row = logits.subspan(i * golden.vocab, golden.vocab);
      EXPECT_TRUE(SameBits(alone[i], std::vector<float>(row.begin(), row.end())))
          << "sequence " << i;
    }
  }
}

TEST_P(TinyModels, AChunkThatPassesLayerByLayerBesideOthersHasTheSameBits) {
  const Golden golden = ReadGolden(GetParam());
  const auto model = LoadTestModel(TinyPath(GetParam() + ".gguf"),
                                   {.step_tokens = 64, .kv_bytes = uint64_t{4} << 20});
  ASSERT_NE(model, nullptr);
  const std::vector<float> expected = LogitsInChunks(model.get(), golden.tokens, 64, 1);
  const int32_t all = model->plan().layout.layers();
  for (int32_t layers = 1; layers < all; ++layers) {
    KvManager kv(model->plan().layout, model->plan().kv_blocks);
    DirectSequence layered(&model->executor(), &kv, golden.tokens);
    std::vector<int32_t> reversed(golden.tokens.rbegin(), golden.tokens.rend());
    DirectSequence other(&model->executor(), &kv, reversed);
    std::vector<float> others_logits;
    std::span<const float> logits;
    const auto size = static_cast<int32_t>(golden.tokens.size());
    for (int32_t first = 0, step = 0; first < all; first += layers, ++step) {
      // The other sequence computes a token in each step but every third, which has none.
      std::vector<DirectSequence*> sequences;
      StepPlan plan;
      if (step % 3 != 2) {
        const auto slice = other.Plan(1, 1);
        ASSERT_TRUE(slice.ok());
        plan.slices.push_back(*slice);
        sequences.push_back(&other);
      }
      const bool last = first + layers >= all;
      auto slice = layered.Plan(size, last ? 1 : 0);
      ASSERT_TRUE(slice.ok());
      slice->sequence = 1;
      slice->first_layer = first;
      slice->layers = last ? 0 : layers;
      plan.slices.push_back(*slice);
      sequences.push_back(&layered);
      for (size_t g = 0; g < kv.layout().groups.size(); ++g) {
        for (const DirectSequence* s : sequences) plan.tables.push_back(s->kv().tables[g].view());
      }
      model->executor().Submit(plan);
      logits = model->executor().Collect().logits;
      if (sequences.size() > 1) {
        other.Commit(plan.slices[0]);
        others_logits.assign(logits.begin(), logits.begin() + golden.vocab);
      }
    }
    EXPECT_TRUE(SameBits(expected, {logits.end() - golden.vocab, logits.end()})) << layers;
    reversed.resize(static_cast<size_t>(other.computed()));
    EXPECT_TRUE(SameBits(LogitsInChunks(model.get(), reversed, 64, 1), others_logits)) << layers;
  }
}

TEST_P(TinyModels, EveryInstructionSetOfOneArithmeticGivesTheSameBits) {
  const Golden golden = ReadGolden(GetParam());
  std::vector<float> scalar;
  for (const Isa isa : AvailableIsas()) {
    const auto model = LoadTestModel(TinyPath(GetParam() + ".gguf"), {.isa = isa});
    ASSERT_NE(model, nullptr);
    const std::vector<float> logits = LogitsInChunks(model.get(), golden.tokens, 16, 40);
    if (scalar.empty()) scalar = logits;
    if (isa != Isa::kAmx && isa != Isa::kAvx512Bf16) {
      EXPECT_TRUE(SameBits(scalar, logits)) << NameOf(isa);
      continue;
    }
    // Instructions for bf16 have arithmetics of their own: attention rounds q and the weights to
    // bf16. The scalar code that defines them is compared in attention_tiles_test.cc.
    ASSERT_EQ(scalar.size(), logits.size());
    double error = 0, all = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double d = static_cast<double>(logits[i]) - scalar[i];
      error += d * d;
      all += static_cast<double>(scalar[i]) * scalar[i];
    }
    EXPECT_LE(error, 1e-4 * all) << NameOf(isa);
    RecordProperty("nmse_of_" + std::string(NameOf(isa)), std::to_string(error / all));
  }
}

/// An entry of a GGUF file: the key, the type's number and the value's bytes.
struct Entry {
  std::string key;
  uint32_t type;
  std::string value;
};

template <typename T>
std::string Bytes(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

Entry Whole(const std::string& key, uint32_t value) { return {key, 4, Bytes(value)}; }
Entry Real(const std::string& key, float value) { return {key, 6, Bytes(value)}; }

Entry Flag(const std::string& key, bool value) { return {key, 7, Bytes(value)}; }
Entry Text(const std::string& key, const std::string& value) {
  return {key, 8, Bytes(uint64_t{value.size()}) + value};
}
Entry Wholes(const std::string& key, const std::vector<uint32_t>& values) {
  std::string bytes = Bytes(uint32_t{4}) + Bytes(uint64_t{values.size()});
  for (const uint32_t v : values) bytes += Bytes(v);
  return {key, 9, bytes};
}

/// A copy of a tiny model with these entries before all others, and without those of their names.
class AlteredModel {
 public:
  AlteredModel(const std::string& name, const std::vector<Entry>& entries) {
    std::ifstream in(TinyPath(name + ".gguf"), std::ios::binary);
    std::ostringstream all;
    all << in.rdbuf();
    std::string file = all.str(), added;
    const auto add = [&added](const Entry& e) {
      added += Bytes(uint64_t{e.key.size()}) + e.key + Bytes(e.type) + e.value;
    };
    for (const Entry& e : entries) {
      const std::string key = Bytes(uint64_t{e.key.size()}) + e.key;
      if (const size_t old = file.find(key); old != std::string::npos) file[old + 8] = '-';
      add(e);
    }
    add(Whole(std::string(64 - (added.size() + 16) % 32, 'x'), 0));  // what follows stays aligned
    uint64_t count = 0;
    std::memcpy(&count, file.data() + 16, 8);
    file.replace(16, 8, Bytes(count + entries.size() + 1));
    file.insert(24, added);
    std::ofstream(path_, std::ios::binary) << file;
  }
  ~AlteredModel() { std::filesystem::remove(path_); }

  /// The logits of all tokens of `golden`; none if the model is refused.
  std::vector<float> Logits(const Golden& golden) const {
    const auto model = LoadTestModel(path_, {.kv_dtype = KvDType::kF32});
    const auto rows = static_cast<int32_t>(golden.tokens.size());
    return model ? LogitsInChunks(model.get(), golden.tokens, rows, rows) : std::vector<float>();
  }

  const std::string& path() const { return path_; }
  /// Why it is refused.
  std::string Refusal() const {
    const auto file = GgufFile::Open(path_);
    EXPECT_TRUE(file.ok());
    const auto config = ReadModelConfig(*file);
    return config.ok() ? "" : config.error().message;
  }

 private:
  std::string path_ = std::filesystem::temp_directory_path() /
                      ("kvasir-altered-" + std::to_string(getpid()) + ".gguf");
};

/// What a model gives with entries that change nothing, or with none.
std::vector<float> LogitsWith(const std::string& name, const std::vector<Entry>& entries) {
  return AlteredModel(name, entries).Logits(ReadGolden(name));
}

std::string RefusalOf(const std::string& name, const std::vector<Entry>& entries) {
  return AlteredModel(name, entries).Refusal();
}

// Mistral's files are llama files with a window, and may be stretched as others are.
TEST(TinyModelsAltered, LlamaLayersWithAWindowRotateAsThoseWithout) {
  // As much as the context: nothing is out of it.
  for (const char* name : {"llama-linear", "llama-llama3", "llama-yarn"})
    EXPECT_EQ(LogitsWith(name, {Whole("llama.attention.sliding_window", 64)}), LogitsWith(name, {}))
        << name;
}

// transformers' attention_factor, which is the whole magnitude: it may not count a second time.
TEST(TinyModelsAltered, OfTheMagnitudesOfRotationThatFilesHaveOnlyAttnFactorMultiplies) {
  EXPECT_EQ(LogitsWith("llama-yarn", {Real("llama.rope.scaling.yarn_attn_factor", 1.138629f)}),
            LogitsWith("llama-yarn", {}));
  for (const char* name : {"llama-yarn", "llama-linear", "llama"}) {
    EXPECT_NE(LogitsWith(name, {Real("llama.rope.scaling.attn_factor", 1.138629f)}),
              LogitsWith(name, {}))
        << name;
  }
}

// llama_model_save_to_file writes every hyperparameter that llama.cpp knows, set or not.
TEST(TinyModelsAltered, WhatLlamaCppSavesThatIsNotSetChangesNothing) {
  for (const std::string name : {"llama", "qwen2", "qwen3", "gemma3"}) {
    std::vector<Entry> saved = {Real(name + ".attn_logit_softcapping", 50),
                                Real(name + ".rope.scaling.yarn_ext_factor", -1),
                                Flag(name + ".attention.causal", true)};
    if (name == "gemma3") {
      saved.push_back(Wholes("gemma3.attention.sliding_window_pattern", {1, 1, 0, 1}));
      saved.push_back(Real("gemma3.final_logit_softcapping", 0));
    } else {
      saved.push_back(Text(name + ".rope.scaling.type", "linear"));
      saved.push_back(Real(name + ".rope.scaling.factor", 0));
      saved.push_back(Real(name + ".final_logit_softcapping", 30));
    }
    EXPECT_EQ(LogitsWith(name, saved), LogitsWith(name, {})) << name;
  }
  for (const float factor : {-1.0f, 0.0f}) {
    EXPECT_EQ(LogitsWith("llama-yarn", {Real("llama.rope.scaling.yarn_ext_factor", factor)}),
              LogitsWith("llama-yarn", {}));
  }
  EXPECT_NE(
      RefusalOf("gemma3", {Real("gemma3.final_logit_softcapping", 30)}).find("softcapping is 30"),
      std::string::npos);
  EXPECT_NE(RefusalOf("gemma3", {Wholes("gemma3.attention.sliding_window_pattern", {1, 1, 0})})
                .find("3 entries for 4 layers"),
            std::string::npos);
}

TEST(TinyModelsAltered, AnArrayOfOneNumberForAllLayersIsThatNumber) {
  const std::string heads = "llama.attention.head_count", kv = "llama.attention.head_count_kv",
                    ffn = "llama.feed_forward_length";
  EXPECT_EQ(LogitsWith("llama", {Wholes(heads, {4, 4}), Wholes(kv, {2, 2}), Wholes(ffn, {64, 64})}),
            LogitsWith("llama", {}));
  EXPECT_NE(RefusalOf("llama", {Wholes(kv, {2, 4})}).find(kv + " is 2 in one layer and 4 in"),
            std::string::npos);
  EXPECT_NE(RefusalOf("llama", {Wholes(ffn, {64, 32})}).find(ffn + " is 64 in one layer and 32 in"),
            std::string::npos);
  EXPECT_NE(RefusalOf("llama", {Wholes(kv, {2})}).find("1 entries for 2 layers"),
            std::string::npos);
  EXPECT_NE(RefusalOf("llama", {Wholes(kv, {8, 8})}).find("1 to 4 are allowed"), std::string::npos);
}

TEST(TinyModelsAltered, AttentionToWhatFollowsIsRefused) {
  EXPECT_NE(RefusalOf("llama", {Flag("llama.attention.causal", false)})
                .find("llama.attention.causal is false"),
            std::string::npos);
}

TEST(RunSampling, WhatAFileSaysCountsWhereNoFlagWasGiven) {
  const auto taken = [](const std::vector<Entry>& entries, const SamplingFlags& flags) {
    const AlteredModel model("llama", entries);
    const auto file = GgufFile::Open(model.path());
    auto params = ToSamplingParams(flags);
    EXPECT_TRUE(file.ok() && params.ok());
    const Status status = TakeModelsSampling(*file, flags, &*params);
    return status.ok() ? fmt::format("{} {} {} {} {}", params->temperature, params->top_k,
                                     params->top_p, params->min_p, params->repetition_penalty)
                       : status.error().message;
  };
  const std::string group = "general.sampling.";
  const std::vector<Entry> all = {Real(group + "temp", 0.5f), Whole(group + "top_k", 20),
                                  Real(group + "top_p", 0.75f), Real(group + "min_p", 0.25f),
                                  Real(group + "penalty_repeat", 1.5f)};
  EXPECT_EQ(taken({}, {}), "0 0 1 0 1");
  EXPECT_EQ(taken(all, {}), "0.5 20 0.75 0.25 1.5");
  EXPECT_EQ(taken(all, {.temperature = 0.0f, .top_p = 1.0f, .top_k = 0}), "0 0 1 0.25 1.5");
  EXPECT_NE(taken({Real(group + "top_p", 2)}, {}).find("top_p is 2; 0 to 1 are allowed; give"),
            std::string::npos);
  EXPECT_EQ(taken({Real(group + "top_p", 2)}, {.top_p = 0.5f}), "0 0 0.5 0 1");
}

TEST(ChatPrompt, VariablesAreThoseThatTransformersGives) {
  const auto opened = GgufFile::Open(TinyPath("gemma3.gguf"));
  ASSERT_TRUE(opened.ok());
  auto vocab = ReadVocab(*opened);
  ASSERT_TRUE(vocab.ok());
  vocab->pad.reset();
  const auto render = [&](const nlohmann::ordered_json& extra) {
    const auto tokenizer = Tokenizer::Create(*vocab);
    const auto compiled = ChatTemplate::Compile(
        "{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }} {{ bos_token }} "
        "{{ unk_token }} {{ pad_token is defined }}");
    EXPECT_TRUE(tokenizer.ok() && compiled.ok());
    const auto text = compiled->Render(TemplateContext(**tokenizer, {}, extra), 0);
    EXPECT_TRUE(text.ok());
    return text.ok() ? *text : std::string();
  };
  const std::string &bos = vocab->tokens[*vocab->bos], &unk = vocab->tokens[*vocab->unk];
  EXPECT_EQ(render({}), "True True True " + bos + " " + unk + " False");
  vocab->pad = 0;
  EXPECT_EQ(render({{"tools", nlohmann::ordered_json::array()}}),
            "False True True " + bos + " " + unk + " True");
}

/// GoogleTest takes no '-' in a name.
std::string TestName(const ::testing::TestParamInfo<std::string>& tested) {
  std::string name = tested.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, TinyModels,
                         ::testing::Values("llama", "llama-tied-mqa", "llama-linear",
                                           "llama-llama3", "llama-yarn", "mistral", "qwen2",
                                           "qwen3", "gemma3"),
                         TestName);

}  // namespace
}  // namespace kvasir
