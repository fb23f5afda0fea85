#include "model/model.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/checked.h"
#include "tensor/dequant.h"

namespace kvasir {
namespace {

/// Of all models: they may share a backend.
std::atomic<uint64_t> last_forward{0};

/// Floats of each buffer of a step. Sizes are those of ModelConfig, already checked to be sane.
struct BufferSizes {
  size_t x, held, normed, q, k, v, attended, projected, rope, rope_local, logits;

  BufferSizes(const ModelConfig& c, const StepLimits& l) {
    const size_t rows = l.max_rows;
    const size_t q_dim = static_cast<size_t>(c.heads) * c.head_dim;
    const size_t kv_dim = static_cast<size_t>(c.kv_heads) * c.head_dim;
    x = normed = rows * c.dim;
    held = static_cast<size_t>(std::min(l.max_rows, l.max_layered_rows)) * c.dim;
    projected = c.post_norms ? rows * c.dim : 0;
    q = attended = rows * q_dim;
    k = v = rows * kv_dim;
    rope = rows * (c.rope.dims / 2);
    rope_local = rows * (c.rope_local.dims / 2);
    logits = static_cast<size_t>(l.max_logit_rows) * c.vocab;
  }
  std::array<size_t, 13> all() const {
    return {x,         held, normed, q,          k,          v,     attended,
            projected, rope, rope,   rope_local, rope_local, logits};
  }
  /// Each buffer begins on a cache line.
  static size_t Padded(size_t floats) { return RoundUp(floats, 16); }
  size_t bytes() const {
    size_t floats = 0;
    for (const size_t n : all()) floats += Padded(n);
    return floats * sizeof(float);
  }
};

int64_t WidestInput(const ModelConfig& c) {
  return std::max({int64_t{c.dim}, int64_t{c.ffn_dim}, int64_t{c.heads} * c.head_dim});
}

GateActivation ToBackend(Activation a) {
  return a == Activation::kSilu ? GateActivation::kSilu : GateActivation::kGeluTanh;
}

/// Moves the wanted rows of each slice together, in order: to[i] = from[row of i]. The buffers may
/// be the same, since a row never moves backwards past one that is still needed.
void GatherRows(const Batch& batch, std::span<const WantedRows> wanted, size_t width,
                const float* from, float* to) {
  size_t next = 0;
  for (size_t s = 0; s < wanted.size(); ++s) {
    const size_t first = batch.slices[s].first_row + wanted[s].begin;
    const size_t count = wanted[s].count();
    if (count > 0) {
      std::memmove(to + next * width, from + first * width, count * width * sizeof(float));
    }
    next += count;
  }
}

/// The inverse, from the last slice backwards so that from and to may be the same.
void ScatterRows(const Batch& batch, std::span<const WantedRows> wanted, size_t width,
                 const float* from, float* to) {
  size_t next = 0;
  for (const WantedRows& w : wanted) next += w.count();
  for (size_t s = wanted.size(); s-- > 0;) {
    const size_t first = batch.slices[s].first_row + wanted[s].begin;
    const size_t count = wanted[s].count();
    next -= count;
    if (count > 0) {
      std::memmove(to + first * width, from + next * width, count * width * sizeof(float));
    }
  }
}

/// Whether there are layers that rotate by rope_local.
bool HasWindows(const ModelConfig& c) {
  return std::any_of(c.window.begin(), c.window.end(), [](int32_t w) { return w != 0; });
}

}  // namespace

size_t Model::ScratchBytes(const ModelConfig& config, const StepLimits& limits,
                           const Backend& backend) {
  return BufferSizes(config, limits).bytes() +
         backend.ScratchBytes(limits.max_rows, WidestInput(config), config.heads, config.head_dim,
                              limits.max_tokens);
}

Result<Model> Model::Create(ModelConfig config, ModelWeights weights, StepLimits limits,
                            Backend* backend) {
  Model m;
  m.config_ = std::move(config);
  m.weights_ = std::move(weights);
  m.limits_ = limits;
  m.backend_ = backend;
  const ModelConfig& c = m.config_;
  m.rope_ = RopeTable(c.rope);
  m.rope_local_ = RopeTable(c.rope_local);
  KV_RETURN_IF_ERROR(backend->ReserveScratch(limits.max_rows, WidestInput(c), c.heads, c.head_dim,
                                             limits.max_tokens));
  const BufferSizes sizes(c, limits);
  KV_ASSIGN(m.memory_, AlignedBuffer::Allocate(sizes.bytes(), MemoryOwner::kScratch,
                                               "the activations of a step"));
  float** const views[] = {&m.x_,         &m.held_,      &m.normed_,    &m.q_,   &m.k_,
                           &m.v_,         &m.attended_,  &m.projected_, &m.cos_, &m.sin_,
                           &m.cos_local_, &m.sin_local_, &m.logits_};
  float* next = m.memory_.as<float>();
  const auto all = sizes.all();
  for (size_t i = 0; i < all.size(); ++i) {
    *views[i] = next;
    next += BufferSizes::Padded(all[i]);
  }
  return m;
}

void Model::Embed(const Batch& batch) {
  if (weights_.embedding.rows == 0) {
    backend_->Embed(weights_.head, batch.tokens, config_.embedding_scale, x_);
    return;
  }
  const auto dim = static_cast<size_t>(config_.dim);
  for (size_t r = 0; r < batch.tokens.size(); ++r) {
    float* row = x_ + r * dim;
    Dequantize(weights_.embedding.dtype, weights_.embedding.row(batch.tokens[r]), {row, dim});
    if (config_.embedding_scale != 1) {
      for (size_t i = 0; i < dim; ++i) row[i] *= config_.embedding_scale;
    }
  }
}

void Model::RopeAppend(int32_t layer, const Batch& batch, const KvStorage& kv, bool with_queries) {
  const LayerWeights& w = weights_.layers[layer];
  const bool local = config_.window[layer] != 0;
  const RopeConfig& rope = local ? config_.rope_local : config_.rope;
  RopeAppendArgs args;
  args.batch = &batch;
  args.kv = &kv;
  args.layer = layer;
  args.heads = config_.heads;
  args.kv_heads = config_.kv_heads;
  args.head_dim = config_.head_dim;
  args.q = with_queries ? q_ : nullptr;
  args.k = k_;
  args.v = v_;
  args.q_stride = int64_t{config_.heads} * config_.head_dim;
  args.kv_stride = int64_t{config_.kv_heads} * config_.head_dim;
  args.q_norm = w.q_norm.empty() ? nullptr : w.q_norm.data();
  args.k_norm = w.k_norm.empty() ? nullptr : w.k_norm.data();
  args.norm_eps = config_.norm_eps;
  args.cos = local ? cos_local_ : cos_;
  args.sin = local ? sin_local_ : sin_;
  args.rope_dims = rope.dims;
  args.neox = rope.style == RopeStyle::kNeox;
  args.q_scale = config_.attention_scale;
  args.not_finite = not_finite_.data();
  backend_->RopeAppend(args);
}

void Model::Attend(int32_t layer, const Batch& batch, const KvStorage& kv,
                   const int32_t* first_wanted) {
  AttentionArgs args;
  args.batch = &batch;
  args.kv = &kv;
  args.layer = layer;
  args.heads = config_.heads;
  args.q = q_;
  args.out = attended_;
  args.q_stride = args.out_stride = int64_t{config_.heads} * config_.head_dim;
  args.first_wanted = first_wanted;
  if (first_wanted == nullptr) args.forward = forward_;
  backend_->Attention(args);
}

void Model::OutputProjection(const LayerWeights& w, const float* attended, int32_t rows, float* x) {
  const int64_t q_dim = int64_t{config_.heads} * config_.head_dim;
  if (!config_.post_norms) {
    const MatMulOutput out{&w.output.weight, w.output.bias_or_null(), x, config_.dim, true};
    backend_->MatMul(attended, q_dim, rows, {&out, 1});
    return;
  }
  const MatMulOutput out{&w.output.weight, w.output.bias_or_null(), projected_, config_.dim, false};
  backend_->MatMul(attended, q_dim, rows, {&out, 1});
  backend_->RmsNorm(projected_, rows, config_.dim, w.post_attention_norm.data(), config_.norm_eps,
                    x, true);
}

void Model::FeedForward(const LayerWeights& w, int32_t rows, float* x) {
  backend_->RmsNorm(x, rows, config_.dim, w.ffn_norm.data(), config_.norm_eps, normed_);
  FeedForwardArgs args;
  args.x = normed_;
  args.x_stride = config_.dim;
  args.rows = rows;
  args.gate = &w.gate.weight;
  args.up = &w.up.weight;
  args.gate_bias = w.gate.bias_or_null();
  args.up_bias = w.up.bias_or_null();
  args.activation = ToBackend(config_.activation);
  if (!config_.post_norms) {
    args.down = {&w.down.weight, w.down.bias_or_null(), x, config_.dim, true};
    backend_->FeedForward(args);
    return;
  }
  args.down = {&w.down.weight, w.down.bias_or_null(), projected_, config_.dim, false};
  backend_->FeedForward(args);
  backend_->RmsNorm(projected_, rows, config_.dim, w.post_ffn_norm.data(), config_.norm_eps, x,
                    true);
}

void Model::AttentionBlock(int32_t layer, const Batch& batch, const KvStorage& kv) {
  const LayerWeights& w = weights_.layers[layer];
  const int32_t rows = batch.rows();
  const int64_t q_dim = int64_t{config_.heads} * config_.head_dim;
  const int64_t kv_dim = int64_t{config_.kv_heads} * config_.head_dim;
  backend_->RmsNorm(x_, rows, config_.dim, w.attention_norm.data(), config_.norm_eps, normed_);
  const MatMulOutput qkv[] = {{&w.q.weight, w.q.bias_or_null(), q_, q_dim, false},
                              {&w.k.weight, w.k.bias_or_null(), k_, kv_dim, false},
                              {&w.v.weight, w.v.bias_or_null(), v_, kv_dim, false}};
  backend_->MatMul(normed_, config_.dim, rows, qkv);
  RopeAppend(layer, batch, kv, true);
  Attend(layer, batch, kv, nullptr);
  OutputProjection(w, attended_, rows, x_);
}

/// The last layer: K and V of every row, the rest of the wanted rows only. Leaves the residual
/// stream of the wanted rows at the front of x_.
void Model::LastAttentionBlock(const Batch& batch, std::span<const WantedRows> wanted,
                               const KvStorage& kv) {
  const int32_t layer = config_.layers - 1;
  const LayerWeights& w = weights_.layers[layer];
  const int64_t q_dim = int64_t{config_.heads} * config_.head_dim;
  const int64_t kv_dim = int64_t{config_.kv_heads} * config_.head_dim;
  backend_->RmsNorm(x_, batch.rows(), config_.dim, w.attention_norm.data(), config_.norm_eps,
                    normed_);
  const MatMulOutput kv_out[] = {{&w.k.weight, w.k.bias_or_null(), k_, kv_dim, false},
                                 {&w.v.weight, w.v.bias_or_null(), v_, kv_dim, false}};
  backend_->MatMul(normed_, config_.dim, batch.rows(), kv_out);

  int32_t count = 0;
  for (const WantedRows& r : wanted) count += r.count();
  if (count == 0) {
    RopeAppend(layer, batch, kv, false);
    return;
  }
  GatherRows(batch, wanted, config_.dim, normed_, normed_);
  const MatMulOutput q_out{&w.q.weight, w.q.bias_or_null(), q_, q_dim, false};
  backend_->MatMul(normed_, config_.dim, count, {&q_out, 1});
  // Back to the rows' own places: rotation and attention go by the row's position.
  ScatterRows(batch, wanted, q_dim, q_, q_);
  RopeAppend(layer, batch, kv, true);
  first_wanted_.clear();
  for (size_t s = 0; s < wanted.size(); ++s) {
    first_wanted_.push_back(wanted[s].count() > 0 ? wanted[s].begin : batch.slices[s].rows);
  }
  Attend(layer, batch, kv, first_wanted_.data());
  GatherRows(batch, wanted, q_dim, attended_, attended_);
  GatherRows(batch, wanted, config_.dim, x_, x_);
  OutputProjection(w, attended_, count, x_);
}

std::span<float> Model::Forward(const Batch& batch, std::span<const WantedRows> wanted,
                                const KvStorage& kv, LayerRange last) {
  CHECK_LE(batch.rows(), limits_.max_rows);
  CHECK_EQ(wanted.size(), batch.slices.size());
  forward_ = ++last_forward;
  not_finite_.assign(static_cast<size_t>(batch.rows()), 0);
  const bool whole = last.first == 0 && last.count == 0;
  const int32_t end = last.count == 0 ? config_.layers : last.first + last.count;
  CHECK(last.first >= 0 && last.first < end && end <= config_.layers);
  // What passes through the layers that the last slice does not: all but its rows.
  Batch others = batch;
  std::span<const WantedRows> others_wanted = wanted;
  const auto dim = static_cast<size_t>(config_.dim);
  float* rows = nullptr;  // of the last slice, at the end of x_
  size_t bytes = 0;
  if (!whole) {
    const BatchSlice& slice = batch.slices.back();
    CHECK_EQ(slice.first_row + slice.rows, batch.rows());
    CHECK_LE(slice.rows, limits_.max_layered_rows);
    CHECK(end == config_.layers || wanted.back().count() == 0);
    others.tokens = batch.tokens.first(slice.first_row);
    others.positions = batch.positions.first(slice.first_row);
    others.slices = batch.slices.first(batch.slices.size() - 1);
    others.table_slices = static_cast<int32_t>(batch.slices.size());
    others_wanted = wanted.first(wanted.size() - 1);
    rows = x_ + slice.first_row * dim;
    bytes = slice.rows * dim * sizeof(float);
  }
  const auto at_layer = [&](int32_t layer) -> const Batch& {
    return layer >= last.first && layer < end ? batch : others;
  };

  rope_.Fill(batch.positions, cos_, sin_);
  if (HasWindows(config_)) rope_local_.Fill(batch.positions, cos_local_, sin_local_);
  Embed(at_layer(0));
  if (last.first > 0) std::memcpy(rows, held_, bytes);
  for (int32_t layer = 0; layer + 1 < config_.layers; ++layer) {
    const Batch& b = at_layer(layer);
    if (b.rows() == 0) continue;
    AttentionBlock(layer, b, kv);
    FeedForward(weights_.layers[layer], b.rows(), x_);
    if (layer + 1 == end) std::memcpy(held_, rows, bytes);
  }
  const Batch& b = at_layer(config_.layers - 1);
  const std::span<const WantedRows> b_wanted = end == config_.layers ? wanted : others_wanted;
  if (b.rows() == 0) return {};
  int32_t count = 0;
  for (const WantedRows& r : b_wanted) count += r.count();
  CHECK_LE(count, limits_.max_logit_rows);
  LastAttentionBlock(b, b_wanted, kv);
  if (count == 0) return {};
  FeedForward(weights_.layers.back(), count, x_);
  backend_->RmsNorm(x_, count, config_.dim, weights_.output_norm.data(), config_.norm_eps, normed_);
  const MatMulOutput head{&weights_.head, nullptr, logits_, config_.vocab, false};
  backend_->MatMul(normed_, config_.dim, count, {&head, 1});
  return {logits_, static_cast<size_t>(count) * config_.vocab};
}

}  // namespace kvasir
