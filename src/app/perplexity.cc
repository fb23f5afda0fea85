#include "app/perplexity.h"

#include <algorithm>
#include <cmath>

#include "exec/direct_sequence.h"

namespace kvasir {
namespace {

/// -ln of the softmax of `logits` at `token`.
double NegativeLogProbability(std::span<const float> logits, int32_t token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return top + std::log(sum) - logits[token];
}

}  // namespace

double PerplexityResult::mean_nll() const {
  return scored == 0 ? 0 : nll / static_cast<double>(scored);
}
double PerplexityResult::perplexity() const { return std::exp(mean_nll()); }

Result<PerplexityResult> Perplexity(
    LoadedModel* model, const std::vector<int32_t>& tokens, int32_t window,
    const std::function<void(uint64_t done, uint64_t total)>& progress) {
  const auto all = static_cast<int64_t>(tokens.size());
  if (all < 2)
    return MakeError(ErrorCode::kInvalid, "the text has {} tokens; 2 or more are needed", all);
  if (window > model->plan().context) {
    return FlagError("--window is {}, above the context of {} tokens; raise --ctx", window,
                     model->plan().context);
  }
  const int64_t size = std::min<int64_t>(window, all);
  const auto vocab = static_cast<size_t>(model->config().vocab);
  PerplexityResult out{.window = size};
  KvManager kv(model->plan().layout, model->plan().kv_blocks);
  for (int64_t begin = 0; begin + size <= all; begin += size) {
    const std::vector<int32_t> part(tokens.begin() + begin, tokens.begin() + begin + size);
    DirectSequence sequence(&model->executor(), &kv, part);
    while (sequence.computed() < size) {
      const int32_t first = sequence.computed();
      const auto count =
          static_cast<int32_t>(std::min<int64_t>(model->max_step_tokens(), size - first));
      KV_ASSIGN(const std::span<const float> logits, sequence.Compute(count, count));
      for (int32_t i = 0; i < count && first + i + 1 < size; ++i) {
        out.nll += NegativeLogProbability(logits.subspan(static_cast<size_t>(i) * vocab, vocab),
                                          part[first + i + 1]);
        ++out.scored;
      }
      out.computed += count;
      if (progress)
        progress(static_cast<uint64_t>(out.computed), static_cast<uint64_t>(all / size * size));
    }
    ++out.windows;
  }
  return out;
}

}  // namespace kvasir
