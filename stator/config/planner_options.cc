#include <algorithm>
#include <array>
#include <charconv>

#include "stator/config/option_table.h"
#include "stator/config/value.h"

namespace stator::config::table {
namespace {

constexpr std::array<std::string_view, 4> kRoleNames{"aggregated", "prefill", "decode", "encode"};

/// ROLE=MIN-MAX
Result<void> check_ranges(const std::vector<std::string>& items) {
    for (const std::string& item : items) {
        const auto equals = item.find('=');
        const std::string_view role = std::string_view(item).substr(0, equals);
        bool right =
            equals != std::string::npos && std::ranges::find(kRoleNames, role) != kRoleNames.end();
        if (right) {
            std::uint32_t low = 0;
            std::uint32_t high = 0;
            const char* end = item.data() + item.size();
            const auto first = std::from_chars(item.data() + equals + 1, end, low);
            right = first.ec == std::errc{} && first.ptr != end && *first.ptr == '-';
            if (right) {
                const auto second = std::from_chars(first.ptr + 1, end, high);
                right = second.ec == std::errc{} && second.ptr == end && high >= low && high > 0;
            }
        }
        if (right) continue;
        return error(ErrorCode::kInvalidArgument,
                     "{} must be written ROLE=MIN-MAX, such as aggregated=1-8; roles are "
                     "aggregated, prefill, decode and encode",
                     in_quotes(item));
    }
    return {};
}

}  // namespace

void add_planner_options(std::vector<Option>& t) {
    using S = Settings;
    using P = PlannerSettings;
    constexpr double kHour_ms = 3'600'000;
    t.push_back(option<&S::planner, &P::mode>(
        "planner.mode", "--planner",
        "Whether `stator serve` sizes its worker processes: off, advise (only says what it would "
        "do, in the log and at /planner), or act. `stator planner` acts through --planner-webhook "
        "unless this is advise."));
    t.push_back(option<&S::planner, &P::model>(
                    "planner.model", "--planner-model",
                    "The model whose workers are sized. If empty: the only one that there is.")
                    .in("name"));
    Draft ranges = option<&S::planner, &P::workers>(
                       "planner.workers", "--planner-workers",
                       "How many workers of a role there may be, written ROLE=MIN-MAX. Roles that "
                       "are not named are left as they are; if none is, all that are configured "
                       "may have 1 up to as many as there are cores.")
                       .in("role=min-max");
    ranges.check = check_ranges;
    t.push_back(ranges);
    t.push_back(option<&S::planner, &P::devices>(
                    "planner.devices", "--planner-devices",
                    "Most workers of all roles together. 0: as many as their ranges allow.")
                    .range(0, kMaxCount)
                    .in("devices"));
    t.push_back(option<&S::planner, &P::ttft>("planner.ttft", "--slo-ttft",
                                              "Time to first token that is to be kept.")
                    .range(1, kHour_ms));
    t.push_back(option<&S::planner, &P::itl>(
                    "planner.itl", "--slo-itl",
                    "Mean time between the tokens of an answer that is to be kept.")
                    .range(1, kHour_ms));
    t.push_back(option<&S::planner, &P::share>("planner.share", "--slo-share",
                                               "Of the requests, so large a share is to keep both.")
                    .range(0.5, 0.9999));
    t.push_back(
        option<&S::planner, &P::interval>("planner.interval", "--planner-interval",
                                          "Time between two decisions: a window of the forecasts.")
            .range(100, kHour_ms));
    t.push_back(option<&S::planner, &P::start_up>(
                    "planner.start_up", "--planner-start-up",
                    "How long a worker takes to be ready, as long as none was seen to: how far "
                    "ahead must be looked.")
                    .range(100, kHour_ms));
    t.push_back(option<&S::planner, &P::predictor>(
                    "planner.predictor", "--planner-predictor",
                    "How demand is foretold: mix (all of them, weighed by how they did lately), "
                    "constant, ewma, kalman, arima or seasonal.")
                    .in("name"));
    t.push_back(option<&S::planner, &P::quantile>(
                    "planner.quantile", "--planner-quantile",
                    "The fleet is sized for demand that is not passed with this probability.")
                    .range(0.5, 0.995));
    t.push_back(option<&S::planner, &P::down_after>(
                    "planner.down_after", "--planner-down-after",
                    "A worker is given up when one less was enough for so long.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::planner, &P::cooldown>(
                    "planner.cooldown", "--planner-cooldown",
                    "After workers were added or given up, none is given up for so long.")
                    .range(0, kDay_ms));
    t.push_back(option<&S::planner, &P::to_zero>(
        "planner.to_zero", "--planner-to-zero",
        "Without demand for ten minutes a role may have no worker at all, where its range allows "
        "it."));
    t.push_back(option<&S::planner, &P::profile>(
                    "planner.profile", "--planner-profile",
                    "What `stator bench --profile` has measured of an engine: how fast a worker "
                    "is, before that has been seen.")
                    .in("file"));
    t.push_back(option<&S::planner, &P::webhook>(
                    "planner.webhook", "--planner-webhook",
                    "URL to POST each order to, for `stator planner`; docs/planner.md has the "
                    "format.")
                    .in("url"));
    t.push_back(option<&S::planner, &P::webhook_key_file>(
                    "planner.webhook_key_file", "--planner-webhook-key-file",
                    "File whose first line is sent to the webhook as a bearer token.")
                    .in("file"));
    t.push_back(option<&S::planner, &P::scrape>(
                    "planner.scrape", "--planner-scrape",
                    "URLs of metrics to read the demand from, where no frontend of Stator's tells "
                    "it: of vLLM, SGLang or Dynamo's frontend.")
                    .in("url"));
    t.push_back(option<&S::planner, &P::scrape_key_file>(
                    "planner.scrape_key_file", "--planner-scrape-key-file",
                    "File whose first line is sent as a bearer token with these.")
                    .in("file"));
    t.push_back(option<&S::planner, &P::http>(
                    "planner.http", "--planner-http",
                    "HOST:PORT where `stator planner` shows /planner, /health and /metrics.")
                    .in("address"));
    t.push_back(option<&S::planner, &P::lease>(
                    "planner.lease", "--planner-lease",
                    "Of several planners that name the same file here, one decides and the others "
                    "stand by. If empty: one in the user's run-time folder, for `stator planner`.")
                    .in("file"));
}

}  // namespace stator::config::table
