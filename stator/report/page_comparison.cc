#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "stator/report/figure.h"
#include "stator/report/markup.h"
#include "stator/report/page_sections.h"

namespace stator::report {
namespace {

constexpr double kWidth = 300;
constexpr double kHeight = 22;

std::string value_of(const MetricRatio& m, double value) {
    if (m.unit == "ms") return latency(value);
    return m.unit.empty() ? percent(value) : figure(value) + " " + escaped(m.unit);
}

/// How far the intervals reach from 1, as a logarithm: all bars share one scale.
double reach(const Comparison& c) {
    double most = std::log(1.02);
    for (const MetricRatio& m : c.metrics) {
        for (const double ratio : {m.ratio, m.low, m.high}) {
            if (ratio > 0) most = std::max(most, std::abs(std::log(ratio)));
        }
    }
    return std::min(most * 1.05, std::log(10.0));
}

/// The interval as a bar about the line of "no difference".
std::string bar(const MetricRatio& m, double most) {
    const auto x = [&](double ratio) {
        const double log = ratio > 0 ? std::log(ratio) : 0.0;
        return kWidth * (0.5 + 0.48 * std::clamp(log / most, -1.0, 1.0));
    };
    std::string_view colour = "var(--muted)";
    if (m.verdict == Verdict::kBetter) colour = "var(--good)";
    if (m.verdict == Verdict::kWorse) colour = "var(--bad)";
    std::string out = fmt::format(
        "<svg class=\"ratio\" viewBox=\"0 0 {0:g} {1:g}\" aria-hidden=\"true\"><path "
        "class=\"base\" "
        "d=\"M{2:g} 0V{1:g}\"/>",
        kWidth, kHeight, kWidth / 2);
    if (m.verdict != Verdict::kTooFew) {
        fmt::format_to(std::back_inserter(out),
                       "<path class=\"curve\" style=\"--c:{}\" d=\"M{:.1f} {:g}H{:.1f}\"/>", colour,
                       x(m.low), kHeight / 2, x(m.high));
    }
    fmt::format_to(std::back_inserter(out),
                   "<path class=\"marks\" style=\"--c:{}\" d=\"M{:.1f} {:g}h0\"/></svg>", colour,
                   x(m.ratio), kHeight / 2);
    return out;
}

std::string verdict_of(const MetricRatio& m) {
    switch (m.verdict) {
        case Verdict::kBetter:
            return "<b class=\"better\">A better</b>";
        case Verdict::kWorse:
            return "<b class=\"bad\">A worse</b>";
        case Verdict::kNoDifference:
            return "";
        case Verdict::kTooFew:
            return "too few pairs";
    }
    return {};
}

}  // namespace

void put_comparison(std::string& out, const Comparison& c) {
    auto into = std::back_inserter(out);
    fmt::format_to(into,
                   "<h2>A {} against B {}</h2>\n<div class=\"panel\"><table><thead><tr><th></th>"
                   "<th>A</th><th>B</th><th>A / B</th><th>95 % interval</th><th class=\"bars\">"
                   "less ← 1 → more</th><th></th></tr></thead><tbody>\n",
                   escaped(c.name_a), escaped(c.name_b));
    const double most = reach(c);
    for (const MetricRatio& m : c.metrics) {
        const std::string interval =
            m.verdict == Verdict::kTooFew ? "" : fmt::format("{:.3f} – {:.3f}", m.low, m.high);
        fmt::format_to(into,
                       "<tr><th>{}</th><td>{}</td><td>{}</td><td>{:.3f}</td><td>{}</td>"
                       "<td class=\"bars\">{}</td><td class=\"verdict\">{}</td></tr>\n",
                       escaped(m.metric), value_of(m, m.a), value_of(m, m.b), m.ratio, interval,
                       bar(m, most), verdict_of(m));
    }
    fmt::format_to(into,
                   "</tbody></table></div>\n<p class=\"note\">{} pairs of runs, made alternately; "
                   "A and B are geometric means, the interval is Student's t on the logarithms of "
                   "the pairs' ratios. A verdict stands only where the interval leaves 1 out; of "
                   "twenty figures that do not differ, one will seem to.</p>\n",
                   c.pairs);
    for (const std::string& warning : c.warnings) {
        fmt::format_to(into, "<p class=\"note\">{}</p>\n", escaped(warning));
    }
}

}  // namespace stator::report
