#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/terminal.h"

namespace kvasir {

/// One JSON object and a newline on stdout. Bytes that are no UTF-8 become U+FFFD.
inline bool PrintJson(const nlohmann::ordered_json& json) {
  return WriteOut(json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                  "\n");
}

}  // namespace kvasir
