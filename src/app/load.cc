#include "app/load.h"

#include <fmt/format.h>

#include <utility>

#include "app/terminal.h"

namespace kvasir {

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
  options.planned = [planned = std::move(options.planned)](const MemoryPlan& plan,
                                                           const ModelConfig& config) {
    WriteErr(ContextWarning(plan.context, config));
    if (planned) planned(plan, config);
  };
  return LoadedModel::Load(options);
}

}  // namespace kvasir
