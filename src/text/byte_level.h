#pragma once

#include <string>
#include <string_view>

namespace kvasir {

/// The raw bytes of a token written in GPT-2's printable alphabet (Radford et al. 2019, the
/// `bytes_to_unicode` table: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and
/// up). Characters outside of the alphabet stand for their own UTF-8.
std::string FromByteLevel(std::string_view text);

}  // namespace kvasir
