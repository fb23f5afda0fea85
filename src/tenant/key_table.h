#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace kvasir {

/// What a tenant may take. 0 means no limit, where nothing else is said.
struct TenantLimits {
  double weight = 1;                ///< share of the machine, relative to others'
  int64_t requests_per_minute = 0;  ///< bodies of completions
  int64_t tokens_per_minute = 0;    ///< prompt and output
  double kv_share = 0;              ///< of the KV pool's blocks, held by running sequences
  int32_t max_context = 0;          ///< tokens of one sequence, prompt and output
  int32_t priority = 0;             ///< most urgent, as Request::priority: 10 allows -10 in a body
  int32_t max_running = 0;          ///< completions open at once: prompts times choices
};

/// Somebody with API keys.
struct Tenant {
  uint64_t id = 0;  ///< made from the name, never 0: the same after a restart
  std::string name;
  bool is_operator = false;  ///< may see the cache, the metrics and the dashboard
  TenantLimits limits;
  /// Of the prefix cache: tenants with equal salts share prefixes. Random, so that nobody can make
  /// another's; one for each tenant, or for each group.
  uint64_t salt = 0;
};

/// SHA-256 of a key: what is kept of it.
using KeyHash = std::array<uint8_t, 32>;
KeyHash HashKey(std::string_view key);

/// A tenant as the key file has it.
struct TenantEntry {
  std::vector<KeyHash> keys;
  std::string group;  ///< whose members share prefixes; empty: nobody else
  bool is_operator = false;
  TenantLimits limits;
};
using KeyFile = std::map<std::string, TenantEntry>;  // by name

/// Reads a TOML file of tables [tenant.NAME]. An Error names file, tenant, field, value and limit.
Result<KeyFile> ReadKeyFile(const std::string& path);
/// While it lives, nobody else has one of the same folder: whoever changes a key file takes it
/// before reading, and keeps it until the file is written. Of two that change it at once the second
/// would write over what the first has added.
class KeyFileLock {
 public:
  /// Waits for others. `path`: the key file's; its folder is locked, so that no lock file is left
  /// for one user that another cannot open. Without a folder there is nothing to lock.
  static Result<KeyFileLock> Take(const std::string& path);
  KeyFileLock(KeyFileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~KeyFileLock();

 private:
  explicit KeyFileLock(int fd) : fd_(fd) {}
  int fd_;  // -1: none
};

/// Replaces the file at once: a reader sees the old one or the new one. Of a link, the file that it
/// leads to. A new one only its owner may read; of an old one owner, group and mode are kept, and
/// where they cannot be, it stays as it is and there is an Error. Comments of the old file are
/// lost.
Status WriteKeyFile(const std::string& path, const KeyFile& file);
/// Names are short, and letters, digits, "-", "_" and "." only.
Status CheckTenantName(const std::string& name);
/// The ranges of all limits.
Status CheckLimits(const std::string& name, const TenantLimits& limits);

/// A new key: "kv-" and 256 random bits as base64url (RFC 4648, 5).
std::string NewKey();

/// Who a key belongs to.
class KeyTable {
 public:
  /// `before`: the table that this one follows. Tenants and groups that it had keep their salts,
  /// and so their cached prefixes.
  static Result<KeyTable> Load(const std::string& path, const KeyTable* before);

  /// nullptr for an unknown key. Takes the same time for all keys: every hash is compared, and each
  /// to its end.
  const Tenant* Find(std::string_view key) const { return Find(HashKey(key)); }
  const Tenant* Find(const KeyHash& hash) const;
  const std::vector<Tenant>& tenants() const { return tenants_; }

 private:
  std::vector<Tenant> tenants_;
  std::vector<std::pair<KeyHash, size_t>> keys_;  // and whose
  std::map<std::string, uint64_t> salts_;         // by "tenant NAME" or "group NAME"
};

}  // namespace kvasir
