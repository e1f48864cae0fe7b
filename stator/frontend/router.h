#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace stator::frontend {

/// Every path the door knows. The names of routes are also the `route` label of metrics: no
/// client-chosen text gets there.
enum class Route : std::uint8_t {
    kChatCompletions,
    kCompletions,
    kModels,
    kModel,  ///< /v1/models/{id}
    kHealth,
    kLive,
    kMetrics,
    kRouter,        ///< what the router knows, for people
    kRouterAction,  ///< /router/{action}
    kPlanner,       ///< what the planner sees and decides
    kNotServed,     ///< a route of OpenAI's that is not served here
    kUnknown,
};
inline constexpr std::size_t kRouteCount = 12;

/// "/v1/chat/completions", …; "not_served" and "unknown" for the last two. Static storage.
[[nodiscard]] std::string_view label(Route route);
/// Value of Allow: "POST" or "GET, HEAD"; empty where there are no methods.
[[nodiscard]] std::string_view allowed_methods(Route route);
[[nodiscard]] bool method_allowed(Route route, std::string_view method);

struct RouteMatch {
    Route route = Route::kUnknown;
    bool needs_key = true;  ///< everything but /health, /live and paths outside the API
    std::string model;      ///< kModel: the id, percent-decoded; kRouterAction: the action
};

/// Finds the route of a path (without the query).
[[nodiscard]] RouteMatch match_route(std::string_view path);

}  // namespace stator::frontend
