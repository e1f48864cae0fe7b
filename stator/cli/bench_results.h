#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/report/compare.h"
#include "stator/report/knee.h"
#include "stator/report/report.h"

namespace stator::cli {

constexpr std::size_t kMaxResultBytes = 256 * 1024 * 1024;

/// What one call of `stator bench` found.
struct BenchResults {
    std::vector<report::Report> reports;
    std::optional<report::KneeResult> knee;
    std::optional<report::Comparison> comparison;
};

/// One run: the report itself. Else an object of "knee" or "comparison", and "reports".
[[nodiscard]] std::string to_json(const BenchResults& results);

/// The reports in what to_json() wrote (or `stator sim --json`: one report a line).
/// kInvalidArgument names the file.
[[nodiscard]] Result<std::vector<report::Report>> read_results(std::string_view json,
                                                               const std::string& path);

/// "  8 req/s: 97 % good, TTFT p99 812 ms, meets the SLO"
[[nodiscard]] std::string knee_line(const report::Report& report, double rate, bool met);
[[nodiscard]] std::string knee_sentence(const report::KneeResult& knee);

}  // namespace stator::cli
