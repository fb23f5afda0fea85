#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace kvasir {
namespace {

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr int kAlphabetEnd = 0x100 + 68;

/// The byte of each character of the alphabet, -1 for others.
constexpr std::array<int16_t, kAlphabetEnd> MakeTable() {
  std::array<int16_t, kAlphabetEnd> table{};
  for (auto& entry : table) entry = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    table[StandsForItself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return table;
}
constexpr auto kByteOf = MakeTable();

}  // namespace

std::string FromByteLevel(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(i));
    if (c.valid && c.code < kAlphabetEnd && kByteOf[c.code] >= 0) {
      out.push_back(static_cast<char>(kByteOf[c.code]));
    } else {
      out += text.substr(i, static_cast<size_t>(c.bytes));
    }
    i += static_cast<size_t>(c.bytes);
  }
  return out;
}

}  // namespace kvasir
