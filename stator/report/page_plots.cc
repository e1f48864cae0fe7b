#include "stator/report/page_plots.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "stator/report/figure.h"
#include "stator/report/wording.h"

namespace stator::report {
namespace {

constexpr double kGap = std::numeric_limits<double>::quiet_NaN();
/// More points than this on a line of rates show only noise.
constexpr std::size_t kRatePoints = 100;
constexpr std::size_t kRatePointsOfMany = 40;
/// More points than this, of all runs together, hide each other.
constexpr std::size_t kScatterPoints = 1500;

std::size_t rate_points(std::span<const Run> runs) {
    return runs.size() > 3 ? kRatePointsOfMany : kRatePoints;
}

/// The least and the greatest of what lies above zero.
struct Range {
    double least = std::numeric_limits<double>::infinity();
    double greatest = 0;
    void take(double value) {
        if (!(value > 0) || !std::isfinite(value)) return;
        least = std::min(least, value);
        greatest = std::max(greatest, value);
    }
    [[nodiscard]] bool empty() const { return greatest == 0; }
};

Range range_of(std::span<const Curve> curves, double PlotPoint::* part) {
    Range range;
    for (const Curve& curve : curves) {
        for (const PlotPoint& point : curve.points) range.take(point.*part);
    }
    return range;
}

/// A limit is drawn when all reports that have one agree on it.
std::optional<double> common_limit(std::span<const Run> runs, std::optional<double> Slo::* which) {
    std::optional<double> limit;
    for (const Run& run : runs) {
        const std::optional<double>& own = run.report->slo.*which;
        if (limit && own && *limit != *own) return std::nullopt;
        if (own) limit = own;
    }
    return limit;
}

double longest(std::span<const Run> runs) {
    double seconds = 0;
    for (const Run& run : runs) seconds = std::max(seconds, run.report->seconds);
    return seconds;
}

Plot cdf(std::span<const Run> runs, std::string_view title, std::string_view note,
         const Summary Report::* which, const std::optional<double>& limit) {
    Plot plot;
    plot.title = title;
    plot.note = note;
    Range range;
    std::uint64_t samples = 0;
    for (const Run& run : runs) {
        const Summary& s = run.report->*which;
        samples = std::max(samples, s.count);
    }
    plot.y = tail_axis(samples, "share");
    for (const Run& run : runs) {
        const Summary& s = run.report->*which;
        if (s.count == 0) continue;
        Curve curve{run.name, run.colour, Stroke::kSolid, {}, false};
        for (const Quantile& q : s.quantiles) {
            if (q.share > plot.y.high + 1e-9) break;
            curve.points.push_back({q.value, q.share});
            // The very least sample would only stretch the axis.
            if (q.share >= 0.005) range.take(q.value);
        }
        plot.curves.push_back(std::move(curve));
    }
    if (limit) range.take(*limit);
    plot.x = fitting_axis(range.least, range.greatest, Unit::kLatency, title);
    if (limit) plot.limits.push_back({*limit, true, "SLO " + latency(*limit)});
    return plot;
}

/// Points of a figure over time, several intervals together where there are many. `value` is given
/// a sum of intervals and how long it is, and says nothing by a NaN.
template <typename Value>
std::vector<PlotPoint> over_time(const Report& report, std::size_t most, Value value) {
    const Timeline& line = report.timeline;
    const std::size_t step = std::max<std::size_t>(1, (line.intervals.size() + most - 1) / most);
    std::vector<PlotPoint> points;
    for (std::size_t i = 0; i < line.intervals.size(); i += step) {
        const double begin = static_cast<double>(i) * line.interval_seconds;
        const double whole_length = static_cast<double>(step) * line.interval_seconds;
        const double length = std::min(whole_length, report.seconds - begin);
        // The stump at the end is too short for a rate.
        if (length < 0.5 * whole_length && i > 0) break;
        if (!(length > 0)) break;
        Interval sum;
        for (std::size_t n = i; n < std::min(i + step, line.intervals.size()); ++n) {
            const Interval& one = line.intervals[n];
            sum.offered += one.offered;
            sum.completed += one.completed;
            sum.failed += one.failed;
            sum.output_tokens += one.output_tokens;
            sum.in_flight += one.in_flight / static_cast<double>(step);
            sum.ttft_count += one.ttft_count;
            sum.ttft_p50_ms = one.ttft_p50_ms;
            sum.ttft_p99_ms = one.ttft_p99_ms;
        }
        points.push_back({begin + length / 2, value(sum, length)});
    }
    return points;
}

void finish_timeline(std::vector<Plot>& plots, Plot plot, std::span<const Run> runs, Unit unit,
                     std::string_view y_title) {
    Range range = range_of(plot.curves, &PlotPoint::y);
    if (range.empty()) return;
    // A limit far above the figures would flatten them.
    for (const Limit& limit : plot.limits) {
        if (limit.value < 3 * range.greatest) range.take(limit.value);
    }
    plot.x = time_axis(longest(runs));
    plot.y = unit == Unit::kLatency ? fitting_axis(range.least, range.greatest, unit, y_title)
                                    : linear_axis(range.greatest, unit, y_title);
    plots.push_back(std::move(plot));
}

Plot rate_timeline(std::span<const Run> runs) {
    Plot plot;
    plot.title = "Request rate over time";
    plot.wide = true;
    const auto rate = [](std::uint64_t Interval::* part) {
        return [part](const Interval& i, double length) {
            return static_cast<double>(i.*part) / length;
        };
    };
    if (runs.size() == 1) {
        const Report& r = *runs[0].report;
        plot.note = "requests/s: fixed starts, good ends, failures";
        plot.curves.push_back({"offered", "var(--c7)", Stroke::kDashed,
                               over_time(r, kRatePoints, rate(&Interval::offered)), true});
        plot.curves.push_back({"completed", "var(--c0)", Stroke::kSolid,
                               over_time(r, kRatePoints, rate(&Interval::completed)), true});
        if (r.failed() > 0) {
            plot.curves.push_back({"failed", "var(--c4)", Stroke::kSolid,
                                   over_time(r, kRatePoints, rate(&Interval::failed)), true});
        }
        return plot;
    }
    plot.note = "requests/s that ended well";
    for (const Run& run : runs) {
        plot.curves.push_back(
            {run.name, run.colour, Stroke::kSolid,
             over_time(*run.report, rate_points(runs), rate(&Interval::completed)), false});
    }
    return plot;
}

Plot ttft_timeline(std::span<const Run> runs) {
    Plot plot;
    plot.title = "TTFT over time";
    plot.wide = true;
    const auto known = [](double Interval::* part) {
        return [part](const Interval& i, double) { return i.ttft_count > 0 ? i.*part : kGap; };
    };
    if (runs.size() == 1) {
        const Report& r = *runs[0].report;
        plot.note = "by a request's fixed start";
        plot.curves.push_back({"p99", "var(--c1)", Stroke::kFaint,
                               over_time(r, Report::kMaxIntervals, known(&Interval::ttft_p99_ms)),
                               true});
        plot.curves.push_back({"p50", "var(--c0)", Stroke::kSolid,
                               over_time(r, Report::kMaxIntervals, known(&Interval::ttft_p50_ms)),
                               true});
    } else {
        plot.note = "median, by a request's fixed start";
        for (const Run& run : runs) {
            plot.curves.push_back(
                {run.name, run.colour, Stroke::kSolid,
                 over_time(*run.report, Report::kMaxIntervals, known(&Interval::ttft_p50_ms)),
                 false});
        }
    }
    if (const auto limit = common_limit(runs, &Slo::ttft_ms)) {
        plot.limits.push_back({*limit, false, "SLO " + latency(*limit)});
    }
    return plot;
}

/// One curve per run of a figure over time.
template <typename Value>
Plot plain_timeline(std::span<const Run> runs, std::string_view title, std::string_view note,
                    Value value) {
    Plot plot;
    plot.title = title;
    plot.note = note;
    for (const Run& run : runs) {
        plot.curves.push_back({run.name, run.colour, Stroke::kSolid,
                               over_time(*run.report, rate_points(runs), value), false});
    }
    return plot;
}

/// A point per sampled request, coloured by run; of a single run, by how much was cached.
template <typename Place>
void finish_scatter(std::vector<Plot>& plots, Plot plot, std::span<const Run> runs,
                    std::string_view x_title, Place place) {
    std::size_t known = 0;
    for (const Run& run : runs) known += run.report->samples.size();
    const std::size_t step = (known + kScatterPoints - 1) / kScatterPoints;
    std::size_t shown = 0;
    const bool by_cache = runs.size() == 1 && runs[0].report->cached_tokens > 0;
    for (const Run& run : runs) {
        Curve points{by_cache ? "less than half of the input cached" : run.name,
                     run.colour,
                     Stroke::kDots,
                     {},
                     by_cache};
        Curve cached{"half or more", "var(--c1)", Stroke::kDots, {}, true};
        const std::vector<SamplePoint>& all = run.report->samples;
        for (std::size_t i = 0; i < all.size(); i += step) {
            const SamplePoint& s = all[i];
            ++shown;
            const bool mostly = by_cache && 2ull * s.cached_tokens >= s.input_tokens;
            (mostly ? cached : points).points.push_back(place(s));
        }
        if (!points.points.empty()) plot.curves.push_back(std::move(points));
        if (!cached.points.empty()) plot.curves.push_back(std::move(cached));
    }
    const Range x = range_of(plot.curves, &PlotPoint::x);
    const Range y = range_of(plot.curves, &PlotPoint::y);
    if (x.empty() || y.empty()) return;
    plot.note = "a random sample of " + whole(shown) + " requests that ended well";
    plot.x = x.greatest > 30 * x.least ? log_axis(x.least, x.greatest, Unit::kPlain, x_title)
                                       : linear_axis(x.greatest, Unit::kPlain, x_title);
    plot.y = fitting_axis(y.least, y.greatest, Unit::kLatency, "");
    plots.push_back(std::move(plot));
}

}  // namespace

std::string_view fact(const Report& report, std::string_view key) {
    const auto found = std::ranges::find(report.facts, key, &Fact::key);
    return found == report.facts.end() ? std::string_view() : std::string_view(found->value);
}

std::vector<Plot> latency_plots(std::span<const Run> runs) {
    std::vector<Plot> plots;
    const auto add = [&](Plot plot) {
        if (!plot.curves.empty()) plots.push_back(std::move(plot));
    };
    add(cdf(runs, "Time to first token", "share of requests at or below, tail stretched",
            &Report::ttft, common_limit(runs, &Slo::ttft_ms)));
    // The limit binds a request's mean or p99, not single gaps: no line here.
    add(cdf(runs, "Inter-token latency", "share of gaps at or below, tail stretched", &Report::itl,
            std::nullopt));
    const bool mean_rule = std::ranges::all_of(
        runs, [](const Run& run) { return run.report->slo.itl_rule == ItlRule::kMean; });
    add(cdf(runs, "Time per output token", "share of requests at or below, tail stretched",
            &Report::tpot, mean_rule ? common_limit(runs, &Slo::itl_ms) : std::nullopt));
    add(cdf(runs, "End-to-end latency", "share of requests at or below, tail stretched",
            &Report::e2e, common_limit(runs, &Slo::e2e_ms)));
    return plots;
}

std::vector<Plot> timeline_plots(std::span<const Run> runs) {
    std::vector<Plot> plots;
    finish_timeline(plots, rate_timeline(runs), runs, Unit::kPlain, "requests/s");
    finish_timeline(plots,
                    plain_timeline(runs, "Requests in flight", "sent and not ended, mean",
                                   [](const Interval& i, double) { return i.in_flight; }),
                    runs, Unit::kPlain, "requests");
    finish_timeline(plots, ttft_timeline(runs), runs, Unit::kLatency, "TTFT");
    finish_timeline(plots,
                    plain_timeline(runs, "Output tokens over time", "tokens/s as they came",
                                   [](const Interval& i, double length) {
                                       return static_cast<double>(i.output_tokens) / length;
                                   }),
                    runs, Unit::kPlain, "tokens/s");
    return plots;
}

std::vector<Plot> scatter_plots(std::span<const Run> runs) {
    std::vector<Plot> plots;
    Plot ttft;
    ttft.title = "TTFT against input length";
    if (const auto limit = common_limit(runs, &Slo::ttft_ms)) {
        ttft.limits.push_back({*limit, false, "SLO " + latency(*limit)});
    }
    finish_scatter(plots, std::move(ttft), runs, "input tokens", [](const SamplePoint& s) {
        return PlotPoint{static_cast<double>(s.input_tokens), s.ttft_ms};
    });
    Plot e2e;
    e2e.title = "End-to-end latency against output length";
    if (const auto limit = common_limit(runs, &Slo::e2e_ms)) {
        e2e.limits.push_back({*limit, false, "SLO " + latency(*limit)});
    }
    finish_scatter(plots, std::move(e2e), runs, "output tokens", [](const SamplePoint& s) {
        return PlotPoint{static_cast<double>(s.output_tokens), s.e2e_ms};
    });
    return plots;
}

namespace {

/// How a planner's curves look: what is named is drawn so, others get a colour each.
struct CurveLook {
    std::string_view curve;
    std::string_view colour;
    Stroke stroke;
};
constexpr std::array<CurveLook, 9> kLooks{{{"actual", "var(--c0)", Stroke::kSolid},
                                           {"forecast", "var(--c1)", Stroke::kDashed},
                                           {"5 %", "var(--c1)", Stroke::kFaint},
                                           {"95 %", "var(--c1)", Stroke::kFaint},
                                           {"sized for", "var(--c2)", Stroke::kFaint},
                                           {"ready", "var(--c0)", Stroke::kSolid},
                                           {"needed", "var(--c1)", Stroke::kDashed},
                                           {"all", "var(--c2)", Stroke::kFaint},
                                           {"decisions", "var(--c3)", Stroke::kDots}}};

/// `alone`: there is one run, whose curves are told apart by colour.
Curve series_curve(const Run& run, const Series& series, bool alone) {
    Curve curve{run.name, run.colour, Stroke::kSolid, {}, false};
    const auto look = std::ranges::find(kLooks, series.curve, &CurveLook::curve);
    if (look != kLooks.end()) curve.stroke = look->stroke;
    if (!series.curve.empty()) {
        curve.name = alone ? series.curve : run.name + ", " + series.curve;
        if (alone && look != kLooks.end()) curve.colour = look->colour;
        curve.in_legend = alone;
    }
    const double end = run.report->seconds;
    for (const SeriesPoint& p : series.points) {
        if (p.time > end) break;
        // A value holds until the next one is noted.
        const bool held = !curve.points.empty() && curve.stroke != Stroke::kDots;
        if (held) curve.points.push_back({p.time, curve.points.back().y});
        curve.points.push_back({p.time, p.value});
    }
    if (!curve.points.empty() && curve.stroke != Stroke::kDots) {
        curve.points.push_back({end, curve.points.back().y});
    }
    return curve;
}

}  // namespace

std::vector<Plot> series_plots(std::span<const Run> runs) {
    std::vector<Plot> plots;
    for (const Run& run : runs) {
        for (const Series& series : run.report->series) {
            if (series.points.empty()) continue;
            auto plot = std::ranges::find(plots, series.name, &Plot::title);
            if (plot == plots.end()) {
                if (plots.size() == Report::kMaxSeries) continue;
                Plot fresh;
                fresh.title = series.name;
                fresh.note = series.unit;
                plots.push_back(std::move(fresh));
                plot = plots.end() - 1;
            }
            plot->curves.push_back(series_curve(run, series, runs.size() == 1));
        }
    }
    for (Plot& plot : plots) {
        plot.x = time_axis(longest(runs));
        plot.y = linear_axis(range_of(plot.curves, &PlotPoint::y).greatest, Unit::kPlain, "");
    }
    return plots;
}

std::vector<Plot> worker_plots(std::span<const Run> runs) {
    Plot requests;
    requests.title = "Requests per worker";
    Plot cached;
    cached.title = "Cached share per worker";
    for (const Run& run : runs) {
        const WorkerSummary& workers = run.report->workers;
        if (workers.rows.size() < 2) continue;
        std::vector<double> counts;
        std::vector<double> shares;
        for (const WorkerRow& row : workers.rows) {
            counts.push_back(static_cast<double>(row.requests));
            shares.push_back(row.input_tokens == 0 ? 0.0
                                                   : static_cast<double>(row.cached_tokens) /
                                                         static_cast<double>(row.input_tokens));
        }
        const auto ranked = [&](Plot& plot, std::vector<double> values) {
            std::ranges::sort(values, std::ranges::greater{});
            Curve curve{run.name, run.colour, Stroke::kMarked, {}, false};
            for (std::size_t i = 0; i < values.size(); ++i) {
                curve.points.push_back({static_cast<double>(i + 1), values[i]});
            }
            plot.curves.push_back(std::move(curve));
        };
        ranked(requests, counts);
        ranked(cached, shares);
        const bool cut = workers.workers > workers.rows.size();
        requests.note = cut ? "the busiest, ranked" : "ranked";
        cached.note = requests.note;
    }
    if (requests.curves.empty()) return {};
    const Range x = range_of(requests.curves, &PlotPoint::x);
    requests.x = linear_axis(x.greatest, Unit::kPlain, "rank");
    cached.x = requests.x;
    requests.y = linear_axis(range_of(requests.curves, &PlotPoint::y).greatest, Unit::kPlain, "");
    cached.y = linear_axis(range_of(cached.curves, &PlotPoint::y).greatest, Unit::kShare, "");
    if (range_of(cached.curves, &PlotPoint::y).empty()) return {std::move(requests)};
    return {std::move(requests), std::move(cached)};
}

}  // namespace stator::report
