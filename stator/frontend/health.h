#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/codec/json_writer.h"
#include "stator/frontend/model_directory.h"

namespace stator::frontend {

/// Where the door stands: starting → ready → draining; draining can go back to ready.
enum class Readiness : std::uint8_t { kStarting, kReady, kDraining };

struct HealthReport {
    /// 200 where the door is ready and at least one model has a healthy engine ("degraded" where
    /// not all have, or where something is to be worried about); else 503.
    int status = 200;
    std::string body;
};

/// The answer to GET /health. `relay_healthy`: requests can be passed on, so a door without models
/// of its own is as good as one with.
/// `append_fleet` writes the value of "fleet"; may be empty. `concerns`: what is not as it should
/// be though requests are served, a sentence each, shown as "degraded".
[[nodiscard]] HealthReport health_report(
    Readiness readiness, const ModelDirectory& models, double uptime_seconds, std::int64_t inflight,
    const std::function<void(codec::JsonWriter&)>& append_fleet,
    const std::vector<std::string>& concerns = {}, bool relay_healthy = false);

}  // namespace stator::frontend
