#pragma once

#include <string_view>

#include "stator/base/error.h"
#include "stator/net/http_server.h"

namespace stator::frontend {

/// Answers with the error's status and OpenAI's error object; adds Retry-After (429, 503) and
/// WWW-Authenticate (401).
void respond_error(net::HttpExchange& exchange, const Error& error);

/// The same where the status is decided by HTTP itself (405, 415).
void respond_status_error(net::HttpExchange& exchange, int status, std::string_view message);

}  // namespace stator::frontend
