// The files that `stator bench` and `stator sim` read: traces, prompts, scenarios, step times,
// schedules of faults, reports. The first byte says which. What is accepted keeps its promises.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/check.h"
#include "stator/config/yaml_tree.h"
#include "stator/engine/mock/faults.h"
#include "stator/engine/mock/step_time_file.h"
#include "stator/report/render.h"
#include "stator/sim/scenario.h"
#include "stator/workload/options.h"

namespace {

using namespace stator;

void check_problems(const config::Problems& problems) {
    STATOR_CHECK(!problems.empty(), "a refusal says why");
    for (const config::Problem& p : problems) {
        STATOR_CHECK(!p.text().empty(), "a problem has a text");
    }
}

/// With and without bad lines: skipping can only add requests.
void replay(workload::Kind kind, std::string_view text, bool spread) {
    constexpr std::uint64_t kEnough = 10'000;
    workload::WorkloadOptions o;
    o.kind = kind;
    o.spread_ties = spread && o.is_trace();
    const auto strict = workload::make_workload(o, text, 1);
    o.skip_bad = true;
    workload::SkippedLines skipped;
    const auto lenient = workload::make_workload(o, text, 1, &skipped);
    if (!strict) STATOR_CHECK(!strict.error().message.empty(), "a refusal says why");
    if (strict) {
        STATOR_CHECK(lenient && skipped.count == 0, "a good trace has no bad lines");
        auto before = std::chrono::nanoseconds(0);
        for (std::uint64_t n = 0; n < kEnough; ++n) {
            const auto request = (*strict)->next();
            if (!request) break;
            STATOR_CHECK(request->start >= before, "requests come in the order of their times");
            before = request->start;
            std::uint64_t tokens = 0;
            for (const auto& segment : request->prompt) tokens += segment.tokens;
            STATOR_CHECK(kind == workload::Kind::kPrompts || tokens > 0, "a prompt has tokens");
            STATOR_CHECK(tokens <= workload::kMaxTokens, "a prompt is within the bound");
        }
    }
}

void scenario(std::string_view text) {
    const auto tree = config::read_yaml_tree("fuzz.yaml", text);
    if (!tree) return check_problems(tree.error());
    const auto read = sim::read_scenario(*tree, "fuzz.yaml");
    if (!read) return check_problems(read.error());
    STATOR_CHECK(!read->groups.empty() && (read->workers() > 0 || !read->resizes.empty()),
                 "a scenario has workers, now or later");
}

void step_time(std::string_view text) {
    const auto read = engine::mock::read_step_time("fuzz.yaml", text);
    if (!read) check_problems(read.error());
}

void faults(std::string_view text) {
    const auto read = engine::mock::parse_faults(text);
    if (!read) STATOR_CHECK(!read.error().message.empty(), "a refusal says why");
}

/// What is read and written again is the same, and can be drawn.
void report_of(std::string_view text) {
    const auto read = report::parse_report(text);
    if (!read) {
        STATOR_CHECK(!read.error().message.empty(), "a refusal says why");
        return;
    }
    const std::string written = report::to_json(*read);
    const auto again = report::parse_report(written);
    STATOR_CHECK(again && report::to_json(*again) == written, "a report survives its own JSON");
    const auto page = report::to_html(std::span(&*read, 1), "fuzz", nullptr);
    STATOR_CHECK(page.find("<script>alert") == std::string::npos, "the page quotes what it shows");
    (void)report::to_table(*read, {});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    constexpr unsigned kSpread = 0x80;
    const bool spread = (data[0] & kSpread) != 0;
    switch (static_cast<char>(data[0] & ~kSpread)) {
        case 'm':
            replay(workload::Kind::kMooncake, text, spread);
            break;
        case 'a':
            replay(workload::Kind::kAzure, text, spread);
            break;
        case 'p':
            replay(workload::Kind::kPrompts, text, spread);
            break;
        case 's':
            scenario(text);
            break;
        case 't':
            step_time(text);
            break;
        case 'f':
            faults(text);
            break;
        case 'r':
            report_of(text);
            break;
        default:
            break;
    }
    return 0;
}
