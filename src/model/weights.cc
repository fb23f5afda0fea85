#include "model/weights.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "base/check.h"
#include "base/checked.h"
#include "tensor/dequant.h"

namespace kvasir {
namespace {

/// One matrix of the file and where it goes.
struct MatrixSlot {
  std::string name;  // without ".weight"
  Matrix* target;
};

const GgufTensor& Require(const GgufFile& file, const std::string& name) {
  const GgufTensor* t = file.FindTensor(name);
  if (t == nullptr)
    CheckFailed(__FILE__, __LINE__, "tensor not checked by ReadModelConfig: " + name);
  return *t;
}

/// A vector as f32; empty when the file has none.
std::vector<float> ReadVector(const GgufFile& file, const std::string& name) {
  const GgufTensor* t = file.FindTensor(name);
  if (t == nullptr) return {};
  const TensorView view = t->view();
  std::vector<float> out(static_cast<size_t>(view.rows * view.cols));
  Dequantize(view.dtype, view.data, out);
  return out;
}

/// The matrices of all layers, in the order in which they lie in most files.
std::vector<MatrixSlot> LayerMatrices(std::vector<LayerWeights>& layers) {
  std::vector<MatrixSlot> slots;
  for (size_t l = 0; l < layers.size(); ++l) {
    LayerWeights& w = layers[l];
    const std::string prefix = fmt::format("blk.{}.", l);
    for (auto [name, target] : {std::pair{"attn_q", &w.q},
                                {"attn_k", &w.k},
                                {"attn_v", &w.v},
                                {"attn_output", &w.output},
                                {"ffn_gate", &w.gate},
                                {"ffn_up", &w.up},
                                {"ffn_down", &w.down}}) {
      slots.push_back({prefix + name, &target->weight});
    }
  }
  return slots;
}

std::vector<MatrixSlot> AllMatrices(ModelWeights& w, bool tied_head) {
  std::vector<MatrixSlot> slots = LayerMatrices(w.layers);
  slots.push_back({tied_head ? "token_embd" : "output", &w.head});
  return slots;
}

void ReadLayerVectors(const GgufFile& file, size_t layer, LayerWeights* w) {
  const auto read = [&](const char* name) {
    return ReadVector(file, fmt::format("blk.{}.{}", layer, name));
  };
  w->attention_norm = read("attn_norm.weight");
  w->ffn_norm = read("ffn_norm.weight");
  w->post_attention_norm = read("post_attention_norm.weight");
  w->post_ffn_norm = read("post_ffw_norm.weight");
  w->q_norm = read("attn_q_norm.weight");
  w->k_norm = read("attn_k_norm.weight");
  w->q.bias = read("attn_q.bias");
  w->k.bias = read("attn_k.bias");
  w->v.bias = read("attn_v.bias");
}

void DropPages(const GgufFile& file, const GgufTensor& tensor) {
  const MappedFile& mapped = file.files()[tensor.file];
  mapped.DropPages(static_cast<size_t>(tensor.data - mapped.bytes().data()), tensor.bytes);
}

}  // namespace

size_t ModelWeights::bytes() const {
  size_t total = head.bytes() + output_norm.size() * sizeof(float);
  for (const LayerWeights& l : layers) {
    for (const Linear* m : {&l.q, &l.k, &l.v, &l.output, &l.gate, &l.up, &l.down}) {
      total += m->weight.bytes() + m->bias.size() * sizeof(float);
    }
    for (const auto* v : {&l.attention_norm, &l.ffn_norm, &l.post_attention_norm, &l.post_ffn_norm,
                          &l.q_norm, &l.k_norm}) {
      total += v->size() * sizeof(float);
    }
  }
  return total;
}

Result<ModelWeights> LoadWeights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                                 const LoadProgress& progress) {
  ModelWeights w;
  w.layers.resize(config.layers);
  w.output_norm = ReadVector(file, "output_norm.weight");
  for (size_t l = 0; l < w.layers.size(); ++l) ReadLayerVectors(file, l, &w.layers[l]);
  if (!config.tied_head) w.embedding = Require(file, "token_embd.weight").view();

  const std::vector<MatrixSlot> slots = AllMatrices(w, config.tied_head);
  uint64_t total = 0, done = 0;
  CheckedSize packed_bytes = 0;
  for (const MatrixSlot& slot : slots) {
    const TensorView view = Require(file, slot.name + ".weight").view();
    total += view.bytes();
    const Result<size_t> bytes = backend.PackedBytes(view.dtype, view.rows, view.cols);
    if (bytes.ok()) packed_bytes += AlignedBuffer::FrontBytes(*bytes);
  }
  if (packed_bytes.AtMost(SIZE_MAX))
    KV_RETURN_IF_ERROR(backend.ReserveWeights(*packed_bytes.Get()));
  for (const MatrixSlot& slot : slots) {
    const GgufTensor& tensor = Require(file, slot.name + ".weight");
    Result<Matrix> packed = backend.Pack(tensor.view());
    if (!packed.ok()) {
      return MakeError(packed.error().code, "{}: tensor {}: {}", file.path(), tensor.name,
                       packed.error().message);
    }
    *slot.target = std::move(*packed);
    DropPages(file, tensor);
    done += tensor.bytes;
    if (progress) progress(done, total);
  }
  return w;
}

Result<WeightSizes> PlanWeights(const GgufFile& file, const ModelConfig& config,
                                const Backend& backend) {
  ModelWeights w;
  w.layers.resize(config.layers);
  CheckedSize packed = 0;
  for (const MatrixSlot& slot : AllMatrices(w, config.tied_head)) {
    const GgufTensor& tensor = Require(file, slot.name + ".weight");
    const TensorView view = tensor.view();
    Result<size_t> bytes = backend.PackedBytes(view.dtype, view.rows, view.cols);
    if (!bytes.ok()) {
      return MakeError(bytes.error().code, "{}: tensor {}: {}", file.path(), tensor.name,
                       bytes.error().message);
    }
    packed += *bytes;
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.dims == 1)
      packed += CheckedSize(static_cast<uint64_t>(tensor.ne[0])) * sizeof(float);
  }
  if (!packed.Get()) {
    return MakeError(ErrorCode::kInvalid, "{}: the weights add up to more than 2^64 bytes",
                     file.path());
  }
  return WeightSizes{
      .packed_bytes = *packed.Get(),
      .mapped_bytes = config.tied_head ? 0 : Require(file, "token_embd.weight").bytes};
}

}  // namespace kvasir
