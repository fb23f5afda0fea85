#pragma once

#include <span>
#include <string_view>

namespace kvasir {

/// A file of the page, as it is in the folder web/.
struct WebFile {
  std::string_view path;  ///< its name
  std::string_view type;  ///< Content-Type
  std::string_view etag;  ///< made from its content, with the quotes
  std::string_view body;
};

/// All of them: made at build time, part of the program.
std::span<const WebFile> WebFiles();

}  // namespace kvasir
