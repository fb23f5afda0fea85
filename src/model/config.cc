#include "model/config.h"

#include <cmath>
#include <string_view>

#include "tensor/dequant.h"

namespace kvasir {
namespace {

/// What an architecture fixes and its files do not say. A new one is a new row here, its tensors
/// permitting.
struct Architecture {
  std::string_view name;
  RopeStyle rope;
  Activation activation;
  bool qk_norm;
  bool post_norms;
  bool scaled_embedding;  // the embedding is multiplied by sqrt(dim)
  int32_t global_every;   // with a window: every n-th layer has none; 0: all have it
  bool windows;           // files may ask for a window
  double local_rope_base;
};
constexpr Architecture kArchitectures[] = {
    {"llama", RopeStyle::kNorm, Activation::kSilu, false, false, false, 0, true, 0},
    {"qwen2", RopeStyle::kNeox, Activation::kSilu, false, false, false, 0, false, 0},
    {"qwen3", RopeStyle::kNeox, Activation::kSilu, true, false, false, 0, false, 0},
    {"gemma3", RopeStyle::kNeox, Activation::kGeluTanh, true, true, true, 6, true, 10000.0},
};

constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxDim = 1 << 20;
constexpr int32_t kMaxHeads = 1 << 14;
constexpr int32_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxContext = int64_t{1} << 30;

/// The items of an array of whole numbers or booleans; nothing for any other value.
std::optional<std::vector<int64_t>> WholeNumbers(const GgufValue& value) {
  std::optional<std::vector<int64_t>> out;
  const auto take = [&](const auto& items) { out.emplace(items.begin(), items.end()); };
  if (const auto* u = std::get_if<std::vector<uint64_t>>(&value)) take(*u);
  if (const auto* s = std::get_if<std::vector<int64_t>>(&value)) take(*s);
  if (const auto* b = std::get_if<std::vector<bool>>(&value)) take(*b);
  return out;
}

class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, const Architecture& arch) : file_(file), arch_(arch) {}

  Result<ModelConfig> Read() {
    KV_RETURN_IF_ERROR(ReadShape());
    KV_RETURN_IF_ERROR(ReadHeads());
    KV_RETURN_IF_ERROR(ReadWindows());
    KV_RETURN_IF_ERROR(ReadRope());
    KV_RETURN_IF_ERROR(RefuseWhatIsMissing());
    KV_RETURN_IF_ERROR(CheckTensors());
    return c_;
  }

 private:
  std::string Key(std::string_view name) const { return fmt::format("{}.{}", arch_.name, name); }

  /// An array with a whole number or a boolean for each layer; nothing where there is no array.
  Result<std::optional<std::vector<int64_t>>> OfLayers(const std::string& key) {
    const GgufValue* value = file_.FindValue(key);
    std::optional<std::vector<int64_t>> items;
    if (value != nullptr) items = WholeNumbers(*value);
    if (items && items->size() != static_cast<size_t>(c_.layers)) {
      return MakeError(ErrorCode::kInvalid, "{}: {} has {} entries for {} layers", file_.path(),
                       key, items->size(), c_.layers);
    }
    return items;
  }

  /// A number, or an array that has the same one for each layer.
  Result<std::optional<int64_t>> Alike(std::string_view name, int64_t min, int64_t max) {
    const std::string key = Key(name);
    if (c_.layers == 0) return file_.Int(key, min, max);  // block_count itself
    KV_ASSIGN(const auto items, OfLayers(key));
    if (!items) return file_.Int(key, min, max);
    for (const int64_t item : *items) {
      if (item != items->front()) {
        return MakeError(ErrorCode::kUnsupported,
                         "{}: {} is {} in one layer and {} in another; layers that differ are not "
                         "supported",
                         file_.path(), key, items->front(), item);
      }
    }
    if (items->front() < min || items->front() > max) {
      return MakeError(ErrorCode::kInvalid, "{}: {} is {}; {} to {} are allowed", file_.path(), key,
                       items->front(), min, max);
    }
    return std::optional<int64_t>(items->front());
  }

  /// A number that must be there.
  Status Require(std::string_view name, int64_t min, int64_t max, int32_t* out) {
    KV_ASSIGN(const auto value, Alike(name, min, max));
    if (!value) return MakeError(ErrorCode::kInvalid, "{}: {} is missing", file_.path(), Key(name));
    *out = static_cast<int32_t>(*value);
    return {};
  }

  Status PositiveFloat(std::string_view name, double* out) {
    KV_ASSIGN(const auto value, file_.Float(Key(name)));
    if (!value) return {};
    if (!(*value > 0 && *value < 1e18)) {
      return MakeError(ErrorCode::kInvalid, "{}: {} is {}; a number above 0 is needed",
                       file_.path(), Key(name), *value);
    }
    *out = *value;
    return {};
  }

  Status ReadShape() {
    c_.architecture = arch_.name;
    KV_ASSIGN(const auto name, file_.String("general.name"));
    if (name) c_.name = *name;
    KV_RETURN_IF_ERROR(Require("block_count", 1, kMaxLayers, &c_.layers));
    KV_RETURN_IF_ERROR(Require("embedding_length", 32, kMaxDim, &c_.dim));
    KV_RETURN_IF_ERROR(Require("feed_forward_length", 32, kMaxDim, &c_.ffn_dim));
    KV_ASSIGN(const auto context, file_.Int(Key("context_length"), 1, kMaxContext));
    if (!context) {
      return MakeError(ErrorCode::kInvalid, "{}: {} is missing", file_.path(),
                       Key("context_length"));
    }
    c_.context = *context;
    double eps = 1e-5;
    KV_RETURN_IF_ERROR(PositiveFloat("attention.layer_norm_rms_epsilon", &eps));
    if (eps > 1) {
      return MakeError(ErrorCode::kInvalid, "{}: {} is {}; at most 1 is allowed", file_.path(),
                       Key("attention.layer_norm_rms_epsilon"), eps);
    }
    c_.norm_eps = static_cast<float>(eps);
    c_.activation = arch_.activation;
    c_.qk_norm = arch_.qk_norm;
    c_.post_norms = arch_.post_norms;
    c_.embedding_scale = arch_.scaled_embedding ? std::sqrt(static_cast<float>(c_.dim)) : 1.0f;
    c_.tied_head = file_.FindTensor("output.weight") == nullptr;

    const GgufTensor* embedding = file_.FindTensor("token_embd.weight");
    if (embedding == nullptr) {
      return MakeError(ErrorCode::kInvalid, "{}: tensor token_embd.weight is missing",
                       file_.path());
    }
    if (embedding->ne[1] > kMaxVocab) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: tensor token_embd.weight has {} rows; at most {} are supported",
                       file_.path(), embedding->ne[1], kMaxVocab);
    }
    c_.vocab = static_cast<int32_t>(embedding->ne[1]);
    return {};
  }

  Status ReadHeads() {
    KV_RETURN_IF_ERROR(Require("attention.head_count", 1, kMaxHeads, &c_.heads));
    KV_ASSIGN(const auto kv, Alike("attention.head_count_kv", 1, c_.heads));
    c_.kv_heads = kv ? static_cast<int32_t>(*kv) : c_.heads;
    if (c_.heads % c_.kv_heads != 0) {
      return MakeError(ErrorCode::kInvalid, "{}: {} {} is not a multiple of {} {}", file_.path(),
                       Key("attention.head_count"), c_.heads, Key("attention.head_count_kv"),
                       c_.kv_heads);
    }
    KV_ASSIGN(const auto key_length, file_.Int(Key("attention.key_length"), 2, 4096));
    KV_ASSIGN(const auto value_length, file_.Int(Key("attention.value_length"), 2, 4096));
    if (!key_length && c_.dim % c_.heads != 0) {
      return MakeError(ErrorCode::kInvalid, "{}: {} {} is not a multiple of {} {}", file_.path(),
                       Key("embedding_length"), c_.dim, Key("attention.head_count"), c_.heads);
    }
    c_.head_dim = key_length ? static_cast<int32_t>(*key_length) : c_.dim / c_.heads;
    if (value_length && *value_length != c_.head_dim) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: {} {} differs from the key length {}, which is not supported",
                       file_.path(), Key("attention.value_length"), *value_length, c_.head_dim);
    }
    if (c_.head_dim < 2 || c_.head_dim % 2 != 0 || c_.head_dim > 1024) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: heads of {} channels are not supported; an even number up to 1024 is",
                       file_.path(), c_.head_dim);
    }
    c_.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c_.head_dim)));
    // Gemma 3 27B alone scales by the width a head would have without its own head size.
    if (arch_.name == "gemma3" && c_.layers == 62) {
      c_.attention_scale =
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(c_.dim) / c_.heads));
    }
    return {};
  }

  Status ReadWindows() {
    c_.window.assign(c_.layers, 0);
    KV_ASSIGN(const auto window, file_.Int(Key("attention.sliding_window"), 0, kMaxContext));
    if (!window || *window == 0) return {};
    if (!arch_.windows) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: {} is {}; sliding windows are not supported in {} models", file_.path(),
                       Key("attention.sliding_window"), *window, arch_.name);
    }
    const std::string pattern_key = Key("attention.sliding_window_pattern");
    KV_ASSIGN(const auto local, OfLayers(pattern_key));
    if (local) {
      for (int32_t l = 0; l < c_.layers; ++l)
        c_.window[l] = (*local)[l] != 0 ? static_cast<int32_t>(*window) : 0;
      return {};
    }
    KV_ASSIGN(const auto every, file_.Int(pattern_key, 1, kMaxLayers));
    const int64_t period = every ? *every : arch_.global_every;
    for (int32_t l = 0; l < c_.layers; ++l) {
      const bool global = period > 0 && (l + 1) % period == 0;
      c_.window[l] = global ? 0 : static_cast<int32_t>(*window);
    }
    return {};
  }

  Status ReadRope() {
    RopeConfig& r = c_.rope;
    r.style = arch_.rope;
    KV_ASSIGN(const auto dims, file_.Int(Key("rope.dimension_count"), 2, c_.head_dim));
    r.dims = dims ? static_cast<int32_t>(*dims) : c_.head_dim;
    if (r.dims % 2 != 0) {
      return MakeError(ErrorCode::kInvalid, "{}: {} is {}; an even number is needed", file_.path(),
                       Key("rope.dimension_count"), r.dims);
    }
    KV_RETURN_IF_ERROR(PositiveFloat("rope.freq_base", &r.base));
    KV_RETURN_IF_ERROR(PositiveFloat("rope.scaling.attn_factor", &r.attn_factor));
    // Gemma 3's local layers have a base of their own and are not stretched; others rotate alike.
    RopeConfig& local = c_.rope_local;
    local = r;
    KV_RETURN_IF_ERROR(ReadRopeScaling(&r));
    KV_RETURN_IF_ERROR(ReadFreqDivisors(&r));
    if (arch_.local_rope_base > 0) {
      local.base = arch_.local_rope_base;
    } else {
      local = r;
    }
    return PositiveFloat("rope.freq_base_swa", &local.base);
  }

  Status ReadRopeScaling(RopeConfig* r) {
    KV_ASSIGN(const auto type, file_.String(Key("rope.scaling.type")));
    // The first is from before scaling.type existed.
    for (const char* name : {"rope.scale_linear", "rope.scaling.factor"}) {
      KV_ASSIGN(const auto factor, file_.Float(Key(name)));
      if (factor && *factor == 0) {  // llama.cpp saves that there is none so
        r->factor = 1;
      } else {
        KV_RETURN_IF_ERROR(PositiveFloat(name, &r->factor));
      }
    }
    if (!type) {
      r->scaling = r->factor == 1.0 ? RopeScaling::kNone : RopeScaling::kLinear;
    } else if (*type == "none") {
      r->scaling = RopeScaling::kNone;
    } else if (*type == "linear") {
      r->scaling = RopeScaling::kLinear;
    } else if (*type == "yarn") {
      r->scaling = RopeScaling::kYarn;
    } else {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: {} '{}' is not supported; none, linear and yarn are", file_.path(),
                       Key("rope.scaling.type"), std::string(type->substr(0, 40)));
    }
    if (r->scaling != RopeScaling::kYarn) return {};
    KV_ASSIGN(const auto original,
              file_.Int(Key("rope.scaling.original_context_length"), 1, kMaxContext));
    r->original_context = original ? *original : c_.context;
    // Not yarn_attn_factor: some converters write the whole magnitude there, some a multiplier of
    // it, and llama.cpp, for which the files are made, does not read it in these architectures. Nor
    // yarn_ext_factor, which transformers does not know either.
    KV_RETURN_IF_ERROR(PositiveFloat("rope.scaling.yarn_beta_fast", &r->yarn_beta_fast));
    return PositiveFloat("rope.scaling.yarn_beta_slow", &r->yarn_beta_slow);
  }

  Status ReadFreqDivisors(RopeConfig* r) {
    const GgufTensor* t = file_.FindTensor("rope_freqs.weight");
    if (t == nullptr) return {};
    if (t->dtype != DType::kF32 || t->dims != 1 || t->ne[0] != r->dims / 2) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: tensor rope_freqs.weight is {} of {} elements; F32 of {} is needed",
                       file_.path(), NameOf(t->dtype), t->ne[0], r->dims / 2);
    }
    r->freq_divisors.resize(t->ne[0]);
    Dequantize(t->dtype, t->data, r->freq_divisors);
    for (const float f : r->freq_divisors) {
      if (!(f > 0 && std::isfinite(f))) {
        return MakeError(ErrorCode::kInvalid,
                         "{}: tensor rope_freqs.weight holds {}; numbers above 0 are needed",
                         file_.path(), f);
      }
    }
    return {};
  }

  /// Features that well-formed files of these architectures may ask for and Kvasir does not have.
  Status RefuseWhatIsMissing() {
    KV_ASSIGN(const auto experts, file_.Int(Key("expert_count"), 0, INT64_MAX));
    if (experts && *experts > 0) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: {} is {}; mixtures of experts are not supported", file_.path(),
                       Key("expert_count"), *experts);
    }
    KV_ASSIGN(const auto causal, file_.Bool(Key("attention.causal")));
    if (causal && !*causal) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: {} is false; attention to what follows is not supported", file_.path(),
                       Key("attention.causal"));
    }
    // The other architectures, and attention in all of them, have no softcapping: files that
    // llama.cpp saved say something nevertheless.
    if (arch_.name == "gemma3") {
      KV_ASSIGN(const auto cap, file_.Float(Key("final_logit_softcapping")));
      if (cap && *cap != 0) {
        return MakeError(ErrorCode::kUnsupported,
                         "{}: {} is {}; logit softcapping is not supported", file_.path(),
                         Key("final_logit_softcapping"), *cap);
      }
    }
    for (const GgufTensor& t : file_.tensors()) {
      if (ChangesWhatIsComputed(t.name)) {
        return MakeError(ErrorCode::kUnsupported,
                         "{}: tensor {}: this bias or feature is not supported", file_.path(),
                         t.name);
      }
    }
    return {};
  }

  /// Whether a model with such a tensor is another one without it: a bias that nobody adds, in
  /// whatever layer, or attention sinks.
  static bool ChangesWhatIsComputed(std::string_view tensor) {
    for (const std::string_view used : {"attn_q.bias", "attn_k.bias", "attn_v.bias"}) {
      if (tensor.ends_with(used)) return false;
    }
    return tensor.ends_with(".bias") || tensor.ends_with(".attn_sinks.weight");
  }

  Status CheckTensors() {
    const int64_t q_dim = int64_t{c_.heads} * c_.head_dim,
                  kv_dim = int64_t{c_.kv_heads} * c_.head_dim;
    KV_RETURN_IF_ERROR(Matrix("token_embd.weight", c_.dim, c_.vocab));
    KV_RETURN_IF_ERROR(Vector("output_norm.weight", c_.dim, true));
    if (!c_.tied_head) KV_RETURN_IF_ERROR(Matrix("output.weight", c_.dim, c_.vocab));
    for (int32_t l = 0; l < c_.layers; ++l) {
      const auto name = [l](std::string_view part) { return fmt::format("blk.{}.{}", l, part); };
      KV_RETURN_IF_ERROR(Vector(name("attn_norm.weight"), c_.dim, true));
      KV_RETURN_IF_ERROR(Matrix(name("attn_q.weight"), c_.dim, q_dim));
      KV_RETURN_IF_ERROR(Matrix(name("attn_k.weight"), c_.dim, kv_dim));
      KV_RETURN_IF_ERROR(Matrix(name("attn_v.weight"), c_.dim, kv_dim));
      KV_RETURN_IF_ERROR(Vector(name("attn_q.bias"), q_dim, false));
      KV_RETURN_IF_ERROR(Vector(name("attn_k.bias"), kv_dim, false));
      KV_RETURN_IF_ERROR(Vector(name("attn_v.bias"), kv_dim, false));
      KV_RETURN_IF_ERROR(NormIf(c_.qk_norm, name("attn_q_norm.weight"), c_.head_dim));
      KV_RETURN_IF_ERROR(NormIf(c_.qk_norm, name("attn_k_norm.weight"), c_.head_dim));
      KV_RETURN_IF_ERROR(Matrix(name("attn_output.weight"), q_dim, c_.dim));
      KV_RETURN_IF_ERROR(NormIf(c_.post_norms, name("post_attention_norm.weight"), c_.dim));
      KV_RETURN_IF_ERROR(Vector(name("ffn_norm.weight"), c_.dim, true));
      KV_RETURN_IF_ERROR(Matrix(name("ffn_gate.weight"), c_.dim, c_.ffn_dim));
      KV_RETURN_IF_ERROR(Matrix(name("ffn_up.weight"), c_.dim, c_.ffn_dim));
      KV_RETURN_IF_ERROR(Matrix(name("ffn_down.weight"), c_.ffn_dim, c_.dim));
      KV_RETURN_IF_ERROR(NormIf(c_.post_norms, name("post_ffw_norm.weight"), c_.dim));
    }
    return {};
  }

  Status Matrix(const std::string& name, int64_t cols, int64_t rows) {
    const GgufTensor* t = file_.FindTensor(name);
    if (t == nullptr)
      return MakeError(ErrorCode::kInvalid, "{}: tensor {} is missing", file_.path(), name);
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: tensor {} has shape {} x {} x {} x {} instead of {} x {}", file_.path(),
                       name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], cols, rows);
    }
    if (t->dtype == DType::kI8 || t->dtype == DType::kI32) {
      return MakeError(ErrorCode::kInvalid, "{}: tensor {} is {}, which is no weight format",
                       file_.path(), name, NameOf(t->dtype));
    }
    c_.parameters += cols * rows;
    return {};
  }

  Status Vector(const std::string& name, int64_t size, bool required) {
    const GgufTensor* t = file_.FindTensor(name);
    if (t == nullptr) {
      if (!required) return {};
      return MakeError(ErrorCode::kInvalid, "{}: tensor {} is missing", file_.path(), name);
    }
    if (t->ne[0] != size || t->ne[1] * t->ne[2] * t->ne[3] != 1) {
      return MakeError(ErrorCode::kInvalid, "{}: tensor {} has {} x {} elements instead of {}",
                       file_.path(), name, t->ne[0], t->ne[1] * t->ne[2] * t->ne[3], size);
    }
    if (t->dtype != DType::kF32 && t->dtype != DType::kF16 && t->dtype != DType::kBF16) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: tensor {} is {}; F32, F16 and BF16 are supported for vectors",
                       file_.path(), name, NameOf(t->dtype));
    }
    c_.parameters += size;
    return {};
  }

  /// A norm that the architecture has or has not: one in the wrong place means another network.
  Status NormIf(bool expected, const std::string& name, int64_t size) {
    if (expected) return Vector(name, size, true);
    if (file_.FindTensor(name) == nullptr) return {};
    return MakeError(ErrorCode::kUnsupported, "{}: tensor {} is not supported in {} models",
                     file_.path(), name, arch_.name);
  }

  const GgufFile& file_;
  const Architecture& arch_;
  ModelConfig c_;
};

}  // namespace

Result<ModelConfig> ReadModelConfig(const GgufFile& file) {
  KV_ASSIGN(const auto name, file.String("general.architecture"));
  if (!name)
    return MakeError(ErrorCode::kInvalid, "{}: general.architecture is missing", file.path());
  for (const Architecture& arch : kArchitectures) {
    if (arch.name == *name) return ConfigReader(file, arch).Read();
  }
  std::string shown;
  for (const char c : name->substr(0, 40)) shown += c >= 32 && c < 127 ? c : '?';
  return MakeError(
      ErrorCode::kUnsupported,
      "{}: general.architecture '{}' is not supported; llama, qwen2, qwen3 and gemma3 are",
      file.path(), shown);
}

}  // namespace kvasir
