#pragma once

#include <optional>

#include "http/http_server.h"
#include "openai/api_error.h"

namespace kvasir {

/// Why a request is not to be answered where no key is asked for: a browser that shows a page of
/// somebody else would make it. Either its Origin is another's, whom no --cors allows; or the
/// page's name was made to point to this machine (DNS rebinding), which shows in Host, since who
/// really means a server that only this machine reaches calls it localhost or by its address.
std::optional<ApiError> FromElsewhere(const HttpOptions& options, const HttpRequest& request);

}  // namespace kvasir
