// Attention to int8 K and V in exact integers (scalar::kTileAttention), all but the products:
// included by those of AMX and of AVX-512 after attention_steps-inl.h. No include guard.

constexpr int kUnit = 4;  // tiles of 16 tokens in a product of weights and values

/// Scratch of a split beyond what all kernels have.
struct Rest {
  int32_t sums[2][4][16 * 16];  // AMX: high and low sums of both groups of rows, two in turn
  float step_m[kSplitRows];     // maximum of this step's scores
  float keep[kSplitRows];       // what the sums so far are taken times
  float take[kSplitRows];       // and this step's
  float unit[kSplitRows];       // of the integer sums of values, `take` included
  float ratio[kStepTokens];     // v's scales as parts of kInt8Weight
};
static_assert(sizeof(Rest) <= kRestBytes);

inline Rest& RestOf(const Split& s) { return *reinterpret_cast<Rest*>(s.rest); }

inline const float* ScalesAt(const SplitArgs& a, size_t offset, int tile) {
  const int t = tile * 16;
  return reinterpret_cast<const float*>(a.kv.blocks[t / a.block_tokens] + offset) +
         t % a.block_tokens;
}

/// K of tile `tile`: [channel / 4][16 tokens][4].
inline const uint8_t* KTile(const SplitArgs& a, int tile) {
  const int t = tile * 16;
  return a.kv.blocks[t / a.block_tokens] + a.kv.k_offset +
         static_cast<size_t>(t % a.block_tokens / 16) * static_cast<size_t>(a.head_dim_padded) * 16;
}

/// Exact products of row r's query with 16 keys become scores.
inline void StoreScore(const Split& s, int tile, int r, __m512 sums, __m512 k_scale) {
  const SplitArgs& a = s.a;
  const auto* scales = reinterpret_cast<const float*>(a.q + 2 * Int8QueryBytes(a.head_dim_padded));
  const __m512 x = _mm512_mul_ps(sums, _mm512_set1_ps(scales[r]));
  _mm512_store_ps(ScoresAt(s, tile, r), _mm512_mul_ps(x, k_scale));
}

/// The largest of v's scales in [begin, end) of a step, a NaN if there is one: scales are not
/// negative, so that their bits are in order.
float LargestScale(const SplitArgs& a, int begin, int end) {
  __m512i most = _mm512_setzero_si512();
  for (int tile = begin / 16; tile * 16 < end; ++tile) {
    const __m512i x = _mm512_loadu_si512(ScalesAt(a, a.kv.v_scale_offset, tile));
    most = _mm512_mask_max_epu32(most, Inside(begin, end, tile * 16), x, most);
  }
  return _mm_cvtss_f32(
      _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(_mm512_reduce_max_epu32(most)))));
}

inline float WeightsPerScale(float largest) {
  const float inverse = largest > 0 ? kInt8Weight / largest : 0.0f;
  return inverse <= 3.0e38f ? inverse : 0.0f;
}

/// Maxima of the step's scores, and how its results and those so far come together.
void Maxima(const Split& s, int from, int to) {
  const SplitArgs& a = s.a;
  Rest& rest = RestOf(s);
  const __m512 none = _mm512_set1_ps(-__builtin_inff()), scale = _mm512_set1_ps(kLog2E);
  for (int r = 0; r < kSplitRows; r += 16) _mm512_store_ps(rest.step_m + r, none);
  for (int r = 0; r < a.rows; ++r) {
    __m512 most = none;  // no NaN comes in: the second operand is taken where one is
    for (int tile = from; tile < to; ++tile)
      most = _mm512_max_ps(_mm512_load_ps(ScoresAt(s, tile, r)), most);
    rest.step_m[r] = _mm512_reduce_max_ps(most);
  }
  for (int r = 0; r < a.rows; r += 16) {
    const __m512 step = _mm512_load_ps(rest.step_m + r), before = _mm512_loadu_ps(a.m + r);
    const __m512 m = _mm512_max_ps(step, before);
    const __mmask16 some = _mm512_cmp_ps_mask(m, none, _CMP_GT_OQ);
    const auto factor = [&](__m512 of) {
      return _mm512_maskz_mov_ps(some, Pow2(_mm512_mul_ps(_mm512_sub_ps(of, m), scale)));
    };
    _mm512_store_ps(rest.keep + r, factor(before));
    _mm512_store_ps(rest.take + r, factor(step));
    _mm512_storeu_ps(a.m + r, m);
  }
}

/// Bytes of 64 weights in order: high ones, then low ones.
struct WeightBytes {
  __m512i high, low;
};

inline WeightBytes BytesOf(const __m512i (&w)[kUnit]) {
  // Packing works within 128 bits: then the fours of the vectors are brought in order.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i x = _mm512_packus_epi32(w[0], w[1]), y = _mm512_packus_epi32(w[2], w[3]);
  const __m512i low = _mm512_set1_epi16(255);
  return {_mm512_permutexvar_epi32(
              order, _mm512_packus_epi16(_mm512_srli_epi16(x, 8), _mm512_srli_epi16(y, 8))),
          _mm512_permutexvar_epi32(
              order, _mm512_packus_epi16(_mm512_and_si512(x, low), _mm512_and_si512(y, low)))};
}

/// Scores of a step become weights: those of 64 tokens two rows of 64 bytes, in the places of the
/// first 32 scores.
void Weights(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  Rest& rest = RestOf(s);
  const int from = step.first_tile / kUnit * kUnit;
  const int to = (step.last_tile + kUnit - 1) / kUnit * kUnit;
  const bool same = step.begin >= s.common_begin && step.end <= s.common_end;
  if (!same || step.begin != from * 16 || step.end != to * 16) Mask<kUnit>(s, step);
  Maxima(s, from, to);
  const __m512 scale = _mm512_set1_ps(kLog2E);
  for (int r = 0; r < a.rows; ++r) {
    if (r == 0 || !same) {
      const int begin = Most(a.begin[r], step.begin), end = Least(a.end[r], step.end);
      const float largest = LargestScale(a, begin, end);
      const __m512 per_scale = _mm512_set1_ps(WeightsPerScale(largest));
      for (int tile = step.first_tile; tile < step.last_tile; ++tile) {
        const __m512 x = _mm512_loadu_ps(ScalesAt(a, a.kv.v_scale_offset, tile));
        _mm512_store_ps(rest.ratio + tile % kTiles * 16, _mm512_mul_ps(x, per_scale));
      }
      rest.unit[r] = largest / kInt8Weight;
    } else {
      rest.unit[r] = rest.unit[0];
    }
    const __m512 shift = _mm512_set1_ps(ShiftOf(rest.step_m[r]));
    __m512 sum = _mm512_setzero_ps();
    for (int tile = from; tile < to; tile += kUnit) {
      __m512i w[kUnit];
#pragma GCC unroll 4
      for (int i = 0; i < kUnit; ++i) {
        const __m512 p =
            Pow2(_mm512_fmadd_ps(_mm512_load_ps(ScoresAt(s, tile + i, r)), scale, shift));
        sum = _mm512_add_ps(sum, p);
        w[i] = _mm512_cvtps_epi32(
            _mm512_mul_ps(p, _mm512_load_ps(rest.ratio + (tile + i) % kTiles * 16)));
      }
      const WeightBytes bytes = BytesOf(w);
      _mm512_store_si512(ScoresAt(s, tile, r), bytes.high);
      _mm512_store_si512(ScoresAt(s, tile + 1, r), bytes.low);
    }
    const __m512 before =
        _mm512_mul_ps(_mm512_load_ps(s.sums + r * 16), _mm512_set1_ps(rest.keep[r]));
    _mm512_store_ps(s.sums + r * 16, _mm512_fmadd_ps(sum, _mm512_set1_ps(rest.take[r]), before));
  }
  for (int r = 0; r < a.rows; ++r) rest.unit[r] *= rest.take[r];
}

/// The B tile of V of 64 tokens and 16 channels: where it lies, or gathered from several blocks.
/// What is stale in it is taken times 0.
inline const uint8_t* VTile(const Split& s, int first_tile, int group) {
  const SplitArgs& a = s.a;
  const int t = first_tile * 16;
  const size_t group_bytes = static_cast<size_t>(a.block_tokens) * 16;
  if (a.block_tokens >= 64) {
    return a.kv.blocks[t / a.block_tokens] + a.kv.v_offset + group * group_bytes +
           static_cast<size_t>(t % a.block_tokens) * 16;
  }
  uint8_t* const to = s.gathered + first_tile / kUnit % 4 * kWholeTile;
  const int bytes = a.block_tokens * 16;  // of one block
  for (int at = 0; at < static_cast<int>(kWholeTile); at += bytes) {
    const uint8_t* block = a.kv.blocks[(t + at / 16) / a.block_tokens];
    for (int i = 0; i < bytes; i += 64) {
      const __m512i v = block == nullptr
                            ? _mm512_setzero_si512()
                            : _mm512_loadu_si512(block + a.kv.v_offset + group * group_bytes + i);
      _mm512_store_si512(to + at + i, v);
    }
  }
  return to;
}

/// K of the tile a step after `tile`, whose scales are prefetched; null where not known.
KV_INLINE const uint8_t* KSoon(const SplitArgs& a, int tile) {
  const Soon soon = SoonAt(a, tile + kTiles);
  if (soon.block == nullptr) return nullptr;
  Prefetch(soon.block + soon.of->k_scale_offset + soon.in_block * sizeof(float));
  Prefetch(soon.block + soon.of->v_scale_offset + soon.in_block * sizeof(float));
  return soon.block + soon.of->k_offset + soon.in_block * static_cast<size_t>(a.head_dim_padded);
}

/// V of tile `tile` and 16 channels a step later, four lines; null where not known.
inline const uint8_t* VSoon(const SplitArgs& a, int tile, int group) {
  const Soon soon = SoonAt(a, tile + kTiles);
  if (soon.block == nullptr) return nullptr;
  const size_t before = static_cast<size_t>(group * a.block_tokens) + soon.in_block;
  return soon.block + soon.of->v_offset + before * 16;
}

/// Takes 16 channels of the step's values, as exact sums, into the sums of row r.
inline void AddValue(const Split& s, const Step& step, int group, int r, __m512 sums) {
  const SplitArgs& a = s.a;
  const Rest& rest = RestOf(s);
  if (a.begin[r] >= step.end || a.end[r] <= step.begin) return;
  float* acc = a.acc + static_cast<size_t>(r) * a.head_dim_padded + group * 16;
  const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(acc), _mm512_set1_ps(rest.keep[r]));
  _mm512_storeu_ps(acc, _mm512_fmadd_ps(sums, _mm512_set1_ps(rest.unit[r]), before));
}

/// Calls scores, weights and values for each step of the split.
template <typename Scores, typename Values>
inline void EachStep(const Split& s, const Scores& scores, const Values& values) {
  const SplitArgs& a = s.a;
  for (int64_t i = 0; i < int64_t{a.rows} * a.head_dim_padded; i += 16)
    _mm512_storeu_ps(a.acc + i, _mm512_setzero_ps());
  for (int at = a.least / kStepTokens * kStepTokens; at < a.most; at += kStepTokens) {
    Step step = {};
    step.begin = Most(a.least, at);
    step.end = Least(a.most, at + kStepTokens);
    step.first_tile = step.begin / 16;
    step.last_tile = (step.end + 15) / 16;
    scores(step);
    Weights(s, step);
    values(step);
  }
  AddLanes(s);
}

/// `flip`: on the high bytes. 0x80 makes them unsigned, 128 larger.
inline void PackQueries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to,
                        uint8_t flip) {
  const size_t bytes = Int8QueryBytes(head_dim_padded);
  auto* scales = reinterpret_cast<float*>(to + 2 * bytes);
  for (int32_t r = 0; r < rows; ++r, q += head_dim_padded) {
    __m512i bits = _mm512_setzero_si512();  // of the largest absolute value; NaN is above all
    for (int32_t c = 0; c < head_dim_padded; c += 16)
      bits = _mm512_max_epu32(
          bits, _mm512_and_si512(_mm512_loadu_si512(q + c), _mm512_set1_epi32(0x7fffffff)));
    const unsigned most = _mm512_reduce_max_epu32(bits);
    const float largest =
        _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(most))));
    const bool finite = most < 0x7f800000u;
    float inverse = finite && largest > 0 ? kInt8Query / largest : 0.0f;
    if (!(inverse <= 3.0e38f)) inverse = 0;
    scales[r] = finite ? largest / kInt8Query : __builtin_nanf("");
    for (int32_t c = 0; c < head_dim_padded; c += 16) {
      const __m512 x = finite ? _mm512_loadu_ps(q + c) : _mm512_setzero_ps();
      const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
      uint8_t* at = to + static_cast<size_t>(c / 64 * kSplitRows + r) * 64 + c % 64;
      const __m128i high = _mm512_cvtepi32_epi8(_mm512_srai_epi32(v, 8));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                       _mm_xor_si128(high, _mm_set1_epi8(static_cast<char>(flip))));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + bytes), _mm512_cvtepi32_epi8(v));
    }
  }
}
