#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/toml_text.h"
#include "tenant/key_table.h"

namespace kvasir {
namespace {

constexpr size_t kMostBytes = 16 << 20;
constexpr size_t kMostNameBytes = 64;
constexpr size_t kMostKeys = 1000;  // of a tenant

std::string Hex(const KeyHash& hash) {
  std::string out;
  for (const uint8_t byte : hash) out += fmt::format("{:02x}", byte);
  return out;
}

std::optional<KeyHash> ParseHex(std::string_view text) {
  KeyHash hash;
  if (text.size() != 2 * hash.size()) return {};
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  for (size_t i = 0; i < hash.size(); ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return {};
    hash[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return hash;
}

/// Reads one [tenant.NAME]. Errors are without the file's name.
class EntryReader {
 public:
  EntryReader(const std::string& name, const toml::table& table) : name_(name), table_(table) {}

  Result<TenantEntry> Read() {
    TenantEntry e;
    std::string role = "user";
    KV_RETURN_IF_ERROR(Keys(&e.keys));
    KV_RETURN_IF_ERROR(String("group", &e.group));
    KV_RETURN_IF_ERROR(String("role", &role));
    KV_RETURN_IF_ERROR(Number("weight", &e.limits.weight));
    KV_RETURN_IF_ERROR(Integer("requests_per_minute", &e.limits.requests_per_minute));
    KV_RETURN_IF_ERROR(Integer("tokens_per_minute", &e.limits.tokens_per_minute));
    KV_RETURN_IF_ERROR(Number("kv_share", &e.limits.kv_share));
    KV_RETURN_IF_ERROR(Integer("max_context", &e.limits.max_context));
    KV_RETURN_IF_ERROR(Integer("priority", &e.limits.priority));
    KV_RETURN_IF_ERROR(Integer("max_running", &e.limits.max_running));
    if (role != "user" && role != "operator")
      return Wrong("role", fmt::format("is \"{}\"; use \"user\" or \"operator\"", role));
    e.is_operator = role == "operator";
    if (!e.group.empty()) KV_RETURN_IF_ERROR(CheckTenantName(e.group));
    for (const auto& [key, value] : table_) {
      if (known_.count(std::string(key.str())) == 0)
        return Wrong(std::string(key.str()), "is not known");
    }
    KV_RETURN_IF_ERROR(CheckLimits(name_, e.limits));
    return e;
  }

 private:
  Error Wrong(const std::string& field, const std::string& what) const {
    return MakeError(ErrorCode::kInvalid, "tenant {}: {} {}", name_, field, what);
  }
  const toml::node* Get(const std::string& field) {
    known_.insert(field);
    return table_.get(field);
  }
  Status String(const std::string& field, std::string* out) {
    const toml::node* node = Get(field);
    if (node == nullptr) return {};
    if (!node->is_string()) return Wrong(field, "must be a string");
    *out = node->ref<std::string>();
    return {};
  }
  Status Number(const std::string& field, double* out) {
    const toml::node* node = Get(field);
    if (node == nullptr) return {};
    if (!node->is_number()) return Wrong(field, "must be a number");
    *out = node->value<double>().value_or(0);
    return {};
  }
  template <typename T>
  Status Integer(const std::string& field, T* out) {
    const toml::node* node = Get(field);
    if (node == nullptr) return {};
    if (!node->is_integer()) return Wrong(field, "must be an integer");
    const int64_t value = node->ref<int64_t>();
    if (value != static_cast<T>(value))
      return Wrong(field, fmt::format("is {}, which is too large", value));
    *out = static_cast<T>(value);
    return {};
  }
  Status Keys(std::vector<KeyHash>* out) {
    const toml::node* node = Get("key_sha256");
    if (node == nullptr) return {};
    const toml::array* list = node->as_array();
    if (list == nullptr) return Wrong("key_sha256", "must be a list of SHA-256 hashes in hex");
    if (list->size() > kMostKeys) {
      return Wrong("key_sha256",
                   fmt::format("has {} keys; {} are possible", list->size(), kMostKeys));
    }
    for (const toml::node& item : *list) {
      const auto hash = item.is_string() ? ParseHex(item.ref<std::string>()) : std::nullopt;
      if (!hash) return Wrong("key_sha256", "must be a list of SHA-256 hashes in hex");
      out->push_back(*hash);
    }
    return {};
  }

  const std::string& name_;
  const toml::table& table_;
  std::set<std::string> known_;
};

Result<KeyFile> ParseKeyFile(const std::string& text) {
  KV_ASSIGN(const toml::table root, ParseToml(text));
  KeyFile out;
  std::map<KeyHash, std::string> owners;
  for (const auto& [key, node] : root) {
    if (key.str() != "tenant" || !node.is_table()) {
      return MakeError(ErrorCode::kInvalid, "{} is not known; tenants are tables [tenant.NAME]",
                       key.str());
    }
  }
  const toml::table* tenants = root["tenant"].as_table();
  if (tenants == nullptr) return out;
  for (const auto& [key, node] : *tenants) {
    const std::string name(key.str());
    KV_RETURN_IF_ERROR(CheckTenantName(name));
    if (!node.is_table())
      return MakeError(ErrorCode::kInvalid, "tenant {} is no table [tenant.{}]", name, name);
    KV_ASSIGN(TenantEntry entry, EntryReader(name, *node.as_table()).Read());
    for (const KeyHash& hash : entry.keys) {
      if (const auto [owner, fresh] = owners.emplace(hash, name); !fresh) {
        return MakeError(ErrorCode::kInvalid, "the key {}... is there twice, for {} and {}",
                         Hex(hash).substr(0, 8), owner->second, name);
      }
    }
    out.emplace(name, std::move(entry));
  }
  return out;
}

std::string Print(const KeyFile& file) {
  std::string out =
      "# API keys: each tenant's SHA-256 hashes, its shares and limits (docs/tenants.md). Written "
      "by\n# `kvasir key`.\n";
  const TenantLimits none;
  for (const auto& [name, e] : file) {
    out += fmt::format("\n[tenant.\"{}\"]\nkey_sha256 = [", name);
    for (size_t i = 0; i < e.keys.size(); ++i)
      out += fmt::format("{}\"{}\"", i == 0 ? "" : ", ", Hex(e.keys[i]));
    out += "]\n";
    const auto put = [&](const char* field, auto value, auto usual) {
      if (value != usual) out += fmt::format("{} = {}\n", field, value);
    };
    if (e.is_operator) out += "role = \"operator\"\n";
    if (!e.group.empty()) out += fmt::format("group = \"{}\"\n", e.group);
    put("weight", e.limits.weight, none.weight);
    put("requests_per_minute", e.limits.requests_per_minute, none.requests_per_minute);
    put("tokens_per_minute", e.limits.tokens_per_minute, none.tokens_per_minute);
    put("kv_share", e.limits.kv_share, none.kv_share);
    put("max_context", e.limits.max_context, none.max_context);
    put("priority", e.limits.priority, none.priority);
    put("max_running", e.limits.max_running, none.max_running);
  }
  return out;
}

/// What a link at `path` leads to, also where nothing is there yet; `path` itself where it is none.
std::string BehindLinks(const std::string& path) {
  constexpr int kMostLinks = 40;  // as the system
  std::filesystem::path out = path;
  std::error_code error;
  for (int i = 0; i < kMostLinks; ++i) {
    const std::filesystem::path target = std::filesystem::read_symlink(out, error);
    if (error) break;
    out = out.parent_path() / target;
  }
  return out;
}

Error CannotWrite(const std::string& path) {
  return MakeError(ErrorCode::kIo, "cannot write {}: {}", path, std::strerror(errno));
}

/// Gives a new file the owner, group and mode of the one at `path`, if there is one: the server
/// that reads it may run as another user than the one who adds a key.
Status KeepOwnerAndMode(int fd, const std::string& path) {
  struct stat before {};
  struct stat now {};
  if (stat(path.c_str(), &before) != 0) {
    if (errno == ENOENT) return {};
    return MakeError(ErrorCode::kIo, "cannot look for {}: {}", path, std::strerror(errno));
  }
  if (fstat(fd, &now) != 0) return CannotWrite(path);
  const bool same = before.st_uid == now.st_uid && before.st_gid == now.st_gid;
  if (!same && fchown(fd, before.st_uid, before.st_gid) != 0) {
    return MakeError(
        ErrorCode::kIo,
        "{} belongs to user {} and group {}, who could not read it any more if it were "
        "replaced: {}; run this as root or as that user",
        path, before.st_uid, before.st_gid, std::strerror(errno));
  }
  if (fchmod(fd, before.st_mode & 0777) != 0) return CannotWrite(path);
  return {};
}

Status WriteAll(int fd, const std::string& path, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return CannotWrite(path);
    at += static_cast<size_t>(n);
  }
  if (fsync(fd) != 0) return CannotWrite(path);
  return {};
}

/// For a message: without what would begin a new line or command a terminal.
std::string InOneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == 0x7F; }, '?');
  return text;
}

}  // namespace

Status CheckTenantName(const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
  if (name.empty() || name.size() > kMostNameBytes || !plain) {
    return MakeError(ErrorCode::kInvalid,
                     "\"{}\" is no name: use 1 to {} letters, digits, \"-\", \"_\" or \".\"",
                     InOneLine(name.substr(0, kMostNameBytes)), kMostNameBytes);
  }
  return {};
}

Status CheckLimits(const std::string& name, const TenantLimits& l) {
  const auto wrong = [&](const char* field, auto value, auto least, auto most) {
    return MakeError(ErrorCode::kInvalid, "tenant {}: {} is {}; it must be from {} to {}", name,
                     field, value, least, most);
  };
  constexpr int64_t kMostRate = 1'000'000'000'000;
  if (!(l.weight >= 0.001 && l.weight <= 1000)) return wrong("weight", l.weight, 0.001, 1000);
  if (l.requests_per_minute < 0 || l.requests_per_minute > kMostRate)
    return wrong("requests_per_minute", l.requests_per_minute, 0, kMostRate);
  if (l.tokens_per_minute < 0 || l.tokens_per_minute > kMostRate)
    return wrong("tokens_per_minute", l.tokens_per_minute, 0, kMostRate);
  if (!(l.kv_share >= 0 && l.kv_share <= 1)) return wrong("kv_share", l.kv_share, 0, 1);
  if (l.max_context < 0) return wrong("max_context", l.max_context, 0, INT32_MAX);
  if (l.priority < -100 || l.priority > 100) return wrong("priority", l.priority, -100, 100);
  if (l.max_running < 0) return wrong("max_running", l.max_running, 0, INT32_MAX);
  return {};
}

Result<KeyFile> ReadKeyFile(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error)
    return MakeError(ErrorCode::kNotFound, "cannot open the key file {}: {}", path,
                     error.message());
  if (size > kMostBytes) {
    return MakeError(ErrorCode::kInvalid, "the key file {} has {} bytes; {} are possible", path,
                     size, kMostBytes);
  }
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in.is_open() || in.bad())
    return MakeError(ErrorCode::kIo, "cannot read the key file {}: {}", path, std::strerror(errno));
  Result<KeyFile> file = ParseKeyFile(text.str());
  if (!file.ok()) return MakeError(file.error().code, "{}: {}", path, file.error().message);
  return file;
}

Result<KeyFileLock> KeyFileLock::Take(const std::string& path) {
  const std::string folder = std::filesystem::path(BehindLinks(path)).parent_path();
  const char* at = folder.empty() ? "." : folder.c_str();
  const int fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // Reading or writing the file will tell.
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return KeyFileLock(-1);
  if (fd < 0) {
    return MakeError(ErrorCode::kIo, "cannot lock the folder {} of the key file: {}", at,
                     std::strerror(errno));
  }
  KeyFileLock lock(fd);
  int failed = flock(fd, LOCK_EX);
  while (failed != 0 && errno == EINTR) failed = flock(fd, LOCK_EX);
  // Some file systems of a network lock no folders: there it is as it was without a lock.
  if (failed != 0 && errno != EBADF && errno != ENOLCK && errno != EOPNOTSUPP) {
    return MakeError(ErrorCode::kIo, "cannot lock the folder {} of the key file: {}", at,
                     std::strerror(errno));
  }
  return lock;
}

KeyFileLock::~KeyFileLock() {
  if (fd_ >= 0) close(fd_);
}

Status WriteKeyFile(const std::string& given, const KeyFile& file) {
  const std::string path = BehindLinks(given);
  // A name of its own, for the owner alone: two that write at once are not in one another's way.
  std::string fresh = path + ".XXXXXX";
  const int fd = mkostemp(fresh.data(), O_CLOEXEC);
  if (fd < 0) return CannotWrite(path);
  Status status = KeepOwnerAndMode(fd, path);
  if (status.ok()) status = WriteAll(fd, fresh, Print(file));
  close(fd);
  if (status.ok() && rename(fresh.c_str(), path.c_str()) != 0) status = CannotWrite(path);
  if (!status.ok()) unlink(fresh.c_str());
  return status;
}

}  // namespace kvasir
