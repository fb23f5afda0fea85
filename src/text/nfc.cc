#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

struct Range {
  uint32_t first, last;
};

/// Neither decomposed, nor moved, nor merged with what is before them (of what is assigned).
constexpr Range kPlain[] = {{0x0, 0x2FF},     {0x400, 0x482},   {0x48A, 0x52F},
                            {0x5D0, 0x5EA},   {0x2010, 0x2027}, {0x3001, 0x3029},
                            {0x3041, 0x3096}, {0x30A1, 0x30FF}, {0x3400, 0x9FFF},
                            {0xAC00, 0xD7A3}, {0xFF01, 0xFFEE}, {0x1F300, 0x1FAFF}};

bool IsPlain(uint32_t code) {
  for (const Range& r : kPlain) {
    if (code <= r.last) return code >= r.first;
  }
  return false;
}

/// Whether what is before a character is normalized without it. Letters that join what is before
/// them are the vowels and finals of Hangul, and the vowels of Kirat Rai.
bool StartsPiece(uint32_t code) {
  if (IsPlain(code)) return true;
  const auto joins = [code](uint32_t first, uint32_t last) {
    return code >= first && code <= last;
  };
  if (joins(0x1160, 0x11FF) || joins(0xD7B0, 0xD7FF) || joins(0x16D63, 0x16D6A)) return false;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category != UTF8PROC_CATEGORY_MN && category != UTF8PROC_CATEGORY_MC &&
         category != UTF8PROC_CATEGORY_ME;
}

int CombiningClass(int32_t code) { return utf8proc_get_property(code)->combining_class; }

/// Each run of marks in the order of their classes. utf8proc's own sort takes quadratic time, and a
/// request may have a million marks on one letter.
void OrderMarks(std::vector<int32_t>* codes) {
  const auto is_mark = [](int32_t c) { return CombiningClass(c) != 0; };
  for (auto at = codes->begin(); at != codes->end();) {
    at = std::find_if(at, codes->end(), is_mark);
    const auto end = std::find_if_not(at, codes->end(), is_mark);
    std::stable_sort(at, end,
                     [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    at = end;
  }
}

void AppendNfc(std::string_view piece, std::vector<int32_t>* codes, std::string* out) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  codes->clear();
  for (size_t at = 0; at < piece.size();) {
    const Utf8Char c = DecodeUtf8(piece.substr(at));
    utf8proc_int32_t parts[8];
    int state = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.code), parts,
                                           std::ssize(parts), kOptions, &state);
    CHECK(n > 0 && n <= std::ssize(parts));  // Unicode's longest is 4
    codes->insert(codes->end(), parts, parts + n);
    at += static_cast<size_t>(c.bytes);
  }
  OrderMarks(codes);
  const auto n = utf8proc_normalize_utf32(codes->data(), std::ssize(*codes), kOptions);
  CHECK(n >= 0);
  for (utf8proc_ssize_t i = 0; i < n; ++i) AppendUtf8(static_cast<uint32_t>((*codes)[i]), out);
}

}  // namespace

bool IsPlainNfc(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(at));
    if (!IsPlain(c.code)) return false;
    at += static_cast<size_t>(c.bytes);
  }
  return true;
}

std::string ToNfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::vector<int32_t> codes;
  // Piece by piece: what it takes goes by the longest one, which is a letter and its marks.
  size_t begin = 0;
  bool plain = true;
  const auto take_until = [&](size_t end) {
    const std::string_view piece = text.substr(begin, end - begin);
    if (plain) {
      out += piece;
    } else {
      AppendNfc(piece, &codes, &out);
    }
    begin = end;
  };
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(at));
    if (StartsPiece(c.code)) {
      take_until(at);
      plain = true;
    }
    plain = plain && IsPlain(c.code);
    at += static_cast<size_t>(c.bytes);
  }
  take_until(text.size());
  return out;
}

}  // namespace kvasir
