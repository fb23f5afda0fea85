#include "sched/cost_model.h"

#include <algorithm>
#include <cmath>

namespace kvasir {
namespace {

/// Weight of a sample after each newer one: the last few hundred steps count.
constexpr double kForget = 0.995;

}  // namespace

void CostModel::Set(double fixed, double per_token, double per_key) {
  beta_[0] = fixed;
  beta_[1] = per_token * kScale[1];
  beta_[2] = per_key * kScale[2];
  samples_ = std::max<int64_t>(samples_, 1);
}

void CostModel::Learn(const Work& work, double seconds) {
  if (!(seconds >= 0) || !std::isfinite(seconds)) return;
  const double x[3] = {1, work.tokens / kScale[1], work.keys / kScale[2]};
  double px[3], denominator = kForget, error = seconds;
  for (int i = 0; i < 3; ++i) {
    px[i] = p_[i][0] * x[0] + p_[i][1] * x[1] + p_[i][2] * x[2];
    denominator += x[i] * px[i];
    error -= beta_[i] * x[i];
  }
  for (int i = 0; i < 3; ++i) beta_[i] += px[i] / denominator * error;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j)
      p_[i][j] = std::min((p_[i][j] - px[i] * px[j] / denominator) / kForget, 1e6);
  }
  // Noise may bend the plane; work never saves time.
  for (double& b : beta_) b = std::max(b, 0.0);
  ++samples_;
}

double CostModel::Predict(const Work& work) const {
  return beta_[0] + per_token() * work.tokens + per_key() * work.keys;
}

int32_t CostModel::TokensWithin(double seconds, const Work& work, double context) const {
  const double left = seconds - Predict(work), each = per_token() + per_key() * context;
  if (left <= 0) return 0;
  if (each <= 0) return INT32_MAX;
  return static_cast<int32_t>(std::min(left / each, 2e9));
}

}  // namespace kvasir
