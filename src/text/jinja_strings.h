#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace kvasir::jinja {

// Python's string functions on UTF-8, by code points. Each takes time in proportion to its texts,
// which its caller counts; those that take the interpreter count what they do beyond that.

int64_t CodePoints(std::string_view s);
std::vector<std::string> Characters(std::string_view s);
/// Where character `index` of `s` begins; its size if it has not so many.
size_t ByteOfCharacter(std::string_view s, int64_t index);
/// Code points [begin, end) of `s`.
std::string SubString(std::string_view s, int64_t begin, int64_t end);
std::string Upper(std::string_view s);
std::string Lower(std::string_view s);
std::string Capitalize(std::string_view s);
/// str.title(): a letter after a non-letter becomes large.
std::string Title(std::string_view s);
/// As Jinja2's filter title: a letter after a space or one of -({[< becomes large, others small.
std::string TitleOfWords(std::string_view s);
/// Where `what` begins in `s`, at or after `from`; npos: nowhere. From the right: the last place.
size_t FindText(Interpreter& in, std::string_view s, std::string_view what, size_t from = 0);
size_t FindLastText(Interpreter& in, std::string_view s, std::string_view what);
/// `chars`: the characters to strip; nullptr: white space.
std::string Strip(std::string_view s, const std::string* chars, bool left, bool right);
std::string ReplaceText(Interpreter& in, std::string_view s, std::string_view from,
                        std::string_view to, int64_t count);
/// `separator` nullptr: runs of white space. `max_splits` < 0: all.
std::vector<std::string> Split(Interpreter& in, std::string_view s, const std::string* separator,
                               int64_t max_splits);
/// The same, with the splits from the right.
std::vector<std::string> RSplit(Interpreter& in, std::string_view s, const std::string* separator,
                                int64_t max_splits);
std::vector<std::string> SplitLines(Interpreter& in, std::string_view s, bool keep_ends);
bool IsWhite(uint32_t code);  ///< str.isspace of one character
/// What Python's str.isalpha, isdigit, ... ask of each character; false for "".
enum class CharClass { kAlpha, kDigit, kAlnum, kSpace, kUpper, kLower };
bool IsAll(std::string_view s, CharClass what);
/// `format % value` with %s, %r, %d, %i, %f, %x, %%, flags, width and precision.
std::string PercentFormat(const std::string& format, const Value& values);
/// str.format with {}, {0}, {name}, {{ and }}; no attributes, no formats.
std::string BraceFormat(const std::string& format, const Args& values);
std::string EscapeHtml(std::string_view s);

}  // namespace kvasir::jinja
