// What the vector kernels of integers share but for their registers: included in each of them,
// inside their own namespace, before the rest. No include guard.

#define KV_INLINE inline __attribute__((always_inline))
#define KV_LAMBDA __attribute__((always_inline))

/// What a weight is too large by where vpdpbusd takes it, which multiplies unsigned by signed
/// bytes: eight-bit ones get 128 added.
template <PackFormat F>
constexpr int32_t kTakenOff = kBits<F> == 8 ? 128 : kOffset<F>;

/// Sum of the activations of half h (where halves have scales of their own, else all) of a group;
/// `at` counts groups from that of the first of `sums`.
template <PackFormat F>
KV_INLINE int32_t SumOfHalf(const int32_t* sums, int64_t at, int h) {
  return kHalves<F> == 2 ? sums[2 * at + h] : sums[2 * at] + sums[2 * at + 1];
}

/// quad<J, P>() for each quad J (of 4) of a group, P = 0 of its first 16 inputs.
template <typename Quad>
KV_INLINE void EachQuad(const Quad& quad) {
  quad.template operator()<0, 0>();
  quad.template operator()<0, 1>();
  quad.template operator()<1, 0>();
  quad.template operator()<1, 1>();
  quad.template operator()<2, 0>();
  quad.template operator()<2, 1>();
  quad.template operator()<3, 0>();
  quad.template operator()<3, 1>();
}

/// half<H>() for each part of a group that has scales of its own.
template <PackFormat F, typename Half>
KV_INLINE void EachHalf(const Half& half) {
  half.template operator()<0>();
  if constexpr (kHalves<F> == 2) half.template operator()<1>();
}
