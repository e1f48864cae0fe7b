#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <cmath>
#include <set>

#include "stator/report/compare.h"
#include "stator/report/markup.h"
#include "stator/report/page_assets.h"
#include "stator/report/page_plots.h"
#include "stator/report/render.h"
#include "stator/report/synthetic_run_fixture.h"

namespace stator::report {
namespace {

using testing::HasSubstr;
using testing::Not;

/// What is wrong with the tags of a page: each is closed, in order, and attributes are quoted.
/// Knows no more of HTML than pages of ours need. Empty: nothing.
std::string tag_fault(std::string_view html) {
    static const std::set<std::string_view> kVoid{"meta", "br", "!DOCTYPE"};
    std::vector<std::string_view> open;
    for (std::size_t at = 0; (at = html.find('<', at)) != std::string_view::npos;) {
        const std::size_t end = html.find('>', at);
        if (end == std::string_view::npos) return "a tag has no end";
        std::string_view tag = html.substr(at + 1, end - at - 1);
        at = end + 1;
        if (tag.find('<') != std::string_view::npos) return "a tag in a tag: " + std::string(tag);
        const std::string_view name = tag.substr(0, tag.find_first_of(" /", 1));
        if (tag.starts_with('/')) {
            if (open.empty() || open.back() != tag.substr(1)) return "closes " + std::string(tag);
            open.pop_back();
            continue;
        }
        if (std::ranges::count(tag, '"') % 2 != 0) return "odd quotes: " + std::string(tag);
        if (tag.ends_with('/') || kVoid.contains(name)) continue;
        open.push_back(name);
        if (name == "script" || name == "style") {
            at = html.find(name == "script" ? "</script>" : "</style>", at);
            if (at == std::string_view::npos) return "unclosed " + std::string(name);
        }
    }
    return open.empty() ? "" : "never closed: " + std::string(open.back());
}

Report a_run(double rate = 20, std::uint64_t seed = 1) {
    CollectorOptions options;
    options.name = std::to_string(static_cast<int>(rate)) + " req/s";
    options.slo = {.ttft_ms = 500, .itl_ms = 25, .e2e_ms = 10'000};
    options.per_worker = true;
    SyntheticRun run;
    run.rate = rate;
    run.seconds = 30;
    run.failure_share = 0.05;
    run.seed = seed;
    Report report = synthetic_report(run, options);
    report.series = {{"workers ready", "", "workers", {{0, 1}, {10, 3}}}};
    return report;
}

std::vector<Report> a_sweep() { return {a_run(5, 1), a_run(40, 2), a_run(10, 3), a_run(20, 4)}; }

TEST(Page, IsOneWellFormedDocumentThatFetchesNothing) {
    const std::vector<Report> one{a_run()};
    const std::vector<Report> sweep = a_sweep();
    const Comparison c = compare(one, one, "a", "b");
    for (const std::string& html :
         {to_html(one, "One"), to_html(sweep, "Sweep"), to_html(one, "Compared", &c),
          to_html({}, "None"), to_html(std::vector<Report>(3), "Empty")}) {
        EXPECT_EQ(tag_fault(html), "");
        EXPECT_TRUE(html.starts_with("<!DOCTYPE html>"));
        EXPECT_THAT(html, HasSubstr("default-src 'none'"));
        for (const std::string_view fetch : {"src=", "href=", "url(", "@import", "fetch("}) {
            EXPECT_THAT(html, Not(HasSubstr(fetch)));
        }
        EXPECT_THAT(html, Not(HasSubstr("nan")));
        EXPECT_THAT(html, Not(HasSubstr("inf ")));
    }
}

TEST(Page, TheTagCheckItselfCanFail) {
    EXPECT_NE(tag_fault("<p><b></p>"), "");
    EXPECT_NE(tag_fault("<p class=\"a>x</p>"), "");
    EXPECT_NE(tag_fault("<p>"), "");
    EXPECT_EQ(tag_fault("<p class=\"a\"><br>x</p>"), "");
}

TEST(Page, TextsFromOutsideStayText) {
    const std::string evil = "\"><script>alert('1')</script><img src=x onerror=alert(1)>\x01\xff&";
    Report r = a_run();
    r.name = evil;
    r.facts = {{evil, evil}, {"curve", evil}};
    r.reasons = {{Outcome::kReset, evil, 3}};
    r.warnings = {evil};
    r.series = {{evil, evil, evil, {{0, 1}}}};
    r.remarks = {{1, evil}};
    std::vector<Report> several = a_sweep();
    several[0] = r;
    several[1].facts = {{evil, "other"}};
    Comparison c = compare(several, several, evil, evil);
    c.metrics[0].metric = evil;
    c.metrics[0].unit = evil;
    c.warnings = {evil};
    for (const std::string& html :
         {to_html(std::span(&r, 1), evil, &c), to_html(several, evil, &c)}) {
        EXPECT_EQ(tag_fault(html), "");
        EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
        EXPECT_THAT(html, Not(HasSubstr("<img")));
        EXPECT_THAT(html, Not(HasSubstr("\x01")));
        EXPECT_THAT(html, Not(HasSubstr("\xff")));
        EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(&#39;1&#39;)"));
    }
}

TEST(Page, AnyFiguresMakeAPage) {
    EXPECT_TRUE(rc::check([] {
        Report r = a_run(*rc::gen::inRange(1, 30), *rc::gen::arbitrary<std::uint32_t>());
        const double odd = *rc::gen::element(0.0, -1.0, 1e-300, 1e300, NAN, INFINITY, 5e-324);
        const int where = *rc::gen::inRange(0, 8);
        if (where == 0) r.seconds = odd;
        if (where == 1) r.timeline.interval_seconds = odd;
        if (where == 2) r.samples[0].ttft_ms = odd;
        if (where == 3) r.ttft.quantiles[3].value = odd;
        if (where == 4) r.slo.ttft_ms = odd;
        if (where == 5) r.timeline.intervals[2].in_flight = odd;
        if (where == 6) r.offered_rate = r.achieved_rate = r.ttft.p99 = r.good_share = odd;
        if (where == 7) r.series[0].points[0] = {odd, odd};
        std::vector<Report> sweep = a_sweep();
        sweep[1] = r;
        RC_ASSERT(tag_fault(to_html(std::span(&r, 1), "odd")).empty());
        const std::string html = to_html(sweep, "odd");
        RC_ASSERT(tag_fault(html).empty());
        RC_ASSERT(html.find("d=\"Mnan") == std::string::npos);
    }));
}

TEST(Page, ShowsWhatWasMeasured) {
    Report r = a_run();
    r.partial = true;
    r.warnings = {"Odd."};
    const std::string html = to_html(std::span(&r, 1), "Title & more");
    EXPECT_THAT(html, HasSubstr("<title>Title &amp; more</title>"));
    EXPECT_THAT(html, HasSubstr("partial: stopped before its end"));
    EXPECT_THAT(html, HasSubstr("<li>Odd.</li>"));
    EXPECT_THAT(html, HasSubstr("SLO 500 ms"));
    EXPECT_THAT(html, HasSubstr("http 503"));
    EXPECT_THAT(html, HasSubstr("Qwen3-8B"));
    EXPECT_THAT(html, HasSubstr("workers ready"));
    EXPECT_THAT(html, Not(HasSubstr("Over the rate")));
    EXPECT_THAT(to_html(a_sweep(), "Sweep"), HasSubstr("Over the rate"));
}

TEST(Page, TooManyRunsAreSaidToBeTooMany) {
    const std::vector<Report> many(kMaxPageReports + 3);
    EXPECT_THAT(to_html(many, "Many"), HasSubstr("3 more runs are not shown"));
}

TEST(Page, SweepsNeedThreeRates) {
    EXPECT_FALSE(is_sweep(std::vector{a_run(5), a_run(5), a_run(10)}));
    EXPECT_TRUE(is_sweep(a_sweep()));
}

TEST(Page, SweepsOfSeveralSystemsAreSeveralCurves) {
    std::vector<Report> sweep = a_sweep();
    sweep[0].facts.push_back({"curve", "old"});
    sweep[1].facts.push_back({"curve", "old"});
    std::vector<report::Run> runs;
    for (const Report& r : sweep) runs.push_back({&r, r.name, "red"});
    const std::vector<Plot> plots = rate_plots(runs);
    ASSERT_EQ(plots.size(), 3u);
    EXPECT_EQ(plots[0].curves.size(), 4u);  // p99 and p50 of each
    EXPECT_EQ(plots[0].curves[0].points.size(), 2u);
    EXPECT_LT(plots[0].curves[0].points[0].x, plots[0].curves[0].points[1].x);
}

TEST(Page, IsTheSameForTheSameReports) {
    EXPECT_EQ(to_html(a_sweep(), "Sweep"), to_html(a_sweep(), "Sweep"));
}

TEST(Axis, TicksAreRoundAscendAndCoverTheFigures) {
    EXPECT_TRUE(rc::check([] {
        const double greatest = std::pow(10.0, *rc::gen::inRange(-600, 900) / 100.0);
        const double least = greatest / std::pow(10.0, *rc::gen::inRange(0, 400) / 100.0);
        for (const Axis& axis : {linear_axis(greatest, Unit::kPlain, ""),
                                 log_axis(least, greatest, Unit::kLatency, ""),
                                 fitting_axis(least, greatest, Unit::kLatency, "")}) {
            RC_ASSERT(axis.low < axis.high);
            RC_ASSERT(axis.high >= greatest * (1 - 1e-6));
            RC_ASSERT(axis.scale == Scale::kLinear || axis.low <= least * (1 + 1e-6));
            RC_ASSERT(axis.high <= greatest * 5.1);
            RC_ASSERT(axis.ticks.size() >= 2u && axis.ticks.size() <= 64u);
            double before = -1;
            std::set<std::string> labels;
            std::size_t labelled = 0;
            for (const Tick& tick : axis.ticks) {
                const double place = axis.place(tick.value);
                RC_ASSERT(place > before);
                before = place;
                if (tick.label.empty()) continue;
                ++labelled;
                labels.insert(tick.label);
            }
            RC_ASSERT(labels.size() == labelled);
            RC_ASSERT(labelled <= 10u);
        }
    }));
}

TEST(Axis, PlacesValuesByItsScale) {
    EXPECT_DOUBLE_EQ(linear_axis(10, Unit::kPlain, "").place(5), 0.5);
    EXPECT_NEAR(log_axis(1, 100, Unit::kPlain, "").place(10), 0.5, 1e-9);
    EXPECT_NEAR(tail_axis(1'000, "").place(0.99), 2.0 / 3, 1e-9);
    EXPECT_EQ(log_axis(1, 100, Unit::kPlain, "").place(-5), 0);
    EXPECT_EQ(log_axis(1, 100, Unit::kPlain, "").place(1e9), 1);
}

TEST(Axis, TimeFillsThePlot) {
    const Axis axis = time_axis(192);
    EXPECT_EQ(axis.high, 192);
    EXPECT_EQ(axis.title, "seconds");
    EXPECT_EQ(time_axis(600).title, "minutes");
    EXPECT_EQ(time_axis(6 * 3600).title, "hours");
    EXPECT_LE(axis.ticks.back().value, 192);
}

}  // namespace
}  // namespace stator::report
