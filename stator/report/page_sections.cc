#include "stator/report/page_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/report/figure.h"
#include "stator/report/markup.h"
#include "stator/report/wording.h"

namespace stator::report {
namespace {

constexpr std::size_t kMaxWarningsShown = 24;

std::string swatch(const Run& run) {
    return fmt::format("<i class=\"swatch\" style=\"--c:{}\"></i>{}", run.colour,
                       escaped(run.name));
}

/// The name alone where there is one run, else with its colour.
std::string row_name(const Run& run) {
    return swatch(run) +
           (run.report->partial ? " <span class=\"badge\">partial</span>" : std::string());
}

void put_tile(std::string& out, std::string_view name, std::string_view value,
              std::string_view unit, std::string_view below, std::string_view between = "") {
    fmt::format_to(std::back_inserter(out),
                   "<div class=\"tile\"><span class=\"name\">{}</span><b>{} "
                   "<small>{}</small></b>{}<span>{}</span></div>\n",
                   name, value, unit, between, below);
}

/// "1.23 s" in its two parts.
std::pair<std::string, std::string> parts(const std::string& quantity) {
    const std::size_t space = quantity.rfind(' ');
    return {quantity.substr(0, space), quantity.substr(space + 1)};
}

void put_latency_tile(std::string& out, std::string_view name, const Summary& s) {
    if (s.count == 0) return;
    const auto [value, unit] = parts(latency(s.p50));
    put_tile(out, name, value, unit + " median",
             fmt::format("p99 {}, p99.9 {}", latency(s.p99), latency(s.p999)));
}

}  // namespace

void put_warnings(std::string& out, std::span<const Run> runs, std::size_t left_out) {
    std::vector<std::string> items;
    if (left_out > 0) {
        items.push_back(
            fmt::format("{} more runs are not shown: a page holds {}.", left_out, runs.size()));
    }
    std::size_t unshown = 0;
    for (const Run& run : runs) {
        for (const std::string& warning : run.report->warnings) {
            if (items.size() == kMaxWarningsShown) {
                ++unshown;
                continue;
            }
            items.push_back((runs.size() > 1 ? "<b>" + escaped(run.name) + "</b>: " : "") +
                            escaped(warning));
        }
    }
    if (unshown > 0) items.push_back(fmt::format("{} more warnings.", unshown));
    if (items.empty()) return;
    out += "<ul class=\"warnings\">";
    for (const std::string& item : items) out += "<li>" + item + "</li>";
    out += "</ul>\n";
}

void put_tiles(std::string& out, const Report& r) {
    out += "<div class=\"tiles\">\n";
    put_tile(out, "Achieved rate", figure(r.achieved_rate), "req/s",
             fmt::format("{} req/s offered", figure(r.offered_rate)));
    if (r.slo.empty()) {
        put_tile(out, "In flight", figure(r.mean_in_flight), "requests",
                 "sent and not ended, mean");
    } else {
        put_tile(out, "Goodput", figure(r.goodput), "req/s",
                 fmt::format("{} met {}", percent(r.good_share), slo_text(r.slo, "≤")),
                 fmt::format("<div class=\"bar\"><i style=\"width:{:.1f}%\"></i></div>",
                             std::clamp(r.good_share, 0.0, 1.0) * 100));
    }
    put_latency_tile(out, "TTFT", r.ttft);
    put_latency_tile(out, "ITL", r.itl);
    put_latency_tile(out, "End to end", r.e2e);
    put_tile(out, "Output", short_figure(r.output_rate), "tok/s",
             fmt::format("{} tok/s with the input", short_figure(r.total_rate)));
    put_tile(out, "Cached input", percent(r.cached_ratio), "",
             fmt::format("of {} tokens", short_figure(static_cast<double>(r.input_tokens))));
    const std::uint64_t failed = r.failed();
    const std::uint64_t unfinished = r.count(Outcome::kUnfinished);
    const std::uint64_t ended = r.requests - unfinished;
    std::string below = ended == 0
                            ? std::string("no request ended")
                            : percent(static_cast<double>(failed) / static_cast<double>(ended)) +
                                  " of those that ended";
    if (unfinished > 0) below += fmt::format(", {} unfinished", whole(unfinished));
    put_tile(out, "Failed", failed > 0 ? "<i class=\"bad\">" + whole(failed) + "</i>" : "0",
             "requests", below);
    out += "</div>\n";
}

void put_overview(std::string& out, std::span<const Run> runs) {
    const bool slo = std::ranges::any_of(runs, [](const Run& r) { return !r.report->slo.empty(); });
    out +=
        "<h2>Runs</h2>\n<div "
        "class=\"panel\"><table><thead><tr><th>run</th><th>offered<br>req/s</th>"
        "<th>achieved<br>req/s</th>";
    if (slo) out += "<th>goodput<br>req/s</th><th>met<br>the SLO</th>";
    out +=
        "<th>TTFT<br>p50</th><th>TTFT<br>p99</th><th>ITL<br>p50</th><th>ITL<br>p99</th>"
        "<th>E2E<br>p99</th><th>output<br>tok/s</th><th>cached<br>input</th><th>failed</th>"
        "</tr></thead><tbody>\n";
    for (const Run& run : runs) {
        const Report& r = *run.report;
        auto into = std::back_inserter(out);
        fmt::format_to(into, "<tr><th>{}</th><td>{}</td><td>{}</td>", row_name(run),
                       figure(r.offered_rate), figure(r.achieved_rate));
        if (slo) {
            fmt::format_to(into, "<td>{}</td><td>{}</td>", figure(r.goodput),
                           percent(r.good_share));
        }
        for (const double ms : {r.ttft.p50, r.ttft.p99, r.itl.p50, r.itl.p99, r.e2e.p99}) {
            fmt::format_to(into, "<td>{}</td>", latency(ms));
        }
        fmt::format_to(into, "<td>{}</td><td>{}</td><td{}>{}</td></tr>\n",
                       short_figure(r.output_rate), percent(r.cached_ratio),
                       r.failed() > 0 ? " class=\"bad\"" : "", whole(r.failed()));
    }
    out += "</tbody></table></div>\n";
    const Slo& first = runs[0].report->slo;
    if (slo && std::ranges::all_of(runs, [&](const Run& r) { return r.report->slo == first; })) {
        out += "<p class=\"note\">SLO: " + slo_text(first, "≤") + "</p>\n";
    }
}

void put_legend(std::string& out, std::span<const Run> runs) {
    out += "<ul class=\"legend runs\">";
    for (const Run& run : runs) out += "<li>" + swatch(run) + "</li>";
    out += "</ul>\n";
}

void put_percentiles(std::string& out, std::span<const Run> runs) {
    struct Row {
        std::string_view name;
        const Summary Report::* of;
    };
    constexpr std::array kRows{Row{"TTFT", &Report::ttft}, Row{"ITL", &Report::itl},
                               Row{"TPOT", &Report::tpot}, Row{"E2E", &Report::e2e},
                               Row{"sent late", &Report::lateness}};
    // A long table would bury what comes after it.
    const bool fold = runs.size() > 4;
    if (fold) out += "<details><summary>Percentiles of every run</summary>\n";
    out +=
        "<div class=\"panel below\"><table><thead><tr><th></th>"
        "<th>samples</th><th>mean</th><th>min</th><th>p50</th><th>p90</th><th>p95</th>"
        "<th>p99</th><th>p99.9</th><th>max</th></tr></thead><tbody>\n";
    for (const Row& row : kRows) {
        if (runs.size() > 1) {
            fmt::format_to(std::back_inserter(out),
                           "<tr class=\"group\"><th colspan=\"10\">{}</th></tr>\n", row.name);
        }
        for (const Run& run : runs) {
            const Summary& s = run.report->*row.of;
            if (s.count == 0) continue;
            fmt::format_to(std::back_inserter(out), "<tr><th>{}</th><td>{}</td>",
                           runs.size() > 1 ? row_name(run) : std::string(row.name), whole(s.count));
            for (const double ms : {s.mean, s.min, s.p50, s.p90, s.p95, s.p99, s.p999, s.max}) {
                fmt::format_to(std::back_inserter(out), "<td>{}</td>", latency(ms));
            }
            out += "</tr>\n";
        }
    }
    out += "</tbody></table></div>\n";
    if (fold) out += "</details>\n";
}

void put_errors(std::string& out, std::span<const Run> runs) {
    std::string rows;
    for (const Run& run : runs) {
        const Report& r = *run.report;
        for (const ReasonCount& reason : r.reasons) {
            auto into = std::back_inserter(rows);
            rows += "<tr>";
            if (runs.size() > 1) rows += "<th>" + row_name(run) + "</th>";
            fmt::format_to(into,
                           "<td class=\"text\">{}</td><td class=\"text\">{}</td>"
                           "<td>{}</td><td>{}</td></tr>\n",
                           outcome_title(reason.outcome), escaped(reason.reason),
                           whole(reason.count),
                           percent(static_cast<double>(reason.count) /
                                   static_cast<double>(std::max<std::uint64_t>(1, r.requests))));
        }
    }
    if (rows.empty()) return;
    out += "<h2>What failed</h2>\n<div class=\"panel\"><table><thead><tr>";
    if (runs.size() > 1) out += "<th>run</th>";
    out +=
        "<th style=\"text-align:left\">kind</th><th style=\"text-align:left\">reason</th>"
        "<th>requests</th><th>share</th></tr></thead><tbody>\n" +
        rows + "</tbody></table></div>\n";
}

void put_remarks(std::string& out, std::span<const Run> runs) {
    for (const Run& run : runs) {
        if (run.report->remarks.empty()) continue;
        fmt::format_to(std::back_inserter(out), "<h2>Decisions{}</h2>\n",
                       runs.size() > 1 ? ": " + escaped(run.name) : "");
        out +=
            "<div class=\"panel\"><table><thead><tr><th>time</th><th>what</th></tr></thead>"
            "<tbody>\n";
        for (const Remark& r : run.report->remarks) {
            fmt::format_to(std::back_inserter(out), "<tr><th>{:.0f} s</th><td>{}</td></tr>\n",
                           r.time, escaped(r.text));
        }
        out += "</tbody></table></div>\n";
    }
}

void put_facts(std::string& out, std::span<const Run> runs) {
    std::vector<std::string_view> keys;
    for (const Run& run : runs) {
        for (const Fact& f : run.report->facts) {
            if (std::ranges::find(keys, f.key) == keys.end()) keys.push_back(f.key);
        }
    }
    if (keys.empty()) return;
    std::vector<std::string_view> differing;
    out += "<h2>What was run</h2>\n<div class=\"panel\"><dl>";
    for (const std::string_view key : keys) {
        const std::string_view value = fact(*runs[0].report, key);
        const bool common =
            std::ranges::all_of(runs, [&](const Run& r) { return fact(*r.report, key) == value; });
        if (!common) {
            differing.push_back(key);
            continue;
        }
        fmt::format_to(std::back_inserter(out), "<div><dt>{}</dt><dd>{}</dd></div>", escaped(key),
                       escaped(value));
    }
    out += "</dl></div>\n";
    if (differing.empty()) return;
    out += "<div class=\"panel below\"><table><thead><tr><th>run</th>";
    for (const std::string_view key : differing) out += "<th>" + escaped(key) + "</th>";
    out += "</tr></thead><tbody>\n";
    for (const Run& run : runs) {
        out += "<tr><th>" + row_name(run) + "</th>";
        for (const std::string_view key : differing) {
            out += "<td>" + escaped(fact(*run.report, key)) + "</td>";
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
}

}  // namespace stator::report
