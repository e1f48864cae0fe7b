#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/frontend/model_directory.h"

namespace stator::frontend {

/// Where the door stands: starting → ready → draining; draining can go back to ready.
enum class Readiness : std::uint8_t { kStarting, kReady, kDraining };

struct HealthReport {
    int status = 200;  ///< 200 only where the door is ready and every engine is healthy; else 503
    std::string body;
};

/// The answer to GET /health.
[[nodiscard]] HealthReport health_report(Readiness readiness, const ModelDirectory& models,
                                         double uptime_seconds, std::int64_t inflight);

}  // namespace stator::frontend
