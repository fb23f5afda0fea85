#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "api/loaded_model.h"

namespace kvasir {

struct PerplexityResult {
  double nll = 0;        ///< sum of -ln p(token | tokens before it in its window)
  int64_t scored = 0;    ///< tokens that count
  int64_t computed = 0;  ///< tokens that were computed
  int64_t windows = 0;
  int64_t window = 0;  ///< tokens of each

  double mean_nll() const;
  double perplexity() const;  ///< exp(mean_nll)
};

/// Scores `tokens` in windows of `window` tokens without overlap; the first of each window is not
/// scored, and a rest shorter than a window is left out, unless it is the only one. The model must
/// have been loaded for logits of all rows of a step. An Error when there is nothing to score.
Result<PerplexityResult> Perplexity(
    LoadedModel* model, const std::vector<int32_t>& tokens, int32_t window,
    const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace kvasir
