#include "sched/cost_model.h"

#include <algorithm>
#include <cmath>

namespace kvasir {
namespace {

/// Weight of a sample after each newer one: the last few hundred steps count.
constexpr double kForget = 0.995;
/// Bound of the covariance: how far one sample may move what no sample has told of lately.
constexpr double kMostDoubt = 1e6;
/// Inputs are brought to similar sizes, for the arithmetic's sake.
constexpr double kTokens = 256, kKeys = 65536;

}  // namespace

template <int kInputs>
void OnlinePlane<kInputs>::Set(const Inputs& coefficients) {
  beta_ = coefficients;
  known_ = true;
}

template <int kInputs>
double OnlinePlane<kInputs>::At(const Inputs& inputs) const {
  double sum = 0;
  for (int i = 0; i < kInputs; ++i) sum += beta_[i] * inputs[i];
  return sum;
}

template <int kInputs>
void OnlinePlane<kInputs>::Learn(const Inputs& inputs, double seconds) {
  if (!known_ || covariance_[0][0] == 0) {
    covariance_ = {};
    for (int i = 0; i < kInputs; ++i) covariance_[i][i] = 1e3;
  }
  Inputs px{};
  double denominator = kForget;
  for (int i = 0; i < kInputs; ++i) {
    for (int j = 0; j < kInputs; ++j) px[i] += covariance_[i][j] * inputs[j];
    denominator += inputs[i] * px[i];
  }
  const double error = seconds - At(inputs);
  for (int i = 0; i < kInputs; ++i)
    beta_[i] = std::max(beta_[i] + px[i] / denominator * error, 0.0);
  for (int i = 0; i < kInputs; ++i) {
    for (int j = 0; j < kInputs; ++j) {
      covariance_[i][j] =
          std::min((covariance_[i][j] - px[i] * px[j] / denominator) / kForget, kMostDoubt);
    }
  }
  known_ = true;
}

template class OnlinePlane<2>;
template class OnlinePlane<3>;

double CostModel::Decoding(const Work& work) const {
  return decoding_.At({1, work.decoding / kTokens, work.decoding_keys / kKeys});
}

double CostModel::Prompts(const Work& work) const {
  return prompt_.At({work.prompt / kTokens, work.prompt_keys / kKeys});
}

void CostModel::Set(double fixed, double per_token, double per_key) {
  decoding_.Set({fixed, per_token * kTokens, per_key * kKeys});
  prompt_.Set({per_token * kTokens, per_key * kKeys});
}

void CostModel::Learn(const Work& work, double seconds) {
  if (!(seconds >= 0) || !std::isfinite(seconds)) return;
  if (work.prompt == 0) {
    decoding_.Learn({1, work.decoding / kTokens, work.decoding_keys / kKeys}, seconds);
  } else {
    prompt_.Learn({work.prompt / kTokens, work.prompt_keys / kKeys},
                  std::max(seconds - Decoding(work), 0.0));
  }
}

int32_t CostModel::TokensWithin(double seconds, const Work& work, double context) const {
  const double left = seconds - Predict(work);
  const double each = prompt_.At({1 / kTokens, context / kKeys});
  if (left <= 0) return 0;
  // Each token also attends to those of its own chunk: left = each * n + pair * n^2 / 2.
  const double pair = prompt_.At({0, 1 / kKeys});
  const double bottom = each + std::sqrt(each * each + 2 * pair * left);
  return bottom <= 0 ? INT32_MAX : static_cast<int32_t>(std::min(2 * left / bottom, 2e9));
}

}  // namespace kvasir
