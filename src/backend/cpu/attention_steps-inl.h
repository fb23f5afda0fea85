// What the kernels of scalar::kTileAttention's arithmetic have in common, in AVX-512: included once
// by each inside its own namespace, where kTileRow and kWholeTile are (tiles.h). No include guard.

#define KV_INLINE inline __attribute__((always_inline))

constexpr size_t kRestBytes = 16384;
constexpr int kTiles = kStepTokens / 16;  // of a step
/// Bytes of the queries' operands: of 16 rows, and of all rows until the next channels.
constexpr size_t kQueryGroup = 16 * kTileRow, kQueryChunk = kSplitRows * kTileRow;

/// Everything of one call that does not change.
struct Split {
  const SplitArgs& a;
  float* scores;  // [kStepTokens / 16][capacity][16]; the weights of 32 tokens as bf16, in rows of
                  // 64 bytes, take the place of the first 16 scores
  float* sums;    // [kSplitRows][16] lanes of l
  uint8_t* gathered;             // four tiles of V in turn
  uint8_t* rest;                 // kRestBytes of scratch
  int capacity;                  // rows of a tile of scores: 16 or kSplitRows
  int first, second;             // rows of the two groups of at most 16
  int common_begin, common_end;  // what all rows attend to that attend to something
};

/// A step: at most kStepTokens tokens of the split that some row attends to.
struct Step {
  int begin, end;                      // tokens of the split
  int first_tile, last_tile;           // of 16 tokens, half-open
  bool first;                          // of the split
  const uint8_t* k[kTiles];            // of each tile of 16 tokens
  const uint8_t* v[kStepTokens / 32];  // of each 32 tokens, null where they must be gathered
};

inline float* ScoresAt(const Split& s, int tile, int row) {
  return s.scores + (static_cast<size_t>(tile % kTiles) * s.capacity + row) * 16;
}

inline int Least(int a, int b) { return a < b ? a : b; }
inline int Most(int a, int b) { return a > b ? a : b; }

/// Which of the 16 tokens from `at` lie in [begin, end).
inline __mmask16 Inside(int begin, int end, int at) {
  const int from = Least(Most(begin - at, 0), 16), to = Least(Most(end - at, 0), 16);
  return static_cast<__mmask16>((1u << to) - (1u << from)) & (to > from ? 0xffffu : 0u);
}

/// -(m log2 e); 0 where nothing was attended to yet.
inline float ShiftOf(float m) { return m == -__builtin_inff() ? 0.0f : -(m * kLog2E); }

inline __m512 Pow2(__m512 t) {
  const __m512 r = _mm512_reduce_ps(t, 0x09);  // t - floor(t)
  __m512 q = _mm512_fmadd_ps(_mm512_set1_ps(kPow2c), r, _mm512_set1_ps(kPow2b));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(kPow2a));
  return _mm512_scalef_ps(_mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f)), t);
}

/// Scores that a row does not attend to become -inf, in tiles that not all rows attend to wholly,
/// up to the next multiples of kUnit tiles.
template <int kUnit>
void Mask(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  const int to = (step.last_tile + kUnit - 1) / kUnit * kUnit;
  for (int tile = step.first_tile / kUnit * kUnit; tile < to; ++tile) {
    if (tile * 16 >= s.common_begin && tile * 16 + 16 <= s.common_end) continue;
    for (int r = 0; r < a.rows; ++r)
      _mm512_mask_store_ps(ScoresAt(s, tile, r),
                           _knot_mask16(Inside(a.begin[r], a.end[r], tile * 16)), none);
  }
}

Split Begin(const SplitArgs& a) {
  auto* scores = reinterpret_cast<float*>(a.scratch);
  float* sums = scores + static_cast<size_t>(kSplitRows) * kStepTokens;
  Split s = {.a = a,
             .scores = scores,
             .sums = sums,
             .gathered = reinterpret_cast<uint8_t*>(sums + kSplitRows * 16),
             .rest = reinterpret_cast<uint8_t*>(sums + kSplitRows * 16) + 4 * kWholeTile,
             .capacity = a.rows <= 16 ? 16 : kSplitRows,
             .first = Least(a.rows, 16),
             .second = Most(a.rows - 16, 0),
             .common_begin = a.least,
             .common_end = a.most};
  for (int r = a.rows; r < kSplitRows; ++r) a.m[r] = -__builtin_inff();
  for (int r = 0; r < a.rows; ++r) {
    a.m[r] = -__builtin_inff();
    _mm512_store_ps(s.sums + r * 16, _mm512_setzero_ps());
    if (a.begin[r] >= a.end[r]) continue;
    s.common_begin = Most(s.common_begin, a.begin[r]);
    s.common_end = Least(s.common_end, a.end[r]);
  }
  return s;
}

/// l of all rows from its lanes, added in halves: 8, 4, 2, 1.
void AddLanes(const Split& s) {
  for (int r = 0; r < s.a.rows; ++r) {
    const __m512 lanes = _mm512_load_ps(s.sums + r * 16);
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    s.a.l[r] = _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
}

/// Into the second level cache, as the vector kernels do: a step ahead. Of int8 the scales too,
/// whose lines lie alone. Decoding 8 sequences after 8,192 tokens of int8 takes 3.7 to 4.2 ms, 4.6
/// without those of the scales, in f32 5.1 (2 threads, EPYC with AVX-512, 2026-11-27; 512 tokens
/// there 135 ms instead of 222).
/// (GCC takes a function that does nothing else for one without effect: always_inline keeps it.)
KV_INLINE void Prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
}

/// A tile of the split, or of what is computed after it: its block, null where nothing is known of
/// it, and where it begins there.
struct Soon {
  const SplitBlocks* of;
  const uint8_t* block;
  size_t in_block;  // tokens
};
inline Soon SoonAt(const SplitArgs& a, int tile) {
  const SplitBlocks* of = &a.kv;
  int t = tile * 16;
  if (t >= a.most) {
    of = &a.after;
    t += a.after_begin / 16 * 16 - (a.most + 15) / 16 * 16;
    if (t >= a.after_end) return {of, nullptr, 0};
  }
  return {of, of->blocks[t / a.block_tokens], static_cast<size_t>(t % a.block_tokens)};
}

/// Four bytes in all lanes.
KV_INLINE __m512i Quad(const uint8_t* p) {
  int32_t bytes;
  __builtin_memcpy(&bytes, p, 4);
  return _mm512_set1_epi32(bytes);
}
