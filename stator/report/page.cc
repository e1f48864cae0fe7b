#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "stator/report/compare.h"
#include "stator/report/figure.h"
#include "stator/report/markup.h"
#include "stator/report/page_assets.h"
#include "stator/report/page_plots.h"
#include "stator/report/page_sections.h"
#include "stator/report/render.h"

namespace stator::report {
namespace {

/// A colour for run `index` of `count`: distinct ones for a few, a ramp for the steps of a sweep.
std::string colour_of(std::size_t index, std::size_t count, bool ramp) {
    if (!ramp || count < 2) return fmt::format("var(--c{})", index % 8);
    constexpr double kStops = 4;
    const double at = kStops * static_cast<double>(index) / static_cast<double>(count - 1);
    const int stop = std::min(static_cast<int>(at), 3);
    const double share = at - stop;
    if (share < 0.005) return fmt::format("var(--r{})", stop);
    return fmt::format("color-mix(in srgb,var(--r{}),var(--r{}) {:.0f}%)", stop, stop + 1,
                       100 * share);
}

/// `compared`: the runs of two sides by turns, A and B, told apart by colour alone.
std::vector<Run> runs_of(std::span<const Report> reports, bool sweep, bool compared) {
    std::vector<Run> runs;
    for (const Report& report : reports) {
        Run run;
        run.report = &report;
        run.name = report.name.empty() ? fmt::format("run {}", runs.size() + 1)
                                       : one_line(report.name, 60);
        runs.push_back(std::move(run));
    }
    if (sweep) std::ranges::sort(runs, {}, [](const Run& r) { return r.report->offered_rate; });
    for (std::size_t i = 0; i < runs.size(); ++i) {
        runs[i].colour = compared ? colour_of(runs[i].name.starts_with('A') ? 0 : 1, 2, false)
                                  : colour_of(i, runs.size(), sweep && runs.size() > 3);
    }
    return runs;
}

void put_head(std::string& out, std::string_view title) {
    const std::string name = escaped(title);
    fmt::format_to(std::back_inserter(out),
                   "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                   "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
                   "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n",
                   name, kPageStyle);
}

void put_header(std::string& out, std::string_view title, std::span<const Run> runs) {
    std::string sub;
    if (runs.size() == 1) {
        const Report& r = *runs[0].report;
        sub = fmt::format("{}{} requests in {}",
                          r.name.empty() || r.name == title ? "" : escaped(r.name) + ": ",
                          whole(r.requests), span(r.seconds));
    } else {
        sub = fmt::format("{} runs", runs.size());
    }
    const auto partial =
        std::ranges::count_if(runs, [](const Run& r) { return r.report->partial; });
    if (partial > 0) {
        sub += runs.size() == 1 ? " <span class=\"badge\">partial: stopped before its end</span>"
                                : fmt::format(" <span class=\"badge\">{} partial</span>", partial);
    }
    fmt::format_to(std::back_inserter(out),
                   "<header><div><h1>{}</h1><p class=\"sub\">{}</p></div>"
                   "<button id=\"theme\" type=\"button\" hidden>Dark</button></header>\n",
                   escaped(title), sub);
}

void put_plots(std::string& out, std::string_view heading, const std::vector<Plot>& plots) {
    if (plots.empty()) return;
    fmt::format_to(std::back_inserter(out), "<h2>{}</h2>\n<div class=\"plots\">\n", heading);
    for (const Plot& plot : plots) out += figure_of(plot);
    out += "</div>\n";
}

void put_footer(std::string& out) {
    out +=
        "<footer><p>Latencies count from each request's fixed start, not from when it was really "
        "sent, so that a stall is not hidden; they take in only requests that ended well. "
        "<b>TTFT</b>: to the first token. <b>ITL</b>: each gap between neighbouring tokens. "
        "<b>TPOT</b>: (E2E − TTFT) / (tokens − 1) of each request. <b>E2E</b>: to the last token. "
        "<b>Goodput</b>: requests/s that meet every limit of the SLO. Percentiles are within "
        "0.1 %; mean, least and greatest are exact.</p></footer>\n";
}

}  // namespace

std::string to_html(std::span<const Report> reports, std::string_view title,
                    const Comparison* comparison) {
    const std::size_t left_out = reports.size() - std::min(reports.size(), kMaxPageReports);
    reports = reports.first(reports.size() - left_out);
    const bool compared = comparison != nullptr;
    const bool sweep = !compared && is_sweep(reports);
    const std::vector<Run> runs = runs_of(reports, sweep, compared);
    std::string out;
    put_head(out, title);
    put_header(out, title, runs);
    put_warnings(out, runs, left_out);
    if (compared) put_comparison(out, *comparison);
    if (runs.size() == 1) {
        put_tiles(out, *runs[0].report);
    } else if (runs.size() > 1) {
        put_overview(out, runs);
        put_legend(out, runs);
    }
    if (sweep) put_plots(out, "Over the rate", rate_plots(runs));
    std::vector<Plot> latencies = latency_plots(runs);
    std::ranges::move(scatter_plots(runs), std::back_inserter(latencies));
    put_plots(out, "Latency", latencies);
    if (!runs.empty()) put_percentiles(out, runs);
    put_plots(out, "Over time", timeline_plots(runs));
    std::vector<Plot> fleet = worker_plots(runs);
    std::ranges::move(series_plots(runs), std::back_inserter(fleet));
    put_plots(out, "Fleet", fleet);
    put_errors(out, runs);
    put_remarks(out, runs);
    put_facts(out, runs);
    put_footer(out);
    fmt::format_to(std::back_inserter(out), "</main>\n<script>{}</script>\n</body>\n</html>\n",
                   kPageScript);
    return out;
}

}  // namespace stator::report
