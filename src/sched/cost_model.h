#pragma once

#include <array>
#include <cstdint>

namespace kvasir {

/// A plane through the origin, seconds = sum of coefficient * input, fitted online: least squares
/// of the relative errors of the last samples (weights decay), under no negative coefficient, for
/// work never saves time. What the samples leave open stays as it was: the sums are kept, not an
/// inverse, so inputs that never vary cannot make the fit unstable.
class OnlinePlane {
 public:
  static constexpr int kInputs = 3;
  using Inputs = std::array<double, kInputs>;
  void Set(const Inputs& coefficients);
  /// One sample; its error counts relative to `unit` seconds, which is positive.
  void Learn(const Inputs& inputs, double seconds, double unit);
  double At(const Inputs& inputs) const;
  bool known() const { return known_; }

 private:
  Inputs beta_{};
  std::array<Inputs, kInputs> squares_{};  // decayed sum of inputs * inputs^T / unit^2
  Inputs products_{};                      // decayed sum of inputs * seconds / unit^2
  bool known_ = false;
};

/// What a step costs in seconds, fitted online to measured steps, so that it follows a machine that
/// becomes slower or faster: fixed + per sequence that decodes + per key that those attend to, and
/// what prompts add to that, per token, per key before a chunk (read once for all of its tokens,
/// which is what small chunks far into a prompt pay for) and per pair of a token and a key.
///
/// The two are fitted apart. While a long prompt is computed under a latency target, every step
/// takes about as long as the target: a single fit would see steps that cost the same whatever is
/// in them, and forget what decoding alone costs.
class CostModel {
 public:
  struct Work {
    double decoding = 0, decoding_keys = 0;
    double prompt = 0, prompt_keys = 0;
    double prompt_context = 0;  // keys before the prompts' chunks: each chunk reads them once
  };
  /// Something to start from before anything was measured; never negative.
  void Set(double fixed, double per_token, double per_key);
  void Learn(const Work& work, double seconds);
  double Predict(const Work& work) const { return Decoding(work) + Prompts(work); }
  /// The part of Predict that prompts add.
  double Prompts(const Work& work) const;
  /// How many more tokens of a prompt, each attending to `context` keys, fit beside `work` into
  /// `seconds`.
  int32_t TokensWithin(double seconds, const Work& work, double context) const;
  bool known() const { return decoding_.known() || prompt_.known(); }
  /// What decoding costs and what prompts add were both measured.
  bool known_apart() const { return decoding_.known() && prompt_.known(); }

 private:
  double Decoding(const Work& work) const;

  OnlinePlane decoding_;  // 1, sequences, keys
  OnlinePlane prompt_;    // tokens, keys before the chunks, pairs
};

}  // namespace kvasir
