#include <algorithm>
#include <cstring>
#include <limits>

#include "backend/cpu/attention_kernels.h"
#include "base/checked.h"
#include "kv/layout.h"

namespace kvasir {
namespace {

void Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  std::memcpy(to, q, static_cast<size_t>(rows) * head_dim_padded * sizeof(float));
}

template <KvDType T>
void Scores(const SplitArgs& a, float* scores) {
  constexpr int32_t kTiles = ScoreArgs::kMaxTiles;
  constexpr size_t kElement = T == KvDType::kF32 ? 4 : T == KvDType::kInt8 ? 1 : 2;
  ScoreArgs s;
  s.channels = a.channels;
  s.q = reinterpret_cast<const float*>(a.q);
  s.q_stride = a.head_dim_padded;
  s.rows = a.rows;
  s.out_stride = kSplitTokens;
  const size_t tile_bytes = size_t{16} * static_cast<size_t>(a.head_dim_padded) * kElement;
  const auto tile = [&](int32_t t, size_t offset) {
    return a.kv.blocks[t / a.block_tokens] + offset + t % a.block_tokens / 16 * tile_bytes;
  };
  const auto k_tile = [&](int32_t t) { return tile(t, a.kv.k_offset); };
  const int32_t first = a.least / 16 * 16;
  for (int32_t t = first; t < a.most; t += kTiles * 16) {
    s.tiles = std::min(kTiles, static_cast<int32_t>(DivUp(a.most - t, 16)));
    for (int32_t i = 0; i < s.tiles; ++i) {
      const int32_t at = t + i * 16, later = at + kTiles * 16;
      s.k[i] = k_tile(at);
      // After the last of K comes the first of V, whose tiles are as large.
      s.soon[i] = later < a.most            ? k_tile(later)
                  : first + i * 16 < a.most ? tile(first + i * 16, a.kv.v_offset)
                                            : nullptr;
      if constexpr (T == KvDType::kInt8) {
        s.k_scale[i] =
            reinterpret_cast<const float*>(a.kv.blocks[at / a.block_tokens] + a.kv.k_scale_offset) +
            at % a.block_tokens;
      }
    }
    s.out = scores + t;
    a.vector->score[static_cast<size_t>(T)](s);
  }
}

/// Weighted values of rows [row, row + count) over tokens [from, to).
template <KvDType T>
void AddValues(const SplitArgs& a, const float* p, int32_t row, int32_t count, int32_t from,
               int32_t to) {
  ValueArgs v;
  v.block_tokens = a.block_tokens;
  v.head_dim_padded = a.head_dim_padded;
  v.p_stride = kSplitTokens;
  v.rows = count;
  v.acc = a.acc + static_cast<size_t>(row) * a.head_dim_padded;
  for (int32_t t = from; t < to;) {
    const int32_t in_block = t % a.block_tokens;
    const int32_t next = std::min(to, t + a.block_tokens - in_block);
    const uint8_t* block = a.kv.blocks[t / a.block_tokens];
    v.v = block + a.kv.v_offset;
    // After the last of V comes the first K of another split, which is as large.
    const uint8_t* after = a.after.blocks[a.after_begin / a.block_tokens];
    v.soon = next < to          ? a.kv.blocks[next / a.block_tokens] + a.kv.v_offset
             : after != nullptr ? after + a.after.k_offset
                                : nullptr;
    if constexpr (T == KvDType::kInt8)
      v.v_scale = reinterpret_cast<const float*>(block + a.kv.v_scale_offset);
    v.begin = in_block;
    v.end = in_block + next - t;
    v.p = p + static_cast<size_t>(row) * kSplitTokens + t - in_block;
    a.vector->value[static_cast<size_t>(T)](v);
    t = next;
  }
}

template <KvDType T>
void Split(const SplitArgs& a) {
  auto* const scores = reinterpret_cast<float*>(a.scratch);  // [kSplitRows][kSplitTokens]
  Scores<T>(a, scores);
  int32_t common_begin = 0, common_end = kSplitTokens;
  for (int32_t r = 0; r < a.rows; ++r) {
    a.m[r] = -std::numeric_limits<float>::infinity();
    a.l[r] = 0;
    if (a.begin[r] < a.end[r]) {
      a.vector->softmax(scores + static_cast<size_t>(r) * kSplitTokens, a.begin[r], a.end[r],
                        &a.m[r], &a.l[r]);
    }
    common_begin = std::max(common_begin, a.begin[r]);
    common_end = std::min(common_end, a.end[r]);
  }
  std::memset(a.acc, 0, static_cast<size_t>(a.rows) * a.head_dim_padded * sizeof(float));
  // What every row attends to is read once for all; the edges row by row, still in order of tokens.
  if (common_begin >= common_end) {
    for (int32_t r = 0; r < a.rows; ++r) AddValues<T>(a, scores, r, 1, a.begin[r], a.end[r]);
    return;
  }
  for (int32_t r = 0; r < a.rows; ++r) AddValues<T>(a, scores, r, 1, a.begin[r], common_begin);
  AddValues<T>(a, scores, 0, a.rows, common_begin, common_end);
  for (int32_t r = 0; r < a.rows; ++r) AddValues<T>(a, scores, r, 1, common_end, a.end[r]);
}

}  // namespace

const AttentionKernels kFloatAttention = {{{Queries, Split<KvDType::kF32>},
                                           {Queries, Split<KvDType::kF16>},
                                           {Queries, Split<KvDType::kBF16>},
                                           {Queries, Split<KvDType::kInt8>}}};

}  // namespace kvasir
