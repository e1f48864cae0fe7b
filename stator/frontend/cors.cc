#include "stator/frontend/cors.h"

#include <algorithm>
#include <utility>

namespace stator::frontend {
namespace {

constexpr std::string_view kDefaultHeaders = "authorization, content-type, x-api-key, x-request-id";

/// A list of header names as browsers send it; anything else is not given back.
bool is_header_list(std::string_view list) {
    constexpr std::size_t kLongest = 1024;
    return !list.empty() && list.size() <= kLongest && std::ranges::all_of(list, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_' || c == ',' || c == ' ';
    });
}

}  // namespace

CorsPolicy::CorsPolicy(std::vector<std::string> origins) : origins_(std::move(origins)) {
    any_ = std::ranges::find(origins_, "*") != origins_.end();
}

bool CorsPolicy::allows(std::string_view origin) const {
    return !origin.empty() && (any_ || std::ranges::find(origins_, origin) != origins_.end());
}

void CorsPolicy::add_headers(net::HttpExchange& exchange) const {
    if (!enabled()) return;
    if (!any_) exchange.add_header("Vary", "Origin");
    const std::string_view origin = exchange.request().header("origin");
    if (!allows(origin)) return;
    exchange.add_header("Access-Control-Allow-Origin", any_ ? "*" : origin);
    exchange.add_header("Access-Control-Expose-Headers", "x-request-id, retry-after");
}

bool CorsPolicy::is_preflight(const net::HttpRequest& request) const {
    return enabled() && request.method == "OPTIONS" && !request.header("origin").empty() &&
           !request.header("access-control-request-method").empty();
}

void CorsPolicy::answer_preflight(net::HttpExchange& exchange, Route route) const {
    const net::HttpRequest& request = exchange.request();
    if (allows(request.header("origin"))) {
        const std::string_view methods = allowed_methods(route);
        exchange.add_header("Access-Control-Allow-Methods",
                            methods.empty() ? "GET, POST" : methods);
        const std::string_view wanted = request.header("access-control-request-headers");
        exchange.add_header("Access-Control-Allow-Headers",
                            is_header_list(wanted) ? wanted : kDefaultHeaders);
        exchange.add_header("Access-Control-Max-Age", "600");
    }
    exchange.respond(204, "", "");
}

}  // namespace stator::frontend
