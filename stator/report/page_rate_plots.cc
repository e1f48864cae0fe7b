#include <algorithm>
#include <vector>

#include "stator/report/figure.h"
#include "stator/report/page_plots.h"

namespace stator::report {
namespace {

/// Runs of one system at several rates, ascending.
struct Sweep {
    std::string name;
    std::string colour;
    std::vector<const Report*> runs;
};

std::vector<Sweep> sweeps_of(std::span<const Run> runs) {
    std::vector<Sweep> sweeps;
    for (const Run& run : runs) {
        if (!(run.report->offered_rate > 0)) continue;
        const std::string_view name = fact(*run.report, "curve");
        auto sweep = std::ranges::find(sweeps, name, &Sweep::name);
        if (sweep == sweeps.end()) {
            const std::string colour = "var(--c" + std::to_string(sweeps.size() % 8) + ")";
            sweeps.push_back({std::string(name), colour, {}});
            sweep = sweeps.end() - 1;
        }
        sweep->runs.push_back(run.report);
    }
    for (Sweep& sweep : sweeps) std::ranges::sort(sweep.runs, {}, &Report::offered_rate);
    return sweeps;
}

template <typename Value>
Curve curve_of(const Sweep& sweep, std::string_view what, bool many, Stroke stroke, Value value) {
    Curve curve;
    curve.name = many ? sweep.name + (what.empty() ? "" : ", ") + std::string(what) : what;
    curve.colour = sweep.colour;
    curve.stroke = stroke;
    for (const Report* run : sweep.runs) curve.points.push_back({run->offered_rate, value(*run)});
    return curve;
}

}  // namespace

bool is_sweep(std::span<const Report> reports) {
    std::vector<double> rates;
    for (const Report& report : reports) {
        if (report.offered_rate > 0) rates.push_back(report.offered_rate);
    }
    std::ranges::sort(rates);
    const auto same = [](double a, double b) { return b < a * 1.01; };
    const auto rest = std::ranges::unique(rates, same);
    return rates.size() - rest.size() >= 3;
}

std::vector<Plot> rate_plots(std::span<const Run> runs) {
    const std::vector<Sweep> sweeps = sweeps_of(runs);
    const bool many = sweeps.size() > 1;
    double greatest = 0;
    for (const Run& run : runs) greatest = std::max(greatest, run.report->offered_rate);
    Plot ttft;
    ttft.title = "TTFT over the offered rate";
    Plot good;
    good.title = "Goodput over the offered rate";
    good.note = "requests/s that meet the SLO, and all that ended well";
    Plot share;
    share.title = "Share of requests that meet the SLO";
    bool any_slo = false;
    double slowest = 0;
    double fastest = 1e15;
    for (const Sweep& sweep : sweeps) {
        ttft.curves.push_back(curve_of(sweep, "p99", many, Stroke::kMarked,
                                       [](const Report& r) { return r.ttft.p99; }));
        ttft.curves.push_back(curve_of(sweep, "p50", many, Stroke::kDashed,
                                       [](const Report& r) { return r.ttft.p50; }));
        good.curves.push_back(curve_of(sweep, "goodput", many, Stroke::kMarked,
                                       [](const Report& r) { return r.goodput; }));
        good.curves.push_back(curve_of(sweep, "achieved", many, Stroke::kDashed,
                                       [](const Report& r) { return r.achieved_rate; }));
        share.curves.push_back(curve_of(sweep, many ? "" : "share", many, Stroke::kMarked,
                                        [](const Report& r) { return r.good_share; }));
        share.curves.back().in_legend = many;
        for (const Report* run : sweep.runs) {
            any_slo = any_slo || !run->slo.empty();
            slowest = std::max(slowest, run->ttft.p99);
            if (run->ttft.p50 > 0) fastest = std::min(fastest, run->ttft.p50);
            const auto& limit = run->slo.ttft_ms;
            if (limit && ttft.limits.empty()) {
                ttft.limits.push_back({*limit, false, "SLO " + latency(*limit)});
            }
        }
    }
    for (Plot* plot : {&ttft, &good, &share}) {
        plot->x = linear_axis(greatest, Unit::kPlain, "offered requests/s");
    }
    ttft.y = fitting_axis(fastest, slowest, Unit::kLatency, "TTFT");
    good.y = linear_axis(greatest, Unit::kPlain, "requests/s");
    good.curves.push_back(
        {"offered", "var(--c7)", Stroke::kFaint, {{0, 0}, {greatest, greatest}}, true});
    share.y = linear_axis(1, Unit::kShare, "share");
    share.limits.push_back({0.9, false, "90 %"});
    std::vector<Plot> plots{std::move(ttft), std::move(good)};
    if (any_slo) plots.push_back(std::move(share));
    return plots;
}

}  // namespace stator::report
