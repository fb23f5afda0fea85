#pragma once

#include <string>
#include <string_view>

namespace kvasir {

/// Whether a text has only characters that are in Unicode's normalization form C wherever they
/// stand, as most texts have. `text` is valid UTF-8, as below.
bool IsPlainNfc(std::string_view text);

/// `text` in Unicode's normalization form C (UAX #15). Time O(n log n).
std::string ToNfc(std::string_view text);

}  // namespace kvasir
