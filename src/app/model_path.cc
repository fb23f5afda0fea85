#include "app/model_path.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace kvasir {
namespace fs = std::filesystem;
namespace {

std::string Folder(const char* variable, const char* below_home) {
  const char* value = std::getenv(variable);
  if (value != nullptr && value[0] == '/') return std::string(value) + "/kvasir";
  const char* home = std::getenv("HOME");
  return std::string(home != nullptr ? home : "") + "/" + below_home + "/kvasir";
}

std::string ModelsThere(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".gguf") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out.empty() ? "which has none" : "which has " + out;
}

bool IsFile(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

}  // namespace

std::string ModelFolder() { return Folder("XDG_CACHE_HOME", ".cache") + "/models"; }
std::string ConfigFolder() { return Folder("XDG_CONFIG_HOME", ".config"); }
std::string StateFolder() { return Folder("XDG_STATE_HOME", ".local/state"); }

Result<std::string> FindModel(const std::string& name) {
  const std::string folder = ModelFolder();
  if (name.empty()) {
    const std::string path = folder + "/" + std::string(kDefaultModel);
    if (IsFile(path)) return path;
    return MakeError(
        ErrorCode::kNotFound,
        "the default model {} is not in {}, {}; fetch it with tools/fetch-model.sh, or name "
        "a GGUF file",
        kDefaultModel, folder, ModelsThere(folder));
  }
  for (const std::string& path : {name, folder + "/" + name, folder + "/" + name + ".gguf"}) {
    if (IsFile(path)) return path;
  }
  return MakeError(ErrorCode::kNotFound, "there is no model {}: not a file, and not in {}, {}",
                   name, folder, ModelsThere(folder));
}

}  // namespace kvasir
