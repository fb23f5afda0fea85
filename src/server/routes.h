#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "http/http_server.h"
#include "server/server_state.h"

namespace kvasir {

/// Finds what a request asks for, checks who asks, and has it answered. What is checked and what is
/// called come from the same row of one table. On the I/O thread.
void Route(ServerState* state, HttpRequest&& request, std::shared_ptr<HttpReply> http);

/// The API key that a request was sent with; empty: none.
std::string_view KeyOf(const HttpRequest& request);

/// HttpAdmit by the same table: the tenant whose body it is, or nothing for what Route refuses.
std::optional<uint64_t> Admit(const ServerState& state, const HttpRequest& head);

}  // namespace kvasir
