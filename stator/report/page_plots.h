#pragma once

#include <span>
#include <string>
#include <vector>

#include "stator/report/plot.h"
#include "stator/report/report.h"

namespace stator::report {

/// A report with what marks it on the page.
struct Run {
    const Report* report = nullptr;
    std::string name;    ///< never empty
    std::string colour;  ///< a CSS value
};

/// The page's plots, from one report or several; those that nothing is known for are left out.
[[nodiscard]] std::vector<Plot> latency_plots(std::span<const Run> runs);
[[nodiscard]] std::vector<Plot> timeline_plots(std::span<const Run> runs);
[[nodiscard]] std::vector<Plot> scatter_plots(std::span<const Run> runs);
[[nodiscard]] std::vector<Plot> series_plots(std::span<const Run> runs);
[[nodiscard]] std::vector<Plot> worker_plots(std::span<const Run> runs);

/// Figures over the offered rate; none unless the reports are of three or more rates. Reports whose
/// fact "curve" differs are different curves.
[[nodiscard]] std::vector<Plot> rate_plots(std::span<const Run> runs);
/// Whether rate_plots() has something to draw.
[[nodiscard]] bool is_sweep(std::span<const Report> reports);
/// The value of a fact, or nothing.
[[nodiscard]] std::string_view fact(const Report& report, std::string_view key);

}  // namespace stator::report
