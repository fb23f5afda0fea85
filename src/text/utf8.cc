#include "text/utf8.h"

#include <algorithm>

namespace kvasir {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// What may follow a lead byte (RFC 3629, section 4).
struct LeadByte {
  int bytes = 0;  // 0: no character starts with it
  uint8_t second_min = 0x80, second_max = 0xBF;
};

LeadByte ClassifyLead(uint8_t b) {
  if (b < 0x80) return {1};
  if (b < 0xC2) return {0};
  if (b < 0xE0) return {2};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

/// `bytes_of`: how many bytes of an invalid one U+FFFD stands for.
template <typename BytesOf>
std::string Replaced(std::string_view text, BytesOf bytes_of) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(i));
    const auto bytes = static_cast<size_t>(c.valid ? c.bytes : bytes_of(c));
    out += c.valid ? text.substr(i, bytes) : kReplacement;
    i += bytes;
  }
  return out;
}

}  // namespace

Utf8Char DecodeUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const Utf8Char invalid{.code = 0xFFFD};
  const LeadByte lead = ClassifyLead(byte(0));
  if (lead.bytes == 0) return invalid;
  if (lead.bytes == 1) return {.code = byte(0), .bytes = 1, .valid = true};
  const auto have = std::min(text.size(), static_cast<size_t>(lead.bytes));
  uint32_t code = byte(0) & (0xFFu >> (lead.bytes + 1));
  for (size_t i = 1; i < have; ++i) {
    const uint8_t min = i == 1 ? lead.second_min : 0x80, max = i == 1 ? lead.second_max : 0xBF;
    if (byte(i) < min || byte(i) > max) return {.code = 0xFFFD, .subpart = static_cast<int>(i)};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  if (have < static_cast<size_t>(lead.bytes))
    return {.code = 0xFFFD, .truncated = true, .subpart = static_cast<int>(have)};
  return {.code = code, .bytes = lead.bytes, .valid = true};
}

void AppendUtf8(uint32_t code, std::string* out) {
  const auto put = [out](uint32_t b) { out->push_back(static_cast<char>(b)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool IsValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(i));
    if (!c.valid) return false;
    i += static_cast<size_t>(c.bytes);
  }
  return true;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  return Replaced(text, [](const Utf8Char& c) { return c.subpart; });
}

std::string ReplaceInvalidBytes(std::string_view text) {
  return Replaced(text, [](const Utf8Char&) { return 1; });
}

}  // namespace kvasir
