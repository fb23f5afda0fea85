#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "app/commands.h"
#include "app/input.h"
#include "app/json_output.h"
#include "app/settings.h"
#include "app/terminal.h"
#include "tenant/key_table.h"

namespace kvasir {
namespace {

struct KeyFlags {
  std::string name, file, group, role, key;
  TenantLimits limits;
  bool json = false;
};

std::string PathOf(const KeyFlags& f) { return f.file.empty() ? DefaultKeyFile() : f.file; }

/// The file, or an empty one where there is none yet.
Result<KeyFile> ReadOrNone(const std::string& path) {
  KV_ASSIGN(const bool exists, Exists(path));
  if (!exists) return KeyFile();
  return ReadKeyFile(path);
}

/// What was given, by a flag or a setting; the rest stays as the tenant has it.
void TakeGiven(const CLI::App* app, const KeyFlags& f, TenantEntry* entry) {
  const auto take = [&](const char* option, auto given, auto* field) {
    if (app->count(option) > 0) *field = given;
  };
  TenantLimits* l = &entry->limits;
  take("--weight", f.limits.weight, &l->weight);
  take("--requests-per-minute", f.limits.requests_per_minute, &l->requests_per_minute);
  take("--tokens-per-minute", f.limits.tokens_per_minute, &l->tokens_per_minute);
  take("--kv-share", f.limits.kv_share, &l->kv_share);
  take("--max-context", f.limits.max_context, &l->max_context);
  take("--priority", f.limits.priority, &l->priority);
  take("--max-running", f.limits.max_running, &l->max_running);
  take("--group", f.group, &entry->group);
  take("--role", f.role == "operator", &entry->is_operator);
}

/// A key's hash as the file has it, as far as people need it to tell keys apart.
std::string Hex(const KeyHash& hash) { return fmt::format("{:02x}", fmt::join(hash, "")); }
std::string Prefix(const KeyHash& hash) {
  constexpr size_t kShown = 8;
  return Hex(hash).substr(0, kShown);
}

Result<int> AddKey(const CLI::App* app, const KeyFlags& f) {
  KV_RETURN_IF_ERROR(InFlags(CheckTenantName(f.name)));
  if (!f.group.empty()) KV_RETURN_IF_ERROR(InFlags(CheckTenantName(f.group)));
  if (!f.role.empty() && f.role != "user" && f.role != "operator")
    return FlagError("--role is \"{}\"; use user or operator", f.role);
  const std::string path = PathOf(f);
  std::error_code ignored;  // a folder that cannot be made shows when the file is written
  std::filesystem::create_directories(std::filesystem::absolute(path).parent_path(), ignored);
  KV_ASSIGN(const KeyFileLock lock, KeyFileLock::Take(path));
  KV_ASSIGN(KeyFile file, ReadOrNone(path));
  TenantEntry& entry = file[f.name];
  TakeGiven(app, f, &entry);
  KV_RETURN_IF_ERROR(InFlags(CheckLimits(f.name, entry.limits)));
  const std::string key = NewKey();
  entry.keys.push_back(HashKey(key));
  KV_RETURN_IF_ERROR(WriteKeyFile(path, file));
  const bool told =
      f.json ? PrintJson({{"name", f.name}, {"key", key}, {"file", path}}) : WriteOut(key + "\n");
  if (!told) {
    const std::string prefix = Prefix(HashKey(key));
    return MakeError(
        ErrorCode::kIo,
        "the key is in {}, but cannot be written to standard output ({}), so that nobody has it; "
        "forget it: kvasir key remove {}{}",
        path, std::strerror(OutputError() == 0 ? EPIPE : OutputError()), f.name,
        entry.keys.size() > 1 ? " --key " + prefix : "");
  }
  if (!f.json) {
    WriteErr(
        fmt::format("a key of {}; only its hash is kept, in {}: note it now. A running server "
                    "takes it after SIGHUP; one that was started without keys has to be started "
                    "again\n",
                    f.name, path));
  }
  return kExitOk;
}

constexpr char kRow[] = "{:<24} {:<9} {:<12} {:>6} {:>8} {:>10} {:>8} {:>8} {:>7} {:>8}  {}\n";

Result<int> ListKeys(const KeyFlags& f) {
  KV_ASSIGN(const KeyFile file, ReadOrNone(PathOf(f)));
  if (file.empty() && !f.json) {
    WriteErr("no keys yet: kvasir key add NAME\n");
    return kExitOk;
  }
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::string text = fmt::format(kRow, "name", "role", "group", "weight", "req/min", "tok/min",
                                 "kv share", "context", "running", "priority", "keys (SHA-256)");
  for (const auto& [name, e] : file) {
    const TenantLimits& l = e.limits;
    const char* role = e.is_operator ? "operator" : "user";
    std::vector<std::string> prefixes;
    for (const KeyHash& hash : e.keys) prefixes.push_back(Prefix(hash));
    list.push_back({{"name", name},
                    {"role", role},
                    {"group", e.group},
                    {"keys", e.keys.size()},
                    {"key_sha256_prefixes", prefixes},
                    {"weight", l.weight},
                    {"requests_per_minute", l.requests_per_minute},
                    {"tokens_per_minute", l.tokens_per_minute},
                    {"kv_share", l.kv_share},
                    {"max_context", l.max_context},
                    {"priority", l.priority},
                    {"max_running", l.max_running}});
    const auto limit = [](auto value) { return value == 0 ? "-" : fmt::format("{}", value); };
    text += fmt::format(kRow, name, role, e.group.empty() ? "-" : e.group, l.weight,
                        limit(l.requests_per_minute), limit(l.tokens_per_minute), limit(l.kv_share),
                        limit(l.max_context), limit(l.max_running), l.priority,
                        fmt::join(prefixes, " "));
  }
  if (f.json) {
    PrintJson({{"tenants", list}});
  } else {
    WriteOut(text);
  }
  return kExitOk;
}

/// Takes the one key of `tenant` whose hash begins with `prefix`.
Status RemoveKey(const std::string& name, const std::string& prefix, TenantEntry* tenant) {
  const auto begins = [&](const KeyHash& hash) { return Hex(hash).starts_with(prefix); };
  const auto found = std::count_if(tenant->keys.begin(), tenant->keys.end(), begins);
  if (found != 1) {
    return MakeError(ErrorCode::kNotFound,
                     "{} of the {} keys of {} begin with {}; see kvasir key list", found,
                     tenant->keys.size(), name, prefix);
  }
  if (tenant->keys.size() == 1) {
    return MakeError(ErrorCode::kInvalid,
                     "{} is the only key of {}; add another first, or leave --key out: the tenant "
                     "is forgotten then",
                     prefix, name);
  }
  tenant->keys.erase(std::find_if(tenant->keys.begin(), tenant->keys.end(), begins));
  return {};
}

Result<int> RemoveKeys(const CLI::App* app, const KeyFlags& f) {
  const bool one = app->count("--key") > 0;
  if (one && (f.key.empty() || f.key.find_first_not_of("0123456789abcdef") != std::string::npos)) {
    return FlagError(
        "--key is \"{}\"; it must be the first hex digits of a key's SHA-256, as kvasir key list "
        "shows them",
        f.key);
  }
  const std::string path = PathOf(f);
  KV_ASSIGN(const KeyFileLock lock, KeyFileLock::Take(path));
  KV_ASSIGN(KeyFile file, ReadKeyFile(path));
  const auto it = file.find(f.name);
  if (it == file.end())
    return MakeError(ErrorCode::kNotFound, "{} has no tenant {}; see kvasir key list", path,
                     f.name);
  const size_t keys = one ? 1 : it->second.keys.size();
  if (one) {
    KV_RETURN_IF_ERROR(RemoveKey(f.name, f.key, &it->second));
  } else {
    file.erase(it);
  }
  KV_RETURN_IF_ERROR(WriteKeyFile(path, file));
  if (f.json) {
    PrintJson({{"name", f.name}, {"removed", keys}, {"file", path}});
  } else if (one) {
    WriteErr(fmt::format("the key {} of {} is gone; a running server forgets it after SIGHUP\n",
                         f.key, f.name));
  } else {
    WriteErr(fmt::format(
        "{} and its {} keys are gone; a running server forgets them after SIGHUP\n", f.name, keys));
  }
  return kExitOk;
}

void AddFileFlags(CLI::App* app, KeyFlags* f) {
  // Not the text that KVASIR_FILE would be to others.
  app->add_option("--file", f->file, "the key file (default: keys.toml in the config folder)")
      ->type_name("FILE")
      ->configurable(false);
  app->add_flag("--json", f->json, "one JSON object on stdout");
}

}  // namespace

Command AddKeyCommand(CLI::App* root) {
  auto f = std::make_shared<KeyFlags>();
  CLI::App* app =
      root->add_subcommand("key", "API keys of the server's tenants: add, list, remove");
  app->require_subcommand(1);
  CLI::App* add = app->add_subcommand(
      "add", "Make a key. A name that is there gets another key, and keeps what is not given");
  add->add_option("name", f->name, "the tenant")->required()->type_name("NAME");
  add->add_option("--role", f->role, "user, or operator: may see the cache, metrics, dashboard")
      ->type_name("ROLE");
  add->add_option("--group", f->group, "whose members share cached prefixes")->type_name("GROUP");
  add->add_option("--weight", f->limits.weight, "share of the machine, relative to others'")
      ->type_name("W");
  add->add_option("--requests-per-minute", f->limits.requests_per_minute, "0: no limit")
      ->type_name("N");
  add->add_option("--tokens-per-minute", f->limits.tokens_per_minute,
                  "prompt and output; 0: no limit")
      ->type_name("N");
  add->add_option("--kv-share", f->limits.kv_share,
                  "of the KV pool for its running sequences, 0 to 1; 0: no limit")
      ->type_name("F");
  add->add_option("--max-context", f->limits.max_context, "tokens of a sequence; 0: the server's")
      ->type_name("N");
  add->add_option("--priority", f->limits.priority, "the highest that a request may ask for")
      ->type_name("N");
  add->add_option("--max-running", f->limits.max_running, "completions at once; 0: no limit")
      ->type_name("N");
  AddFileFlags(add, f.get());
  CLI::App* list = app->add_subcommand("list", "Tenants, their roles and limits");
  AddFileFlags(list, f.get());
  CLI::App* remove = app->add_subcommand("remove", "Forget a tenant and all its keys, or one key");
  remove->add_option("name", f->name, "the tenant")->required()->type_name("NAME");
  // No setting: it would turn the next `key remove` into another one.
  remove
      ->add_option("--key", f->key,
                   "this key alone: how its SHA-256 begins, as kvasir key list has it")
      ->type_name("PREFIX")
      ->configurable(false);
  AddFileFlags(remove, f.get());
  return [f, add, list, remove] {
    if (add->parsed()) return AddKey(add, *f);
    return list->parsed() ? ListKeys(*f) : RemoveKeys(remove, *f);
  };
}

}  // namespace kvasir
