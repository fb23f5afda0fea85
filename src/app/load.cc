#include "app/load.h"

#include <fmt/format.h>

#include <utility>

#include "app/terminal.h"
#include "base/cpu.h"

namespace kvasir {

std::string ThreadsWarning(int threads) {
  const int processors = ReadCpuInfo().logical;
  if (threads <= processors) return "";
  return fmt::format(
      "kvasir: --threads {} is above the {} processors that there are, which makes it slower\n",
      threads, processors);
}

std::string ContextWarning(int32_t context, const ModelConfig& config) {
  if (context <= config.context) return "";
  return fmt::format(
      "kvasir: --ctx {} is above the {} tokens that the model was trained for; answers beyond may "
      "be poor\n",
      context, config.context);
}

Result<std::unique_ptr<LoadedModel>> LoadWithProgress(LoadOptions options) {
  ProgressBar bar("loading");
  options.progress = [&](uint64_t done, uint64_t total) { bar.Update(done, total); };
  options.planned = [threads = ThreadsWarning(options.cpu.threads),
                     planned = std::move(options.planned)](const MemoryPlan& plan,
                                                           const ModelConfig& config) {
    WriteErr(ContextWarning(plan.context, config) + threads);
    if (planned) planned(plan, config);
  };
  return LoadedModel::Load(options);
}

}  // namespace kvasir
