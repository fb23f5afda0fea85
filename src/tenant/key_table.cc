#include "tenant/key_table.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <cstring>
#include <utility>

#include "base/check.h"

namespace kvasir {
namespace {

void RandomBytes(uint8_t* out, int count) {
  // Without randomness there are no secrets: nothing sensible can be done.
  CHECK_EQ(RAND_bytes(out, count), 1);
}

uint64_t RandomSalt() {
  uint64_t salt = 0;
  while (salt == 0) RandomBytes(reinterpret_cast<uint8_t*>(&salt), sizeof(salt));
  return salt;
}

/// Never 0: that is everybody's, where there are no keys.
uint64_t IdOf(const std::string& name) {
  const KeyHash hash = HashKey("tenant " + name);
  uint64_t id = 0;
  std::memcpy(&id, hash.data(), sizeof(id));
  return id == 0 ? 1 : id;
}

}  // namespace

KeyHash HashKey(std::string_view key) {
  KeyHash hash;
  SHA256(reinterpret_cast<const uint8_t*>(key.data()), key.size(), hash.data());
  return hash;
}

std::string NewKey() {
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  uint8_t bytes[32];
  RandomBytes(bytes, sizeof(bytes));
  std::string key = "kv-";
  uint32_t bits = 0;
  int count = 0;
  for (const uint8_t byte : bytes) {
    bits = bits << 8 | byte;
    for (count += 8; count >= 6; count -= 6) key += kAlphabet[bits >> (count - 6) & 63];
  }
  key += kAlphabet[bits << (6 - count) & 63];
  return key;
}

Result<KeyTable> KeyTable::Load(const std::string& path, const KeyTable* before) {
  KV_ASSIGN(const KeyFile file, ReadKeyFile(path));
  KeyTable table;
  std::map<uint64_t, std::string> ids;
  for (const auto& [name, entry] : file) {
    Tenant tenant{
        .id = IdOf(name), .name = name, .is_operator = entry.is_operator, .limits = entry.limits};
    if (const auto [other, fresh] = ids.emplace(tenant.id, name); !fresh) {
      return MakeError(ErrorCode::kInvalid,
                       "{}: the tenants {} and {} cannot be told apart; rename one", path,
                       other->second, name);
    }
    const std::string owner = entry.group.empty() ? "tenant " + name : "group " + entry.group;
    uint64_t& salt = table.salts_[owner];
    if (salt == 0 && before != nullptr) {
      const auto old = before->salts_.find(owner);
      if (old != before->salts_.end()) salt = old->second;
    }
    if (salt == 0) salt = RandomSalt();
    tenant.salt = salt;
    for (const KeyHash& key : entry.keys) table.keys_.emplace_back(key, table.tenants_.size());
    table.tenants_.push_back(std::move(tenant));
  }
  return table;
}

const Tenant* KeyTable::Find(const KeyHash& hash) const {
  size_t found = tenants_.size();
  for (const auto& [known, tenant] : keys_) {
    const bool equal = CRYPTO_memcmp(known.data(), hash.data(), hash.size()) == 0;
    found = equal ? tenant : found;
  }
  return found == tenants_.size() ? nullptr : &tenants_[found];
}

}  // namespace kvasir
