#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/frontend/frontend_metrics.h"
#include "stator/frontend/router.h"

namespace stator::frontend {

/// What is known about one HTTP request, from its arrival to its access-log line. Lives on the
/// request's loop.
struct RequestRecord {
    std::string method;
    std::string path;  ///< cut to a length fit for a log
    std::string peer;
    std::string id;  ///< x-request-id
    Route route = Route::kUnknown;
    TimePoint received;

    std::string tenant;        ///< of its key; empty: none
    bool trusted_key = false;  ///< its routing hints count
    std::string model;         ///< the model's own id; empty until it is known
    const ModelMetrics* metrics = nullptr;
    std::uint64_t prompt_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::uint64_t output_tokens = 0;
    std::optional<TimePoint> first_token;
    std::uint64_t offered = 0;  ///< sequences that count as demand; 0: not yet, or sent again
    std::string
        finish;  ///< finish reasons of the choices, "stop" or "stop,length"; or an error's code
    bool inflight = false;  ///< counts against FrontendOptions::max_inflight

    /// Ends the work that goes on for the request; called when its client left.
    std::function<void()> abandon;
};

/// One line per request.
void log_access(const RequestRecord& record, int status, std::uint64_t body_bytes, TimePoint now);

}  // namespace stator::frontend
