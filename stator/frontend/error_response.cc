#include "stator/frontend/error_response.h"

#include <string>

#include "stator/frontend/error_mapping.h"

namespace stator::frontend {

void respond_error(net::HttpExchange& exchange, const Error& error) {
    const HttpError http = map_error(error);
    std::string body;
    append_error_json(body, error);
    if (const auto seconds = retry_after_seconds(error, http.status); seconds != 0) {
        exchange.add_header("Retry-After", std::to_string(seconds));
    }
    if (http.status == 401) exchange.add_header("WWW-Authenticate", "Bearer");
    exchange.respond(http.status, "application/json", body);
}

void respond_status_error(net::HttpExchange& exchange, int status, std::string_view message) {
    std::string body;
    append_error_json(body, message, map_status(status));
    exchange.respond(status, "application/json", body);
}

}  // namespace stator::frontend
