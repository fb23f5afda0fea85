#include "api/compute_probe.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace kvasir {

double ComputeProbe(LoadedModel* model, const Clock* clock) {
  const GgufTensor* tensor = model->file().FindTensor("blk.0.ffn_up.weight");
  CHECK(tensor != nullptr);
  Result<Matrix> weight = model->backend().Pack(tensor->view());
  if (!weight.ok()) return 0;
  const int32_t rows = std::min(256, model->max_step_tokens());
  std::vector<float> x(static_cast<size_t>(rows) * weight->cols, 0.5f);
  std::vector<float> out(static_cast<size_t>(rows) * weight->rows);
  const MatMulOutput output{&*weight, nullptr, out.data(), weight->rows, false};
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const int64_t start = clock->NowNs();
    model->backend().MatMul(x.data(), weight->cols, rows, {&output, 1});
    const double seconds = SecondsBetween(start, clock->NowNs());
    const double flops = 2.0 * rows * static_cast<double>(weight->rows * weight->cols);
    if (seconds > 0) best = std::max(best, flops / seconds * 1e-9);
  }
  return best;
}

}  // namespace kvasir
