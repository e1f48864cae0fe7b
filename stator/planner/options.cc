#include "stator/planner/options.h"

#include <algorithm>
#include <cmath>

namespace stator::planner {
namespace {

Result<void> wrong(std::string_view name, std::string_view what) {
    return error(ErrorCode::kInvalidArgument, "{} must be {}.", name, what);
}

bool between(double value, double low, double high) {
    return std::isfinite(value) && value >= low && value <= high;
}

constexpr double kLongest_s = 31'536'000;

}  // namespace

std::string_view to_string(PolicyKind kind) {
    switch (kind) {
        case PolicyKind::kPlanned:
            return "planned";
        case PolicyKind::kReactive:
            return "reactive";
        case PolicyKind::kStatic:
            return "static";
    }
    return "unknown";
}

std::optional<PolicyKind> find_policy(std::string_view name) {
    for (const PolicyKind kind :
         {PolicyKind::kPlanned, PolicyKind::kReactive, PolicyKind::kStatic}) {
        if (name == to_string(kind)) return kind;
    }
    return std::nullopt;
}

Result<void> check(const PlannerOptions& o) {
    if (o.roles.empty()) return wrong("roles", "at least one");
    for (std::size_t i = 0; i < o.roles.size(); ++i) {
        const RoleOptions& r = o.roles[i];
        if (std::ranges::find(kRoles, r.role) == kRoles.end()) return wrong("role", "a known one");
        for (std::size_t k = 0; k < i; ++k) {
            if (o.roles[k].role == r.role) {
                return error(ErrorCode::kInvalidArgument, "The role {} is managed twice.",
                             protocol::to_string(r.role));
            }
        }
        if (r.min > r.max) return wrong("min", "at most max");
        if (r.max == 0) return wrong("max", "at least 1");
        if (r.min == 0 && !o.allow_zero) return wrong("min", "at least 1 unless zero is allowed");
        if (r.max > o.most_workers) return wrong("max", "smaller");
        if (r.devices == 0) return wrong("devices", "at least 1");
    }
    struct Range {
        std::string_view name;
        double value;
        double low;
        double high;
    };
    for (const Range& r : {Range{"interval", o.interval_s, 0.01, 86'400},
                           Range{"start_up", o.start_up_s, 0, 86'400},
                           Range{"ttft", o.slo.ttft_s, 1e-6, kLongest_s},
                           Range{"itl", o.slo.itl_s, 1e-6, kLongest_s},
                           Range{"share", o.slo.share, 0.5, 0.99999},
                           Range{"quantile", o.quantile, 0.01, 0.995},
                           Range{"season", o.season_s, 1, kLongest_s},
                           Range{"zero_after", o.zero_after_s, 0, kLongest_s},
                           Range{"up_cooldown", o.up_cooldown_s, 0, kLongest_s},
                           Range{"down_cooldown", o.down_cooldown_s, 0, kLongest_s},
                           Range{"down_after", o.down_after_s, 0, kLongest_s},
                           Range{"deadband", o.deadband, 0, 1},
                           Range{"hysteresis", o.hysteresis, 0, 10},
                           Range{"appear_within", o.appear_within_s, 0, kLongest_s},
                           Range{"ready_factor", o.ready_factor, 1, 1000},
                           Range{"drain_within", o.drain_within_s, 0, kLongest_s},
                           Range{"backoff", o.backoff_s, 0, kLongest_s},
                           Range{"longest_backoff", o.longest_backoff_s, 0, kLongest_s},
                           Range{"stale_after", o.stale_after_s, 0, kLongest_s},
                           Range{"margin_gain", o.margin_gain, 0, 10},
                           Range{"least_margin", o.least_margin, 0.1, 10},
                           Range{"most_margin", o.most_margin, 0.1, 100},
                           Range{"reactive.ttft", o.reactive.ttft_s, 1e-6, kLongest_s},
                           Range{"reactive.itl", o.reactive.itl_s, 1e-6, kLongest_s},
                           Range{"reactive.sensitivity", o.reactive.sensitivity, 0, 1}}) {
        if (!between(r.value, r.low, r.high)) {
            return error(ErrorCode::kInvalidArgument, "{} must be from {} to {}.", r.name, r.low,
                         r.high);
        }
    }
    if (o.least_margin > o.most_margin) return wrong("least_margin", "at most most_margin");
    if (o.decisions == 0 || o.decisions > 100'000) return wrong("decisions", "from 1 to 100000");
    return {};
}

}  // namespace stator::planner
