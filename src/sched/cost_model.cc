#include "sched/cost_model.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace kvasir {
namespace {

/// Weight of a sample after each newer one: about the last hundred steps count.
constexpr double kForget = 0.99;
/// Weight of the coefficients so far against one sample: they decide only what samples leave open.
constexpr double kInertia = 1e-5;
/// Inputs are brought to similar sizes, for the arithmetic's sake.
constexpr double kTokens = 256, kKeys = 65536;

using Inputs = OnlinePlane::Inputs;
using Matrix = std::array<Inputs, OnlinePlane::kInputs>;

/// x of a * x = b in the inputs of `mask`, 0 in the others; nothing where `a`, which is positive
/// definite, is too near to singular for the arithmetic.
std::optional<Inputs> Solve(Matrix a, Inputs b, unsigned mask) {
  constexpr int n = OnlinePlane::kInputs;
  constexpr double kSingular = 1e-12;
  const Matrix given = a;
  const auto in = [mask](int i) { return (mask >> i & 1U) != 0; };
  for (int i = 0; i < n; ++i) {
    if (!in(i)) continue;
    if (!(a[i][i] > kSingular * given[i][i])) return std::nullopt;
    for (int j = i + 1; j < n; ++j) {
      if (!in(j)) continue;
      const double factor = a[j][i] / a[i][i];
      for (int k = i; k < n; ++k) a[j][k] -= factor * a[i][k];
      b[j] -= factor * b[i];
    }
  }
  Inputs x{};
  for (int i = n - 1; i >= 0; --i) {
    if (!in(i)) continue;
    double rest = b[i];
    for (int j = i + 1; j < n; ++j) rest -= a[i][j] * x[j];
    x[i] = rest / a[i][i];
  }
  return x;
}

/// x >= 0 with the least x^T a x - 2 b^T x: of few inputs, every set that may be positive is tried.
Inputs SolveNonNegative(const Matrix& a, const Inputs& b) {
  constexpr int n = OnlinePlane::kInputs;
  constexpr unsigned all = (1U << n) - 1;
  Inputs best{};
  double least = 0;  // of x = 0
  for (unsigned mask = all; mask > 0; --mask) {
    const std::optional<Inputs> x = Solve(a, b, mask);
    if (!x || *std::min_element(x->begin(), x->end()) < 0) continue;
    if (mask == all) return *x;
    double value = 0;  // at a solution, x^T a x = b^T x
    for (int i = 0; i < n; ++i) value -= b[i] * (*x)[i];
    if (value < least) {
      least = value;
      best = *x;
    }
  }
  return best;
}

}  // namespace

void OnlinePlane::Set(const Inputs& coefficients) {
  *this = {};
  beta_ = coefficients;
  known_ = true;
}

double OnlinePlane::At(const Inputs& inputs) const {
  double sum = 0;
  for (int i = 0; i < kInputs; ++i) sum += beta_[i] * inputs[i];
  return sum;
}

void OnlinePlane::Learn(const Inputs& inputs, double seconds, double unit) {
  const double weight = 1 / (unit * unit);
  for (int i = 0; i < kInputs; ++i) {
    for (int j = 0; j < kInputs; ++j)
      squares_[i][j] = kForget * squares_[i][j] + weight * inputs[i] * inputs[j];
    products_[i] = kForget * products_[i] + weight * inputs[i] * seconds;
  }
  Matrix a = squares_;
  Inputs b = products_;
  for (int i = 0; i < kInputs; ++i) {
    a[i][i] += kInertia * weight;
    b[i] += kInertia * weight * beta_[i];
  }
  beta_ = SolveNonNegative(a, b);
  known_ = true;
}

double CostModel::Decoding(const Work& work) const {
  return decoding_.At({1, work.decoding / kTokens, work.decoding_keys / kKeys});
}

double CostModel::Prompts(const Work& work) const {
  return prompt_.At({work.prompt / kTokens, work.prompt_context / kKeys, work.prompt_keys / kKeys});
}

void CostModel::Set(double fixed, double per_token, double per_key) {
  decoding_.Set({fixed, per_token * kTokens, per_key * kKeys});
  prompt_.Set({per_token * kTokens, 0, per_key * kKeys});
}

void CostModel::Learn(const Work& work, double seconds) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  if (work.prompt == 0) {
    decoding_.Learn({1, work.decoding / kTokens, work.decoding_keys / kKeys}, seconds, seconds);
  } else {
    prompt_.Learn({work.prompt / kTokens, work.prompt_context / kKeys, work.prompt_keys / kKeys},
                  std::max(seconds - Decoding(work), 0.0), seconds);
  }
}

int32_t CostModel::TokensWithin(double seconds, const Work& work, double context) const {
  const double left = seconds - Predict(work) - prompt_.At({0, context / kKeys, 0});
  const double each = prompt_.At({1 / kTokens, 0, context / kKeys});
  if (left <= 0) return 0;
  // Each token also attends to those of its own chunk: left = each * n + pair * n^2 / 2.
  const double pair = prompt_.At({0, 0, 1 / kKeys});
  const double bottom = each + std::sqrt(each * each + 2 * pair * left);
  return bottom <= 0 ? INT32_MAX : static_cast<int32_t>(std::min(2 * left / bottom, 2e9));
}

}  // namespace kvasir
