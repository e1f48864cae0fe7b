#include "stator/cli/planner_setup.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "stator/cli/text_file.h"
#include "stator/config/value.h"
#include "stator/net/http_url.h"

namespace stator::cli {
namespace {

using planner::Role;

std::optional<Role> role_of(std::string_view name) {
    for (const Role role : planner::kRoles) {
        if (to_string(role) == name) return role;
    }
    return std::nullopt;
}

}  // namespace

std::vector<planner::RoleOptions> read_worker_ranges(const std::vector<std::string>& items) {
    std::vector<planner::RoleOptions> out;
    for (const std::string& item : items) {
        const auto equals = item.find('=');
        const auto role = role_of(std::string_view(item).substr(0, equals));
        if (!role || equals == std::string::npos) continue;  // the settings' check has seen them
        planner::RoleOptions o;
        o.role = *role;
        const char* end = item.data() + item.size();
        const auto low = std::from_chars(item.data() + equals + 1, end, o.min);
        if (low.ptr != end) std::from_chars(low.ptr + 1, end, o.max);
        o.initial = std::max<std::uint32_t>(o.min, 1);
        out.push_back(o);
    }
    return out;
}

Result<std::vector<planner::RoleOptions>> managed_roles(const std::vector<WorkerKind>& kinds,
                                                        const config::Settings& settings,
                                                        std::size_t most) {
    if (settings.worker.count > 1) {
        return error(ErrorCode::kInvalidArgument,
                     "--planner act starts and ends whole processes: leave --count at 1.");
    }
    auto ranges = read_worker_ranges(settings.planner.workers);
    std::vector<planner::RoleOptions> out;
    std::vector<Role> seen;
    for (const WorkerKind& kind : kinds) {
        const auto role = role_of(kind.roles.empty() ? "" : kind.roles.front());
        if (!role) continue;
        if (std::ranges::find(seen, *role) != seen.end()) {
            return error(ErrorCode::kInvalidArgument,
                         "Two kinds of workers have the role {}; the planner needs one kind for "
                         "each role, so that it knows which to start.",
                         to_string(*role));
        }
        seen.push_back(*role);
        const auto range = std::ranges::find(ranges, *role, &planner::RoleOptions::role);
        if (range == ranges.end() && !ranges.empty()) continue;  // left as it is
        if (kind.attached) {
            return error(ErrorCode::kInvalidArgument,
                         "The workers {} stand beside engines that run already, which can't be "
                         "started from here; --planner advise says what there should be.",
                         kind.name);
        }
        planner::RoleOptions o;
        if (range != ranges.end()) {
            o = *range;
        } else {
            o.role = *role;
            o.max = static_cast<std::uint32_t>(std::max<std::size_t>(most, kind.count));
        }
        o.initial = std::clamp(kind.count, std::max(o.min, 1U), o.max);
        out.push_back(o);
    }
    for (const planner::RoleOptions& range : ranges) {
        if (std::ranges::find(seen, range.role) != seen.end()) continue;
        return error(ErrorCode::kInvalidArgument,
                     "--planner-workers names the role {}, of which no worker is configured.",
                     to_string(range.role));
    }
    return out;
}

Result<planner::PlannerOptions> planner_options(const config::PlannerSettings& settings) {
    planner::PlannerOptions o;
    o.slo = {.ttft_s = to_seconds(settings.ttft),
             .itl_s = to_seconds(settings.itl),
             .share = settings.share};
    o.interval_s = to_seconds(settings.interval);
    o.start_up_s = to_seconds(settings.start_up);
    o.predictor = settings.predictor;
    o.quantile = settings.quantile;
    o.device_budget = settings.devices;
    o.allow_zero = settings.to_zero;
    o.advisory = settings.mode == config::PlannerMode::kAdvise;
    o.down_after_s = to_seconds(settings.down_after);
    o.down_cooldown_s = to_seconds(settings.cooldown);
    // Windows are short where the interval is: older than some of them is stale.
    o.stale_after_s = std::max(6 * o.interval_s, 10.0);
    o.appear_within_s = std::max(3 * o.interval_s, 10.0);
    if (!settings.profile.empty()) {
        const auto text =
            read_text_file("--planner-profile", settings.profile, planner::kMaxProfileBytes);
        if (!text) return tl::unexpected(text.error());
        auto profile = planner::read_profile(*text);
        if (!profile) {
            return error(ErrorCode::kInvalidArgument, "--planner-profile {}: {}", settings.profile,
                         profile.error().message);
        }
        o.profile = *std::move(profile);
    }
    return o;
}

Result<std::vector<control::DemandScrape::Target>> scrape_targets(
    const config::PlannerSettings& settings) {
    auto key = read_key_line("--planner-scrape-key-file", settings.scrape_key_file);
    if (!key) return tl::unexpected(key.error());
    std::vector<control::DemandScrape::Target> out;
    for (const std::string& url : settings.scrape) {
        if (auto ok = net::parse_http_url(url); !ok) {
            return error(ErrorCode::kInvalidArgument, "--planner-scrape {}: {}", url,
                         ok.error().message);
        }
        out.push_back({url, *key});
    }
    return out;
}

}  // namespace stator::cli
