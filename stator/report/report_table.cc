#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "stator/report/figure.h"
#include "stator/report/render.h"
#include "stator/report/wording.h"

namespace stator::report {
namespace {

constexpr std::size_t kLabel = 13;
constexpr std::size_t kMaxName = 48;
constexpr std::size_t kMaxFact = 200;

/// The pieces all lines are made of.
class Sheet {
  public:
    explicit Sheet(const TableStyle& style)
        : style_(style), width_(std::clamp<std::size_t>(style.columns, 60, 100)) {}

    [[nodiscard]] std::string bold(std::string_view text) const { return paint("1", text); }
    [[nodiscard]] std::string dim(std::string_view text) const { return paint("2", text); }
    [[nodiscard]] std::string red(std::string_view text) const { return paint("31", text); }
    [[nodiscard]] std::string yellow(std::string_view text) const { return paint("33", text); }
    [[nodiscard]] std::string_view pick(std::string_view unicode, std::string_view ascii) const {
        return style_.unicode ? unicode : ascii;
    }
    [[nodiscard]] bool unicode() const { return style_.unicode; }
    [[nodiscard]] std::size_t width() const { return width_; }

    void line(std::string_view text = "") {
        out_ += text;
        out_ += '\n';
    }
    /// "label      text"
    void labelled(std::string_view label, std::string_view text) {
        line(fmt::format("  {} {}", dim(fmt::format("{:<{}}", label, kLabel)), text));
    }
    void rule() {
        std::string dashes;
        for (std::size_t i = 0; i < width_; ++i) dashes += pick("─", "-");
        line(dim(dashes));
    }
    /// Several lines where the text is longer than the terminal is wide.
    void wrapped(std::string_view first, std::string_view next, std::string_view text) {
        const std::size_t room = width_ - columns(first);
        while (columns(text) > room) {
            std::size_t cut = text.rfind(' ', room);
            if (cut == std::string_view::npos || cut == 0) break;
            line(std::string(first) + std::string(text.substr(0, cut)));
            text.remove_prefix(cut + 1);
            first = next;
        }
        line(std::string(first) + std::string(text));
    }
    [[nodiscard]] std::string take() { return std::move(out_); }

  private:
    [[nodiscard]] std::string paint(std::string_view code, std::string_view text) const {
        if (!style_.colour) return std::string(text);
        return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
    }
    TableStyle style_;
    std::size_t width_;
    std::string out_;
};

void put_heading(Sheet& sheet, const Report& report) {
    std::string heading = sheet.bold(report.name.empty() ? "Run" : one_line(report.name, kMaxName));
    heading += sheet.dim(" in ") + span(report.seconds);
    if (report.partial) heading += "   " + sheet.yellow("PARTIAL: stopped before its end");
    sheet.line(heading);
    sheet.rule();
    for (const Fact& fact : report.facts) {
        sheet.labelled(one_line(fact.key, kLabel), one_line(fact.value, kMaxFact));
    }
    if (!report.facts.empty()) sheet.line();
}

void put_headlines(Sheet& sheet, const Report& report) {
    const std::uint64_t failed = report.failed();
    const std::uint64_t unfinished = report.count(Outcome::kUnfinished);
    std::string counts = fmt::format("{} ok", whole(report.count(Outcome::kOk)));
    const std::string failures = fmt::format("{} failed", whole(failed));
    counts += "   " + (failed > 0 ? sheet.red(failures) : failures);
    if (unfinished > 0) counts += "   " + sheet.yellow(whole(unfinished) + " unfinished");
    sheet.labelled("requests", counts);
    sheet.labelled("rate", fmt::format("{} req/s achieved   {} req/s offered   {} in flight",
                                       sheet.bold(figure(report.achieved_rate)),
                                       figure(report.offered_rate), figure(report.mean_in_flight)));
    if (!report.slo.empty()) {
        sheet.labelled("goodput",
                       fmt::format("{} req/s   {} of requests met the SLO",
                                   sheet.bold(figure(report.goodput)), percent(report.good_share)));
        sheet.labelled("SLO", slo_text(report.slo, sheet.pick("≤", "<=")));
    }
    sheet.labelled("throughput",
                   fmt::format("{} output tok/s   {} total tok/s",
                               sheet.bold(figure(report.output_rate)), figure(report.total_rate)));
    sheet.labelled("tokens",
                   fmt::format("{} in, {} of them cached   {} out", whole(report.input_tokens),
                               percent(report.cached_ratio), whole(report.output_tokens)));
    if (report.lost_output_tokens > 0) {
        sheet.labelled("", fmt::format("{} more out, of requests that did not end well",
                                       whole(report.lost_output_tokens)));
    }
}

/// A cell of the table of latencies, in its row's unit.
std::string cell(double ms, bool in_seconds) {
    const double value = in_seconds ? ms / 1000.0 : ms;
    if (value != 0 && std::abs(value) < 0.01) return "<0.01";
    if (std::abs(value) < 9.9995) return fmt::format("{:.2f}", value);
    return std::abs(value) < 999.95 ? fmt::format("{:.1f}", value) : figure(value);
}

void put_latencies(Sheet& sheet, const Report& report) {
    struct Row {
        std::string_view label;
        const Summary& of;
    };
    const std::array rows{Row{"TTFT", report.ttft}, Row{"ITL", report.itl},
                          Row{"TPOT", report.tpot}, Row{"E2E", report.e2e},
                          Row{"sent late", report.lateness}};
    sheet.line();
    sheet.line("  " + sheet.dim(fmt::format("{:<{}} {:>4}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
                                            "latency", kLabel - 2, "", "mean", "p50", "p90", "p95",
                                            "p99", "p99.9", "max")));
    for (const auto& [label, s] : rows) {
        if (s.count == 0) continue;
        const bool seconds = s.max >= 9'999.5;
        std::string cells;
        for (const double ms : {s.mean, s.p50, s.p90, s.p95, s.p99, s.p999, s.max}) {
            cells += fmt::format("{:>8}", cell(ms, seconds));
        }
        sheet.line(fmt::format("  {:<{}} {}{}", label, kLabel - 2,
                               sheet.dim(seconds ? "   s" : "  ms"), cells));
    }
}

std::string bars(const std::vector<double>& values, double greatest) {
    static constexpr std::array kBars{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    std::string out;
    for (const double value : values) {
        const double share = greatest > 0 ? std::clamp(value / greatest, 0.0, 1.0) : 0.0;
        out += kBars[static_cast<std::size_t>(std::lround(share * (kBars.size() - 1)))];
    }
    return out;
}

/// The run in one line per figure: the mean of what falls on each column.
void put_timeline(Sheet& sheet, const Report& report) {
    const std::vector<Interval>& all = report.timeline.intervals;
    if (!sheet.unicode() || all.size() < 8) return;
    const std::size_t places = std::min(all.size(), sheet.width() - kLabel - 26);
    const auto put = [&](std::string_view label, std::string_view unit, auto value, auto weight) {
        std::vector<double> means(places);
        double greatest = 0;
        for (std::size_t p = 0; p < places; ++p) {
            double sum = 0;
            double weights = 0;
            for (std::size_t i = p * all.size() / places; i < (p + 1) * all.size() / places; ++i) {
                sum += value(all[i]) * weight(all[i]);
                weights += weight(all[i]);
            }
            means[p] = weights > 0 ? sum / weights : 0;
            greatest = std::max(greatest, means[p]);
        }
        sheet.labelled(label, fmt::format("{}  {} {} at most", bars(means, greatest),
                                          short_figure(greatest), unit));
    };
    const double width = report.timeline.interval_seconds;
    const auto one = [](const Interval&) { return 1.0; };
    sheet.line();
    put(
        "completed", "req/s",
        [width](const Interval& i) { return static_cast<double>(i.completed) / width; }, one);
    put("in flight", "requests", [](const Interval& i) { return i.in_flight; }, one);
    put(
        "TTFT p50", "ms", [](const Interval& i) { return i.ttft_p50_ms; },
        [](const Interval& i) { return static_cast<double>(i.ttft_count); });
    put(
        "output", "tok/s",
        [width](const Interval& i) { return static_cast<double>(i.output_tokens) / width; }, one);
}

void put_workers(Sheet& sheet, const Report& report) {
    const WorkerSummary& w = report.workers;
    if (w.workers == 0) return;
    sheet.line();
    const std::string_view to = sheet.pick("–", "-");
    sheet.labelled("workers", fmt::format("{} served requests: {}{}{} each, {} on average",
                                          whole(w.workers), figure(w.requests.min), to,
                                          figure(w.requests.max), figure(w.requests.mean)));
    sheet.labelled("", fmt::format("cached {} {} {}, {} on average", percent(w.cached_ratio.min),
                                   to, percent(w.cached_ratio.max), percent(w.cached_ratio.mean)));
}

void put_troubles(Sheet& sheet, const Report& report) {
    if (!report.reasons.empty()) sheet.line();
    for (const ReasonCount& r : report.reasons) {
        std::string text = std::string(outcome_title(r.outcome));
        if (r.reason != to_string(r.outcome)) text += ": " + one_line(r.reason, 80);
        sheet.labelled("failed", fmt::format("{} {}", sheet.red(whole(r.count)), text));
    }
    if (!report.warnings.empty()) sheet.line();
    for (const std::string& warning : report.warnings) {
        sheet.wrapped("  ! ", "    ", one_line(warning, 400));
    }
}

}  // namespace

std::string to_table(const Report& report, const TableStyle& style) {
    Sheet sheet(style);
    put_heading(sheet, report);
    put_headlines(sheet, report);
    put_latencies(sheet, report);
    put_timeline(sheet, report);
    put_workers(sheet, report);
    put_troubles(sheet, report);
    return sheet.take();
}

}  // namespace stator::report
