#include "stator/report/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "stator/codec/json_writer.h"
#include "stator/codec/utf8.h"
#include "stator/report/figure.h"

namespace stator::report {
namespace {

struct Metric {
    std::string_view name;
    std::string_view unit;
    bool higher_is_better;
    double (*of)(const Report&);
};

constexpr std::array kMetrics{
    Metric{"achieved rate", "req/s", true, [](const Report& r) { return r.achieved_rate; }},
    Metric{"goodput", "req/s", true,
           [](const Report& r) { return r.slo.empty() ? 0.0 : r.goodput; }},
    Metric{"output rate", "tok/s", true, [](const Report& r) { return r.output_rate; }},
    Metric{"TTFT mean", "ms", false, [](const Report& r) { return r.ttft.mean; }},
    Metric{"TTFT p50", "ms", false, [](const Report& r) { return r.ttft.p50; }},
    Metric{"TTFT p99", "ms", false, [](const Report& r) { return r.ttft.p99; }},
    Metric{"ITL mean", "ms", false, [](const Report& r) { return r.itl.mean; }},
    Metric{"ITL p99", "ms", false, [](const Report& r) { return r.itl.p99; }},
    Metric{"TPOT p50", "ms", false, [](const Report& r) { return r.tpot.p50; }},
    Metric{"E2E mean", "ms", false, [](const Report& r) { return r.e2e.mean; }},
    Metric{"E2E p99", "ms", false, [](const Report& r) { return r.e2e.p99; }},
    Metric{"cached ratio", "", true, [](const Report& r) { return r.cached_ratio; }},
};

/// The 97.5 % quantile of Student's t, by degrees of freedom.
double student_t(std::size_t freedom) {
    constexpr std::array kTable{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                                2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                                2.110,  2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                                2.060,  2.056, 2.052, 2.048, 2.045, 2.042};
    if (freedom <= kTable.size()) return kTable[freedom - 1];
    // Beyond the table the quantile falls to the normal one as 1/n: within 0.001.
    return 1.960 + 2.46 / static_cast<double>(freedom);
}

MetricRatio ratio_of(const Metric& metric, std::span<const Report> a, std::span<const Report> b) {
    MetricRatio m;
    m.metric = metric.name;
    m.unit = metric.unit;
    m.higher_is_better = metric.higher_is_better;
    std::vector<double> logs;
    double sum_a = 0;
    double sum_b = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double of_a = metric.of(a[i]);
        const double of_b = metric.of(b[i]);
        if (a[i].partial || b[i].partial || !(of_a > 0) || !(of_b > 0)) continue;
        sum_a += std::log(of_a);
        sum_b += std::log(of_b);
        logs.push_back(std::log(of_a) - std::log(of_b));
    }
    m.pairs = logs.size();
    if (logs.empty()) return m;
    const auto n = static_cast<double>(logs.size());
    const double mean = (sum_a - sum_b) / n;
    m.a = std::exp(sum_a / n);
    m.b = std::exp(sum_b / n);
    m.ratio = std::exp(mean);
    if (logs.size() < 2) return m;
    double squares = 0;
    for (const double log : logs) squares += (log - mean) * (log - mean);
    const double half = student_t(logs.size() - 1) * std::sqrt(squares / (n - 1) / n);
    m.low = std::exp(mean - half);
    m.high = std::exp(mean + half);
    if (m.low <= 1 && m.high >= 1) {
        m.verdict = Verdict::kNoDifference;
    } else {
        m.verdict = (m.low > 1) == m.higher_is_better ? Verdict::kBetter : Verdict::kWorse;
    }
    return m;
}

std::string text_of(std::string_view text) {
    std::string mended;
    codec::utf8_append_lossy(mended, text);
    return mended;
}

std::string side(const MetricRatio& m, double value) {
    if (m.unit == "ms") return latency(value);
    return m.unit.empty() ? percent(value) : figure(value) + " " + m.unit;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
    switch (verdict) {
        case Verdict::kNoDifference:
            return "no difference shown";
        case Verdict::kBetter:
            return "better";
        case Verdict::kWorse:
            return "worse";
        case Verdict::kTooFew:
            return "too few pairs";
    }
    return "unknown";
}

Comparison compare(std::span<const Report> a, std::span<const Report> b, std::string_view name_a,
                   std::string_view name_b) {
    Comparison c;
    c.name_a = name_a;
    c.name_b = name_b;
    const std::size_t pairs = std::min(a.size(), b.size());
    if (a.size() != b.size()) {
        c.warnings.push_back(
            fmt::format("{} runs of A and {} of B: only the first {} of each are "
                        "pairs.",
                        a.size(), b.size(), pairs));
    }
    a = a.first(pairs);
    b = b.first(pairs);
    for (std::size_t i = 0; i < pairs; ++i) {
        if (a[i].partial || b[i].partial) {
            c.warnings.push_back(
                fmt::format("Pair {} is left out: a run of it was stopped early.", i + 1));
        } else {
            ++c.pairs;
        }
        if (a[i].failed() + b[i].failed() > 0) {
            c.warnings.push_back(
                fmt::format("In pair {}, {} requests of A and {} of B failed; "
                            "latencies are of the others.",
                            i + 1, a[i].failed(), b[i].failed()));
        }
    }
    for (const Metric& metric : kMetrics) {
        MetricRatio m = ratio_of(metric, a, b);
        if (m.pairs > 0) c.metrics.push_back(std::move(m));
    }
    return c;
}

std::string to_json(const Comparison& c) {
    std::string out;
    codec::JsonWriter json(out);
    json.begin_object().key("format").string("stator-comparison").key("version").number(1u);
    json.key("a").string(text_of(c.name_a)).key("b").string(text_of(c.name_b));
    json.key("pairs").number(c.pairs).key("metrics").begin_array();
    for (const MetricRatio& m : c.metrics) {
        json.begin_object().key("metric").string(text_of(m.metric));
        json.key("unit").string(text_of(m.unit));
        json.key("higher_is_better").boolean(m.higher_is_better);
        json.key("a").number(m.a).key("b").number(m.b).key("ratio").number(m.ratio);
        if (m.verdict == Verdict::kTooFew) {
            json.key("low").null().key("high").null();
        } else {
            json.key("low").number(m.low).key("high").number(m.high);
        }
        json.key("pairs").number(m.pairs).key("verdict").string(to_string(m.verdict));
        json.end_object();
    }
    json.end_array().key("warnings").begin_array();
    for (const std::string& warning : c.warnings) json.string(text_of(warning));
    json.end_array().end_object();
    out += '\n';
    return out;
}

std::string to_table(const Comparison& c, const TableStyle& style) {
    const auto paint = [&](std::string_view code, std::string text) {
        return style.colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
    };
    std::string out = paint(
        "1", fmt::format("A {}  against  B {}", one_line(c.name_a, 40), one_line(c.name_b, 40)));
    out += fmt::format("\n{} pairs; ratio A/B with its 95 % confidence interval\n\n", c.pairs);
    out += paint("2", fmt::format("  {:<14}{:>14}{:>14}{:>8}  {:<17}", "", "A", "B", "A/B",
                                  "95 % interval"));
    out += '\n';
    for (const MetricRatio& m : c.metrics) {
        const bool known = m.verdict != Verdict::kTooFew;
        out += fmt::format("  {:<14}{:>14}{:>14}{:>8.3f}  {:<17}", m.metric, side(m, m.a),
                           side(m, m.b), m.ratio,
                           known ? fmt::format("{:.3f} - {:.3f}", m.low, m.high) : "");
        switch (m.verdict) {
            case Verdict::kBetter:
                out += paint("32", "A better");
                break;
            case Verdict::kWorse:
                out += paint("31", "A worse");
                break;
            case Verdict::kNoDifference:
                break;
            case Verdict::kTooFew:
                out += paint("2", "too few pairs");
                break;
        }
        while (out.ends_with(' ')) out.pop_back();
        out += '\n';
    }
    if (c.pairs > 1) {
        out += "\n  Of twenty figures that do not differ, one will seem to at 95 %.\n";
    }
    for (const std::string& warning : c.warnings) out += "  ! " + one_line(warning, 400) + "\n";
    return out;
}

}  // namespace stator::report
