// Products of the faster mode in AVX-512 with VNNI, shared by the avx512 and the amx kernels as
// matmul_avx512-inl.h is, after which this is included. No include guard.

/// The bytes s of 16 columns of a group, each in both halves of a column's four bytes: a product of
/// 16-bit words multiplies two nibbles by it, for neither product leaves its byte.
KV_INLINE __m512i GroupScale(const uint8_t* s) {
  const __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s)));
  return _mm512_or_si512(v, _mm512_slli_epi32(v, 16));
}
KV_INLINE __m512i LowNibbles(__m512i v, __m512i scale) {
  return _mm512_mullo_epi16(_mm512_and_si512(v, _mm512_set1_epi8(15)), scale);
}
KV_INLINE __m512i HighNibbles(__m512i v, __m512i scale) {
  return LowNibbles(_mm512_srli_epi16(v, 4), scale);
}

/// dot[n][i] += a group of panel n's weights times row i of the activations: bytes from x + i * 64
/// on, whose sum is sums[i * sum_stride]. The records of the panels are `step` bytes apart.
template <PackFormat F, int R, int N>
KV_INLINE void BlockGroup(const uint8_t* record, size_t step, int64_t groups, int64_t g,
                          const int8_t* x, const int32_t* sums, int64_t sum_stride,
                          __m512i dot[N][R]) {
  if constexpr (F == PackFormat::kI4) {
    const uint8_t* const scales = record + groups * 256 + g * 16;
    __m512i scale[N];
    for (int n = 0; n < N; ++n) scale[n] = GroupScale(scales + static_cast<size_t>(n) * step);
    for (int j = 0; j < 4; ++j) {
      __m512i low[N], high[N];
      for (int n = 0; n < N; ++n) {
        const __m512i v =
            _mm512_loadu_si512(record + static_cast<size_t>(n) * step + g * 256 + j * 64);
        low[n] = LowNibbles(v, scale[n]);
        high[n] = HighNibbles(v, scale[n]);
      }
      for (int i = 0; i < R; ++i) {
        const __m512i first = Quad(x + i * 64 + j * 4), second = Quad(x + i * 64 + 16 + j * 4);
        for (int n = 0; n < N; ++n) dot[n][i] = _mm512_dpbusd_epi32(dot[n][i], low[n], first);
        for (int n = 0; n < N; ++n) dot[n][i] = _mm512_dpbusd_epi32(dot[n][i], high[n], second);
      }
    }
    // The sums are 16-bit numbers: at most 32 * 127.
    for (int n = 0; n < N; ++n) {
      const __m512i offset =
          _mm512_and_si512(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(
                               scales + groups * 16 + static_cast<size_t>(n) * step))),
                           _mm512_set1_epi32(0xffff));
      for (int i = 0; i < R; ++i) {
        dot[n][i] = _mm512_dpwssd_epi32(dot[n][i], offset, _mm512_set1_epi32(sums[i * sum_stride]));
      }
    }
  } else {
    const __m512i flip = _mm512_set1_epi8(-128);
    for (int j = 0; j < 8; ++j) {
      __m512i w[N];
      for (int n = 0; n < N; ++n) {
        w[n] = _mm512_xor_si512(
            _mm512_loadu_si512(record + static_cast<size_t>(n) * step + g * 512 + j * 64), flip);
      }
      for (int i = 0; i < R; ++i) {
        const __m512i four = Quad(x + i * 64 + j * 4);
        for (int n = 0; n < N; ++n) dot[n][i] = _mm512_dpbusd_epi32(dot[n][i], w[n], four);
      }
    }
    for (int i = 0; i < R; ++i) {
      const __m512i flipped = _mm512_set1_epi32(static_cast<int32_t>(128 * sums[i * sum_stride]));
      for (int n = 0; n < N; ++n) dot[n][i] = _mm512_sub_epi32(dot[n][i], flipped);
    }
  }
}

/// R rows, all of one block of 16, and N panels.
template <PackFormat F, int R, int N>
KV_INLINE void BlockRows(const PanelArgs& a, const uint8_t* record, int64_t r, int64_t first) {
  const int64_t groups = a.k / 32, tiles = ByteTiles(a.k);
  const int64_t blocks = (groups + kBlockGroups - 1) / kBlockGroups;
  const int8_t* x =
      a.byte_tiles + (a.first_block + r / kTileRows) * tiles * kTileBytes + r % kTileRows * 64;
  __m512 acc[N][R];
  for (int n = 0; n < N; ++n) {
    for (int i = 0; i < R; ++i) acc[n][i] = _mm512_setzero_ps();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t left = groups - b * kBlockGroups;
    const int64_t count = left < kBlockGroups ? left : kBlockGroups;
    __m512i dot[N][R];
    for (int n = 0; n < N; ++n) {
      for (int i = 0; i < R; ++i) dot[n][i] = _mm512_setzero_si512();
    }
    for (int64_t g = 0; g < count; ++g) {
      const int64_t at = b * kBlockGroups + g;
      if (N == 1 && r == 0) {  // as in PanelRows: the first brings it from memory
        constexpr size_t kBytes = F == PackFormat::kI4 ? 288 : 512;
        for (size_t line = 0; line < kBytes; line += 64) {
          _mm_prefetch(
              reinterpret_cast<const char*>(record) + static_cast<size_t>(g) * kBytes + 2048 + line,
              _MM_HINT_T0);
        }
      }
      BlockGroup<F, R, N>(record, a.panel_bytes, count, g, x + at / 2 * kTileBytes + at % 2 * 32,
                          a.sum + r * groups + at, groups, dot);
    }
    record += BlockBytes(F, count);
    for (int n = 0; n < N; ++n) {
      const __m512 d = _mm512_loadu_ps(record - 64 + static_cast<size_t>(n) * a.panel_bytes);
      for (int i = 0; i < R; ++i) {
        acc[n][i] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[n][i]),
                            _mm512_mul_ps(d, _mm512_set1_ps(a.d[(r + i) * blocks + b])), acc[n][i]);
      }
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int i = 0; i < R; ++i) StoreRow(a, r + i, first + n * 16, acc[n][i]);
  }
}

template <PackFormat F>
void BlockPanels(const PanelArgs& a) {
  int32_t p = 0;
  // Of many rows two panels at a time: an activation is then loaded for two products. At 512 rows
  // bytes had 1.05 to 1.1 times the speed of one panel; nibbles, which take more registers, 0.9 to
  // 0.95 times (2 threads, Zen 4, 2048 x 8192, 2026-11-27).
  constexpr int64_t kManyRows = 16;
  for (; F == PackFormat::kI8 && p + 2 <= a.panels && a.rows >= kManyRows; p += 2) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + 8 <= a.rows; r += 8) BlockRows<F, 8, 2>(a, panel, r, p * 16);
    for (; r + 4 <= a.rows; r += 4) BlockRows<F, 4, 2>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) BlockRows<F, 1, 2>(a, panel, r, p * 16);
  }
  for (; p < a.panels; ++p) {
    const uint8_t* panel = a.weights + static_cast<size_t>(p) * a.panel_bytes;
    int64_t r = 0;
    for (; r + 8 <= a.rows; r += 8) BlockRows<F, 8, 1>(a, panel, r, p * 16);
    for (; r + 4 <= a.rows; r += 4) BlockRows<F, 4, 1>(a, panel, r, p * 16);
    for (; r + 2 <= a.rows; r += 2) BlockRows<F, 2, 1>(a, panel, r, p * 16);
    for (; r < a.rows; ++r) BlockRows<F, 1, 1>(a, panel, r, p * 16);
  }
}

void QuantizeBlocks(const float* x, InputPart part, int64_t row, const ByteBlocks& out) {
  const int64_t groups = part.k / 32, blocks = (part.k + kBlock - 1) / kBlock;
  int8_t* to = out.q + row / kTileRows * ByteTiles(part.k) * kTileBytes + row % kTileRows * 64;
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (int64_t begin = part.begin; begin < part.end; begin += kBlock, x += kBlock) {
    const int64_t count = begin + kBlock < part.end ? kBlock : part.end - begin;
    // Bits of magnitudes are ordered as the numbers are: infinity next to last, NaNs last.
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i += 16) {
      most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    }
    const uint32_t bits = _mm512_reduce_max_epu32(most);
    const bool finite = bits < 0x7f800000u;
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    out.d[row * blocks + begin / kBlock] = finite ? largest / 127.0f : __builtin_nanf("");
    float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
    if (inverse > 3.0e38f) inverse = 0;
    const __m512 factor = _mm512_set1_ps(inverse);
    const auto valid = static_cast<__mmask16>(finite ? 0xffff : 0);
    for (int64_t i = 0; i < count; i += 32) {
      const __m512i low =
          _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(valid, x + i), factor));
      const __m512i high =
          _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(valid, x + i + 16), factor));
      int8_t* at = to + (begin + i) / 64 * kTileBytes + (begin + i) % 64;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_cvtsepi32_epi8(low));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 16), _mm512_cvtsepi32_epi8(high));
      out.sum[row * groups + (begin + i) / 32] =
          _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    }
  }
}

/// The kernels of AVX-512 with all products. A constant: no code of these files may run where its
/// instructions are not known.
constexpr MatMulKernels WithVnniPanels(MatMulKernels kernels) {
  const MatMulKernels::Panels panels[kPackFormats] = {
      FloatPanels<PackFormat::kF32>,  FloatPanels<PackFormat::kF16>, FloatPanels<PackFormat::kBF16>,
      VnniPanels<PackFormat::kQ4>,    VnniPanels<PackFormat::kQ4M>,  VnniPanels<PackFormat::kQ4K>,
      VnniPanels<PackFormat::kQ5K>,   VnniPanels<PackFormat::kQ6K>,  VnniPanels<PackFormat::kQ8>,
      VnniPanels<PackFormat::kQ8M>,   VnniPanels<PackFormat::kQ8F>,  VnniPanels<PackFormat::kQ8F2>,
      VnniPanels<PackFormat::kQ8FM2>, BlockPanels<PackFormat::kI4>,  BlockPanels<PackFormat::kI8>};
  for (int i = 0; i < kPackFormats; ++i) kernels.panels[i] = panels[i];
  return kernels;
}
