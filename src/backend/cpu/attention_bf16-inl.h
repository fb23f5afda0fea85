// What the kernels of bf16 in scalar::kTileAttention's and kPairAttention's arithmetic have in
// common: included once by each inside its own namespace, after attention_steps-inl.h. No include
// guard.

void Bf16Queries(const float* q, int32_t rows, int32_t head_dim_padded, uint8_t* to) {
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t c = 0; c < head_dim_padded; c += 16) {
      const __m512 x = _mm512_loadu_ps(q + static_cast<size_t>(r) * head_dim_padded + c);
      const size_t at = static_cast<size_t>(c / 32 * kSplitRows + r) * 32 + c % 32;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at * 2),
                          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
    }
  }
}

inline const uint8_t* Bf16KTile(const SplitArgs& a, int tile) {
  const int t = tile * 16;
  return a.kv.blocks[t / a.block_tokens] + a.kv.k_offset +
         static_cast<size_t>(t % a.block_tokens / 16) * a.head_dim_padded * 32;
}

/// Bytes of K of 16 tokens.
inline size_t Bf16KTileBytes(const SplitArgs& a) {
  return static_cast<size_t>(a.head_dim_padded) * 32;
}

/// K of the tile a step after `tile`, to be prefetched; null where not known.
inline const uint8_t* Bf16KSoon(const SplitArgs& a, int tile) {
  const Soon soon = SoonAt(a, tile + kTiles);
  if (soon.block == nullptr) return nullptr;
  return soon.block + soon.of->k_offset + soon.in_block / 16 * Bf16KTileBytes(a);
}

/// The same for V of the 32 tokens of `chunk` and the 16 channels of `group`.
inline const uint8_t* Bf16VSoon(const SplitArgs& a, int chunk, int group) {
  const Soon soon = SoonAt(a, 2 * chunk + kTiles);
  if (soon.block == nullptr || a.block_tokens < 32) return nullptr;
  const size_t before = static_cast<size_t>(group * a.block_tokens) + soon.in_block;
  return soon.block + soon.of->v_offset + before * 32;
}

/// A row's maximum has risen: what was summed up so far is taken down to the new one.
void Raise(const Split& s, int row, float to) {
  const SplitArgs& a = s.a;
  const float from = a.m[row];
  a.m[row] = to;
  if (from == -__builtin_inff()) return;
  const __m512 factor = Pow2(
      _mm512_fmadd_ps(_mm512_set1_ps(from), _mm512_set1_ps(kLog2E), _mm512_set1_ps(ShiftOf(to))));
  float* sums = s.sums + row * 16;
  _mm512_store_ps(sums, _mm512_mul_ps(_mm512_load_ps(sums), factor));
  float* acc = a.acc + static_cast<size_t>(row) * a.head_dim_padded;
  for (int c = 0; c < a.head_dim_padded; c += 16)
    _mm512_storeu_ps(acc + c, _mm512_mul_ps(_mm512_loadu_ps(acc + c), factor));
}

/// Scores of a step become weights, `kChunks` times 32 of a row (0: as many as there are).
template <int kChunks>
void Weights(const Split& s, const Step& step) {
  const SplitArgs& a = s.a;
  const int chunks = kChunks > 0 ? kChunks : (step.last_tile + 1) / 2 - step.first_tile / 2;
  const size_t next = static_cast<size_t>(s.capacity) * 16;
  float* const scores = ScoresAt(s, step.first_tile / 2 * 2, 0);
  const __m512 none = _mm512_set1_ps(-__builtin_inff());
  // All maxima first: a row's weights would wait for its own.
  for (int r = 0; r < a.rows; ++r) {
    const float* at = scores + r * 16;
    __m512 most = none;  // no NaN comes in: the second operand is taken where one is
#pragma GCC unroll 8
    for (int i = 0; i < 2 * chunks; ++i) most = _mm512_max_ps(_mm512_load_ps(at + i * next), most);
    if (_mm512_cmp_ps_mask(most, _mm512_set1_ps(a.m[r] + kRaise), _CMP_GT_OQ) != 0)
      Raise(s, r, _mm512_reduce_max_ps(most));
  }
  const __m512 scale = _mm512_set1_ps(kLog2E);
  for (int r = 0; r < a.rows; ++r) {
    float* at = scores + r * 16;
    const __m512 shift = _mm512_set1_ps(ShiftOf(a.m[r]));
    __m512 sum = _mm512_load_ps(s.sums + r * 16);
#pragma GCC unroll 4
    for (int i = 0; i < chunks; ++i, at += 2 * next) {
      const __m512 p = Pow2(_mm512_fmadd_ps(_mm512_load_ps(at), scale, shift));
      const __m512 q = Pow2(_mm512_fmadd_ps(_mm512_load_ps(at + next), scale, shift));
      sum = _mm512_add_ps(_mm512_add_ps(sum, p), q);
      _mm512_store_si512(at, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(q, p)));
    }
    _mm512_store_ps(s.sums + r * 16, sum);
  }
}

/// 32 tokens and 16 channels of V gathered from two blocks, with zeros for what no row attends to
/// (it may be stale, or not there).
void GatherBf16V(const Split& s, int chunk, int group, uint8_t* to) {
  const SplitArgs& a = s.a;
  const int t = chunk * 32;
  for (int pair = t; pair < t + 32; pair += 2, to += kTileRow) {
    const unsigned even = pair >= a.least && pair < a.most ? 0xffffu : 0;
    const unsigned odd = pair + 1 >= a.least && pair + 1 < a.most ? 0xffff0000u : 0;
    __m512i v = _mm512_setzero_si512();
    if ((even | odd) != 0) {
      const size_t at = static_cast<size_t>(group * a.block_tokens + pair % a.block_tokens) * 32;
      v = _mm512_loadu_si512(a.kv.blocks[pair / a.block_tokens] + a.kv.v_offset + at);
      v = _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(even | odd)));
    }
    _mm512_store_si512(to, v);
  }
}

void FindBf16(const SplitArgs& a, Step& step) {
  for (int tile = step.first_tile; tile < step.last_tile; ++tile)
    step.k[tile % kTiles] = Bf16KTile(a, tile);
  for (int chunk = step.first_tile / 2; chunk * 2 < step.last_tile; ++chunk) {
    const int t = chunk * 32;
    const bool whole = t >= a.least && t + 32 <= a.most && a.block_tokens >= 32;
    step.v[chunk % (kStepTokens / 32)] = whole ? a.kv.blocks[t / a.block_tokens] + a.kv.v_offset +
                                                     static_cast<size_t>(t % a.block_tokens) * 32
                                               : nullptr;
  }
}

/// Whether V is not finite in 32 tokens that some rows attend to and others do not: 0 times it
/// would not be 0.
bool NotFiniteAtEdges(const Split& s) {
  const SplitArgs& a = s.a;
  const __m512i exponents = _mm512_set1_epi16(0x7f80);
  __mmask32 bad = 0;
  for (int chunk = a.least / 32; chunk < (a.most + 31) / 32; ++chunk) {
    const int from = Most(a.least, chunk * 32), to = Least(a.most, chunk * 32 + 32);
    if (from >= s.common_begin && to <= s.common_end) continue;
    for (int t = from; t < to; t += 2 - t % 2) {
      const __mmask32 held =
          (t % 2 == 0 ? 0x55555555u : 0) | (t % 2 == 1 || t + 1 < to ? 0xaaaaaaaau : 0);
      const uint8_t* v = a.kv.blocks[t / a.block_tokens] + a.kv.v_offset +
                         static_cast<size_t>(t % a.block_tokens / 2) * 64;
      for (int g = 0; g < a.head_dim_padded / 16; ++g) {
        const __m512i x = _mm512_and_si512(
            _mm512_loadu_si512(v + static_cast<size_t>(g) * a.block_tokens * 32), exponents);
        bad |= _mm512_mask_cmpeq_epi16_mask(held, x, exponents);
      }
    }
  }
  return bad != 0;
}

/// Calls scores and values for each step of the split, and makes weights of the scores between.
template <typename Scores, typename Values>
inline void EachBf16Step(const Split& s, const Scores& scores, const Values& values) {
  const SplitArgs& a = s.a;
  for (int at = a.least / kStepTokens * kStepTokens; at < a.most; at += kStepTokens) {
    Step step;
    step.begin = Most(a.least, at);
    step.end = Least(a.most, at + kStepTokens);
    step.first = at <= a.least;
    step.first_tile = step.begin / 16;
    step.last_tile = (step.end + 15) / 16;
    FindBf16(a, step);
    scores(step);
    const bool all = step.end - step.begin == kStepTokens;
    if (!all || step.begin < s.common_begin || step.end > s.common_end) Mask<2>(s, step);
    if (all) {
      Weights<kStepTokens / 32>(s, step);
    } else {
      Weights<0>(s, step);
    }
    values(step);
  }
}
