#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/terminal.h"
#include "stator/loadgen/load_run.h"
#include "stator/loadgen/server.h"
#include "stator/report/report.h"
#include "stator/workload/options.h"

namespace stator::cli {

/// What `stator bench` was asked for.
struct BenchOptions {
    enum class Mode : std::uint8_t {
        kRun = 1,
        kKnee,     ///< search the highest rate that meets the SLO
        kCompare,  ///< two servers, alternately
        kDraw,     ///< a page from earlier runs
        kProfile,  ///< what steps of an engine cost, for the planner
    };
    Mode mode = Mode::kRun;
    std::vector<std::string> words;  ///< kCompare: two URLs; kDraw: JSON files
    loadgen::ServerOptions server;
    workload::WorkloadOptions workload;
    std::string workload_text;  ///< its flags, as given
    std::string trace;          ///< the file it needs; empty: none
    loadgen::RunOptions run;    ///< without the report's part
    report::Slo slo;
    std::uint64_t seed = 1;
    std::uint64_t warmup = 0;
    std::string name;
    std::string json;
    std::string html;
    double knee_duration_s = 30;
    double knee_share = 0.9;
    std::uint32_t pairs = 5;
    std::string profile;  ///< kProfile: the file to write
    std::string profile_role = "aggregated";
    std::vector<std::string> warnings;  ///< sentences for the terminal
};

/// None: help was asked for. kInvalidArgument with a sentence for the terminal.
[[nodiscard]] Result<std::optional<BenchOptions>> parse_bench_options(
    const std::vector<std::string>& args);

[[nodiscard]] std::string bench_help(const Style& style);

}  // namespace stator::cli
