#pragma once

#include <cstdint>

namespace kvasir {

/// What a step costs in seconds: fixed + per_token * tokens + per_key * (pairs of a token and a key
/// it attends to). Fitted online to measured steps by recursive least squares with forgetting, so
/// that it follows a machine that becomes slower or faster.
class CostModel {
 public:
  struct Work {
    double tokens = 0, keys = 0;
  };
  /// Something to start from before anything was measured; never negative.
  void Set(double fixed, double per_token, double per_key);
  void Learn(const Work& work, double seconds);
  double Predict(const Work& work) const;
  /// How many more tokens, each attending to `context` keys, fit beside `work` into `seconds`.
  int32_t TokensWithin(double seconds, const Work& work, double context) const;
  bool known() const { return samples_ > 0; }
  double fixed() const { return beta_[0]; }
  double per_token() const { return beta_[1] / kScale[1]; }
  double per_key() const { return beta_[2] / kScale[2]; }

 private:
  // Inputs are scaled to similar sizes, for the arithmetic's sake.
  static constexpr double kScale[3] = {1, 256, 65536};
  double beta_[3] = {0, 0, 0};
  double p_[3][3] = {{1e3, 0, 0}, {0, 1e3, 0}, {0, 0, 1e3}};
  int64_t samples_ = 0;
};

}  // namespace kvasir
