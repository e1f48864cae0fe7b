#include "stator/frontend/router.h"

#include <array>
#include <charconv>

namespace stator::frontend {
namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";
constexpr std::string_view kRouterPrefix = "/router/";

/// OpenAI's API beyond what is served here: the family itself and all below it.
constexpr std::array<std::string_view, 20> kNotServedFamilies = {
    "/v1/embeddings",  "/v1/images",        "/v1/audio",   "/v1/responses",
    "/v1/files",       "/v1/uploads",       "/v1/batches", "/v1/fine_tuning",
    "/v1/moderations", "/v1/assistants",    "/v1/threads", "/v1/vector_stores",
    "/v1/realtime",    "/v1/edits",         "/v1/engines", "/v1/evals",
    "/v1/containers",  "/v1/conversations", "/v1/videos",  "/v1/chat/completions",
};

bool in_family(std::string_view path, std::string_view family) {
    return path.starts_with(family) && (path.size() == family.size() || path[family.size()] == '/');
}

/// Ill-formed escapes stay as they are.
std::string percent_decoded(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned value = 0;
        if (text[i] == '%' && i + 2 < text.size()) {
            const char* first = text.data() + i + 1;
            const auto [end, ec] = std::from_chars(first, first + 2, value, 16);
            if (ec == std::errc() && end == first + 2) {
                out += static_cast<char>(value);
                i += 2;
                continue;
            }
        }
        out += text[i];
    }
    return out;
}

}  // namespace

std::string_view label(Route route) {
    switch (route) {
        case Route::kChatCompletions:
            return "/v1/chat/completions";
        case Route::kCompletions:
            return "/v1/completions";
        case Route::kModels:
            return "/v1/models";
        case Route::kModel:
            return "/v1/models/{id}";
        case Route::kHealth:
            return "/health";
        case Route::kLive:
            return "/live";
        case Route::kMetrics:
            return "/metrics";
        case Route::kRouter:
            return "/router";
        case Route::kRouterAction:
            return "/router/{action}";
        case Route::kPlanner:
            return "/planner";
        case Route::kNotServed:
            return "not_served";
        case Route::kUnknown:
            return "unknown";
    }
    return "unknown";
}

std::string_view allowed_methods(Route route) {
    switch (route) {
        case Route::kChatCompletions:
        case Route::kCompletions:
        case Route::kRouterAction:
            return "POST";
        case Route::kModels:
        case Route::kModel:
        case Route::kHealth:
        case Route::kLive:
        case Route::kMetrics:
        case Route::kRouter:
        case Route::kPlanner:
            return "GET, HEAD";
        case Route::kNotServed:
        case Route::kUnknown:
            return "";
    }
    return "";
}

bool method_allowed(Route route, std::string_view method) {
    const std::string_view allowed = allowed_methods(route);
    if (allowed == "POST") return method == "POST";
    return !allowed.empty() && (method == "GET" || method == "HEAD");
}

RouteMatch match_route(std::string_view path) {
    const auto keyed = [](Route r) { return RouteMatch{r, true, {}}; };
    if (path == "/v1/chat/completions") return keyed(Route::kChatCompletions);
    if (path == "/v1/completions") return keyed(Route::kCompletions);
    if (path == "/v1/models") return keyed(Route::kModels);
    if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size()) {
        return {Route::kModel, true, percent_decoded(path.substr(kModelPrefix.size()))};
    }
    if (path == "/health") return {Route::kHealth, false, {}};
    if (path == "/live") return {Route::kLive, false, {}};
    if (path == "/metrics") return keyed(Route::kMetrics);
    if (path == "/planner" || path == "/planner/decisions") return keyed(Route::kPlanner);
    if (path == "/router") return keyed(Route::kRouter);
    if (path.starts_with(kRouterPrefix) && path.size() > kRouterPrefix.size()) {
        return {Route::kRouterAction, true, std::string(path.substr(kRouterPrefix.size()))};
    }
    for (const std::string_view family : kNotServedFamilies) {
        if (in_family(path, family)) return keyed(Route::kNotServed);
    }
    return {Route::kUnknown, in_family(path, "/v1"), {}};
}

}  // namespace stator::frontend
