#include "app/settings.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <vector>

#include "app/flag_errors.h"
#include "app/input.h"
#include "app/model_path.h"
#include "app/terminal.h"
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

/// Whether the environment and the file's top set the option, as in every subcommand that has one
/// of its name. configurable(false) keeps apart one that means something else: only its own table
/// does.
bool Shared(const CLI::Option* option) { return option->get_configurable(); }

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

/// `from`: the file or the variable; `key`: of the file.
Status Set(CLI::Option* option, const std::string& from, std::string_view key,
           const std::vector<std::string>& texts, SettingOrigins* origins) {
  if (option->count() > 0) return {};
  const std::string where = key.empty() ? from : fmt::format("{}: {}", from, key);
  if (texts.empty()) {  // CLI11 takes the first of none
    if (option->get_items_expected_max() > 1) return {};
    return MakeError(ErrorCode::kInvalid, "{}: an empty list is no value; give one", where);
  }
  try {
    for (const std::string& text : texts) option->add_result(text);
    option->run_callback();
  } catch (const CLI::ConversionError&) {
    return MakeError(ErrorCode::kInvalid, "{}: {}", where, WhyNotTaken(option, texts.back()));
  } catch (const CLI::Error& error) {
    return MakeError(ErrorCode::kInvalid, "{}: {}", where, error.what());
  }
  (*origins)[option] = from;
  return {};
}

std::vector<CLI::App*> SubcommandsOf(CLI::App* app) {
  return app->get_subcommands([](CLI::App*) { return true; });
}

/// The subcommand that was called: `batch` of `bench batch`.
CLI::App* Called(CLI::App* root) {
  CLI::App* app = root;
  while (!app->get_subcommands().empty()) app = app->get_subcommands()[0];
  return app;
}

/// Whether a subcommand below `app` has the option.
bool IsKnown(CLI::App* app, std::string_view key) {
  const std::vector<CLI::App*> all = SubcommandsOf(app);
  return std::any_of(all.begin(), all.end(),
                     [&](CLI::App* a) { return FindOption(a, key) != nullptr || IsKnown(a, key); });
}

/// What Kubernetes sets in every pod for a service named kvasir: KVASIR_PORT=tcp://10.96.3.4:8000.
bool IsServiceLink(std::string_view value) {
  return value.starts_with("tcp://") || value.starts_with("udp://") || value.starts_with("sctp://");
}

/// The others of them: KVASIR_SERVICE_HOST, KVASIR_SERVICE_PORT_HTTP, KVASIR_PORT_8000_TCP_ADDR.
bool IsOfKubernetes(const std::string& name) {
  constexpr std::string_view kPort = "KVASIR_PORT_";
  return name.starts_with("KVASIR_SERVICE_") ||
         (name.starts_with(kPort) && name.size() > kPort.size() &&
          std::isdigit(static_cast<unsigned char>(name[kPort.size()])) != 0);
}

/// Those that are no options, of the program and of its build.
constexpr const char* kOtherVariables[] = {"KVASIR_CONFIG", "KVASIR_ISA",    "KVASIR_BINARY",
                                           "KVASIR_BENCH",  "KVASIR_CCACHE", "KVASIR_SANITIZE",
                                           "KVASIR_TESTS"};

/// Of the tests (docs/testing.md), whose programs hand them on.
bool IsOfTests(const std::string& name) {
  for (const char* begin :
       {"KVASIR_TEST", "KVASIR_REQUIRE_", "KVASIR_FUZZ", "KVASIR_GOLDEN_", "KVASIR_SIMULATIONS",
        "KVASIR_CLOCK_", "KVASIR_JUMPING_", "KVASIR_TINY_", "KVASIR_SERVE_FLAGS", "KVASIR_KILLS"}) {
    if (name.starts_with(begin)) return true;
  }
  return false;
}

/// Of all subcommands: a variable may be meant for another one than this.
void AddVariables(CLI::App* app, std::set<std::string>* out) {
  for (CLI::App* sub : SubcommandsOf(app)) {
    for (const CLI::Option* option : sub->get_options()) {
      if (Settable(option)) out->insert(VariableOf(option->get_lnames()[0]));
    }
    AddVariables(sub, out);
  }
}

/// Keys at the top: for every subcommand that has the option, but for those that are not Shared.
Status ApplyTop(CLI::App* root, const std::string& path, const toml::table& table,
                SettingOrigins* origins) {
  for (const auto& [key, node] : table) {
    if (node.is_table()) continue;
    if (!IsKnown(root, key.str()))
      return MakeError(ErrorCode::kInvalid, "{}: {} is not an option of any subcommand", path,
                       key.str());
    CLI::Option* option = FindOption(Called(root), key.str());
    if (option != nullptr && Shared(option))
      KV_RETURN_IF_ERROR(Set(option, path, key.str(), AsTexts(node), origins));
  }
  return {};
}

/// The keys of `app`'s table [name], and the tables in it, of subcommands of its own.
Status ApplyTable(CLI::App* app, const CLI::App* called, const std::string& path,
                  const std::string& name, const toml::table& table, SettingOrigins* origins) {
  for (const auto& [key, node] : table) {
    const std::string within =
        name.empty() ? std::string(key.str()) : fmt::format("{}.{}", name, key.str());
    if (const toml::table* inner = node.as_table()) {
      const std::vector<CLI::App*> sub =
          app->get_subcommands([&k = key](CLI::App* a) { return a->get_name() == k.str(); });
      if (sub.empty())
        return MakeError(ErrorCode::kInvalid, "{}: [{}] is not a subcommand", path, within);
      KV_RETURN_IF_ERROR(ApplyTable(sub[0], called, path, within, *inner, origins));
      continue;
    }
    if (name.empty()) continue;  // at the top: ApplyTop's
    CLI::Option* option = FindOption(app, key.str());
    if (option == nullptr)
      return MakeError(ErrorCode::kInvalid, "{}: {} is not an option of {}", path, key.str(), name);
    if (app == called) KV_RETURN_IF_ERROR(Set(option, path, key.str(), AsTexts(node), origins));
  }
  return {};
}

/// A value in a line of others: in quotes, with escapes, where it is not plain; not at any length.
std::string InLine(const std::string& value) {
  constexpr size_t kMost = 200;
  const bool plain = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::strchr("_-./:*+@%", c) != nullptr;
  });
  std::string text = value.substr(0, kMost);
  if (!plain) {
    text = nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  }
  return value.size() > kMost ? text + "..." : text;
}

}  // namespace

std::string DefaultKeyFile() { return ConfigFolder() + "/keys.toml"; }

void NameVariables(CLI::App* root) {
  for (CLI::App* app : SubcommandsOf(root)) {
    for (CLI::Option* option : app->get_options()) {
      if (Settable(option) && Shared(option)) option->envname(VariableOf(option->get_lnames()[0]));
    }
    NameVariables(app);
  }
}

Status ApplyEnvironment(CLI::App* root, SettingOrigins* origins) {
  for (CLI::Option* option : Called(root)->get_options()) {
    if (!Settable(option) || !Shared(option)) continue;
    const std::string variable = VariableOf(option->get_lnames()[0]);
    const char* value = std::getenv(variable.c_str());
    if (value == nullptr || value[0] == '\0') continue;
    if (IsServiceLink(value)) {
      WriteErr(
          fmt::format("kvasir: {}={} is Kubernetes' link to a service, and no setting; left out\n",
                      variable, value));
      continue;
    }
    KV_RETURN_IF_ERROR(Set(option, variable, {}, {value}, origins));
  }
  return {};
}

void WarnOfUnknownVariables(CLI::App* root) {
  std::set<std::string> known(std::begin(kOtherVariables), std::end(kOtherVariables));
  AddVariables(root, &known);
  std::string unknown;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string name(text.substr(0, text.find('=')));
    if (!name.starts_with("KVASIR_") || known.contains(name) || IsOfKubernetes(name) ||
        IsOfTests(name))
      continue;
    unknown += (unknown.empty() ? "" : ", ") + name;
  }
  if (!unknown.empty()) {
    WriteErr(fmt::format(
        "kvasir: no subcommand has an option for {} of the environment; see --help\n", unknown));
  }
}

Status ApplyConfigFile(CLI::App* root, const std::string& given, SettingOrigins* origins) {
  std::string path = given;
  if (path.empty()) {
    path = ConfigFolder() + "/config.toml";
    KV_ASSIGN(const bool exists, Exists(path));
    if (!exists) return {};
  }
  constexpr size_t kMostBytes = 1 << 20;
  KV_ASSIGN(const std::string text, ReadTextFile(path, kMostBytes));
  const Result<toml::table> table = ParseToml(text);
  if (!table.ok()) return MakeError(table.error().code, "{}: {}", path, table.error().message);
  // A subcommand's own table counts more than the top.
  KV_RETURN_IF_ERROR(ApplyTable(root, Called(root), path, "", *table, origins));
  return ApplyTop(root, path, *table, origins);
}

std::string SettingsLine(CLI::App* root, const SettingOrigins& origins) {
  std::string out;
  for (const CLI::Option* option : Called(root)->get_options()) {
    if (!Settable(option) || option->count() == 0) continue;
    const auto origin = origins.find(option);
    out += fmt::format("{}{}={} ({})", out.empty() ? "settings: " : ", ", option->get_lnames()[0],
                       InLine(fmt::format("{}", fmt::join(option->results(), ","))),
                       origin == origins.end() ? "flag" : InLine(origin->second));
  }
  return out.empty() ? out : out + "\n";
}

}  // namespace kvasir
