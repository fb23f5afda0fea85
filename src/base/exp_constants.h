#pragma once

namespace kvasir {

/// exp(x) = 2^n * exp(r), n = round(x / ln 2), r = x - n ln 2 in two steps (Cody and Waite: the
/// high part has 12 trailing zero bits, so n times it is exact). exp(r) on [-ln2/2, ln2/2] is a
/// polynomial of degree 6 (Taylor's; the first term left out is at most 1.3e-7 of the result).
inline constexpr float kExpLow = -87.3f;  ///< below, 2^n would be subnormal: the result is 0
inline constexpr float kExpHigh = 88.0f;
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
inline constexpr float kExp2 = 0.5f;
inline constexpr float kExp3 = 1.0f / 6.0f;
inline constexpr float kExp4 = 1.0f / 24.0f;
inline constexpr float kExp5 = 1.0f / 120.0f;
inline constexpr float kExp6 = 1.0f / 720.0f;

inline constexpr float kGeluScale = 0.7978845608028654f;  ///< sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715f;

}  // namespace kvasir
