#pragma once

#include <array>
#include <cstdint>

namespace kvasir {

/// A plane through the origin, seconds = sum of coefficient * input, fitted online by recursive
/// least squares with forgetting. No coefficient is ever negative: work never saves time.
template <int kInputs>
class OnlinePlane {
 public:
  using Inputs = std::array<double, kInputs>;
  void Set(const Inputs& coefficients);
  void Learn(const Inputs& inputs, double seconds);
  double At(const Inputs& inputs) const;
  double coefficient(int i) const { return beta_[i]; }
  bool known() const { return known_; }

 private:
  Inputs beta_{};
  std::array<Inputs, kInputs> covariance_{};
  bool known_ = false;
};

/// What a step costs in seconds, fitted online to measured steps, so that it follows a machine that
/// becomes slower or faster: fixed + per sequence that decodes + per key that those attend to, and
/// what prompts add to that, per token and per pair of a token and a key.
///
/// The two are fitted apart. While a long prompt is computed under a latency target, every step
/// takes about as long as the target: a single fit would see steps that cost the same whatever is
/// in them, and forget what decoding alone costs.
class CostModel {
 public:
  struct Work {
    double decoding = 0, decoding_keys = 0;
    double prompt = 0, prompt_keys = 0;
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

 private:
  double Decoding(const Work& work) const;

  OnlinePlane<3> decoding_;  // 1, sequences, keys
  OnlinePlane<2> prompt_;    // tokens, pairs
};

}  // namespace kvasir
