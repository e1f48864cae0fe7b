#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "stator/report/compare.h"
#include "stator/report/page_plots.h"
#include "stator/report/report.h"

namespace stator::report {

/// The page's parts that are words and tables; each appends itself to `out`, or nothing where it
/// has nothing to say.
void put_warnings(std::string& out, std::span<const Run> runs, std::size_t left_out);
void put_comparison(std::string& out, const Comparison& comparison);
/// The headline figures of one run.
void put_tiles(std::string& out, const Report& report);
/// The headline figures of several runs, a row each.
void put_overview(std::string& out, std::span<const Run> runs);
/// Which colour is which run, for all plots below.
void put_legend(std::string& out, std::span<const Run> runs);
void put_percentiles(std::string& out, std::span<const Run> runs);
void put_errors(std::string& out, std::span<const Run> runs);
/// What was run: what all have in common, then what differs.
/// What was decided or happened, of each run.
void put_remarks(std::string& out, std::span<const Run> runs);
void put_facts(std::string& out, std::span<const Run> runs);

}  // namespace stator::report
