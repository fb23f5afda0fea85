#include "app/settings.h"

#include <algorithm>
#include <cctype>
#include <sstream>
#include <vector>

#include "app/input.h"
#include "app/model_path.h"
#include "base/toml_text.h"

namespace kvasir {
namespace {

std::string VariableOf(const std::string& long_name) {
  std::string out = "KVASIR_";
  for (const char c : long_name) {
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out;
}

/// Options that a file or the environment may set.
bool Settable(const CLI::Option* option) {
  if (option->get_lnames().empty()) return false;
  const std::string& name = option->get_lnames()[0];
  return name != "help" && name != "version" && name != "config";
}

CLI::Option* FindOption(CLI::App* app, std::string_view key) {
  for (CLI::Option* option : app->get_options()) {
    if (Settable(option) && option->get_lnames()[0] == key) return option;
  }
  return nullptr;
}

/// A value of the file as it would stand on the command line.
std::vector<std::string> AsTexts(const toml::node& node) {
  std::vector<std::string> out;
  if (const toml::array* array = node.as_array()) {
    for (const toml::node& item : *array) {
      for (std::string& text : AsTexts(item)) out.push_back(std::move(text));
    }
  } else if (const auto* text = node.as_string()) {
    out.push_back(text->get());
  } else {
    std::ostringstream other;
    node.visit([&](const auto& value) { other << value; });
    out.push_back(other.str());
  }
  return out;
}

Status Set(CLI::Option* option, const std::string& path, std::string_view key,
           const toml::node& node) {
  if (option->count() > 0) return {};
  try {
    for (const std::string& text : AsTexts(node)) option->add_result(text);
    option->run_callback();
  } catch (const CLI::Error& error) {
    return MakeError(ErrorCode::kInvalid, "{}: {}: {}", path, key, error.what());
  }
  return {};
}

Status ApplyTable(CLI::App* root, CLI::App* chosen, const std::string& path,
                  const toml::table& table) {
  for (const auto& [key, node] : table) {
    if (node.is_table()) continue;
    const std::vector<CLI::App*> all = root->get_subcommands([](CLI::App*) { return true; });
    const bool known = std::any_of(all.begin(), all.end(), [&k = key](CLI::App* app) {
      return FindOption(app, k.str()) != nullptr;
    });
    if (!known)
      return MakeError(ErrorCode::kInvalid, "{}: {} is not an option of any subcommand", path,
                       key.str());
    if (CLI::Option* option = FindOption(chosen, key.str()))
      KV_RETURN_IF_ERROR(Set(option, path, key.str(), node));
  }
  return {};
}

Status ApplySubcommandTables(CLI::App* root, CLI::App* chosen, const std::string& path,
                             const toml::table& table) {
  for (const auto& [key, node] : table) {
    const toml::table* inner = node.as_table();
    if (inner == nullptr) continue;
    const std::vector<CLI::App*> all =
        root->get_subcommands([&k = key](CLI::App* a) { return a->get_name() == k.str(); });
    CLI::App* app = all.empty() ? nullptr : all[0];
    if (app == nullptr)
      return MakeError(ErrorCode::kInvalid, "{}: [{}] is not a subcommand", path, key.str());
    for (const auto& [name, value] : *inner) {
      CLI::Option* option = FindOption(app, name.str());
      if (option == nullptr) {
        return MakeError(ErrorCode::kInvalid, "{}: {} is not an option of {}", path, name.str(),
                         key.str());
      }
      if (app == chosen) KV_RETURN_IF_ERROR(Set(option, path, name.str(), value));
    }
  }
  return {};
}

}  // namespace

std::string DefaultKeyFile() { return ConfigFolder() + "/keys.toml"; }

void UseEnvironment(CLI::App* root) {
  for (CLI::App* app : root->get_subcommands([](CLI::App*) { return true; })) {
    for (CLI::Option* option : app->get_options()) {
      if (Settable(option)) option->envname(VariableOf(option->get_lnames()[0]));
    }
  }
}

Status ApplyConfigFile(CLI::App* root, const std::string& given) {
  std::string path = given;
  if (path.empty()) {
    path = ConfigFolder() + "/config.toml";
    KV_ASSIGN(const bool exists, Exists(path));
    if (!exists) return {};
  }
  const std::vector<CLI::App*> chosen = root->get_subcommands();
  if (chosen.empty()) return {};
  constexpr size_t kMostBytes = 1 << 20;
  KV_ASSIGN(const std::string text, ReadTextFile(path, kMostBytes));
  const Result<toml::table> table = ParseToml(text);
  if (!table.ok()) return MakeError(table.error().code, "{}: {}", path, table.error().message);
  // A subcommand's own table counts more than the top.
  KV_RETURN_IF_ERROR(ApplySubcommandTables(root, chosen[0], path, *table));
  return ApplyTable(root, chosen[0], path, *table);
}

}  // namespace kvasir
