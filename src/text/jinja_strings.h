#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace kvasir::jinja {

// Python's string functions on UTF-8, by code points.

int64_t CodePoints(std::string_view s);
std::vector<std::string> Characters(std::string_view s);
/// Code points [begin, end) of `s`.
std::string SubString(std::string_view s, int64_t begin, int64_t end);
std::string Upper(std::string_view s);
std::string Lower(std::string_view s);
std::string Capitalize(std::string_view s);
/// str.title(): a letter after a non-letter becomes large.
std::string Title(std::string_view s);
/// `chars`: the characters to strip; nullptr: white space.
std::string Strip(std::string_view s, const std::string* chars, bool left, bool right);
std::string ReplaceText(std::string_view s, std::string_view from, std::string_view to,
                        int64_t count);
/// `separator` nullptr: runs of white space. `max_splits` < 0: all.
std::vector<std::string> Split(std::string_view s, const std::string* separator,
                               int64_t max_splits);
std::vector<std::string> RSplit(std::string_view s, const std::string* separator,
                                int64_t max_splits);
std::vector<std::string> SplitLines(std::string_view s, bool keep_ends);
bool IsWhite(uint32_t code);  ///< str.isspace of one character
/// What Python's str.isalpha, isdigit, ... ask of each character; false for "".
enum class CharClass { kAlpha, kDigit, kAlnum, kSpace, kUpper, kLower };
bool IsAll(std::string_view s, CharClass what);
/// `format % value` with %s, %r, %d, %i, %f, %x, %%, flags, width and precision.
std::string PercentFormat(const std::string& format, const Value& values);
std::string EscapeHtml(std::string_view s);

}  // namespace kvasir::jinja
