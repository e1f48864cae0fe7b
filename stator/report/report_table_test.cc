#include <gmock/gmock.h>

#include "stator/report/figure.h"
#include "stator/report/render.h"
#include "stator/report/synthetic_run_fixture.h"

namespace stator::report {
namespace {

using testing::HasSubstr;
using testing::Not;

Report stormy() {
    CollectorOptions options;
    options.name = "round robin";
    options.slo = {.ttft_ms = 500, .itl_ms = 25};
    options.per_worker = true;
    SyntheticRun run;
    run.failure_share = 0.02;
    run.stall_at = 30;
    return synthetic_report(run, options);
}

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> out;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        out.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return out;
}

TEST(ReportTable, SaysWhatWasMeasured) {
    const Report report = stormy();
    const std::string table = to_table(report, {});
    EXPECT_THAT(table, HasSubstr(whole(report.count(Outcome::kOk)) + " ok"));
    EXPECT_THAT(table, HasSubstr(whole(report.failed()) + " failed"));
    EXPECT_THAT(table, HasSubstr("TTFT ≤ 500 ms, TPOT ≤ 25.0 ms"));
    EXPECT_THAT(table, HasSubstr("refused: http 503"));
    EXPECT_THAT(table, HasSubstr("p99.9"));
    EXPECT_THAT(table, Not(HasSubstr("PARTIAL")));
    EXPECT_THAT(table, Not(HasSubstr("\x1b")));
    EXPECT_EQ(table.back(), '\n');
}

TEST(ReportTable, MarksPartialRunsAndWarnings) {
    Report report = stormy();
    report.partial = true;
    report.warnings = {"First.", "Second."};
    const std::string table = to_table(report, {});
    EXPECT_THAT(table, HasSubstr("PARTIAL"));
    EXPECT_THAT(table, HasSubstr("! First."));
    EXPECT_THAT(table, HasSubstr("! Second."));
}

TEST(ReportTable, PlainStyleIsAscii) {
    TableStyle style;
    style.unicode = false;
    for (const char c : to_table(stormy(), style)) {
        EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << static_cast<int>(c);
    }
}

TEST(ReportTable, WidthsHoldAndWarningsWrap) {
    Report report = stormy();
    std::string sentence;
    for (int i = 0; i < 20; ++i) sentence += "many words ";
    report.warnings = {sentence};
    TableStyle style;
    style.columns = 80;
    for (const std::string& line : lines(to_table(report, style))) {
        EXPECT_LE(columns(line), 80u) << line;
    }
}

TEST(ReportTable, TextsFromOutsideCannotSteerTheTerminal) {
    Report report = stormy();
    report.name = "a\x1b[2J";
    report.facts = {{"k\x07", "v\xc2\x9b\x31m\n"}};
    report.reasons = {{Outcome::kReset, "r\x1b]0;title\x07", 1}};
    report.warnings = {"w\x1b[31m \xff"};
    const std::string table = to_table(report, {});
    EXPECT_THAT(table, Not(HasSubstr("\x1b")));
    EXPECT_THAT(table, Not(HasSubstr("\x07")));
    EXPECT_THAT(table, Not(HasSubstr("\xc2\x9b")));
    EXPECT_THAT(table, HasSubstr("\xef\xbf\xbd"));
}

TEST(ReportTable, AnEmptyReportIsATableToo) {
    EXPECT_THAT(to_table(Report{}, {}), HasSubstr("0 ok"));
}

TEST(Figure, ReadsWell) {
    EXPECT_EQ(whole(0), "0");
    EXPECT_EQ(whole(999), "999");
    EXPECT_EQ(whole(12'031), "12,031");
    EXPECT_EQ(whole(1'000'000), "1,000,000");
    EXPECT_EQ(figure(0), "0");
    EXPECT_EQ(figure(0.01234), "0.0123");
    EXPECT_EQ(figure(9.994), "9.99");
    EXPECT_EQ(figure(9.996), "10.0");
    EXPECT_EQ(figure(99.96), "100");
    EXPECT_EQ(figure(12'345.6), "12,346");
    EXPECT_EQ(figure(-12'345.6), "-12,346");
    EXPECT_EQ(short_figure(41'234), "41.2 k");
    EXPECT_EQ(short_figure(1'312'345), "1.31 M");
    EXPECT_EQ(short_figure(999'600), "1.00 M");
    EXPECT_EQ(latency(0.42), "0.42 ms");
    EXPECT_EQ(latency(0.0685), "68.5 µs");
    EXPECT_EQ(latency(1e-9), "under 1 µs");
    EXPECT_EQ(latency(0), "0 ms");
    EXPECT_EQ(latency(999.6), "1.00 s");
    EXPECT_EQ(latency(12'345), "12.3 s");
    EXPECT_EQ(span(42.06), "42.1 s");
    EXPECT_EQ(span(125), "2 min 5 s");
    EXPECT_EQ(span(3'601), "1 h 0 min");
    EXPECT_EQ(percent(0), "0.0 %");
    EXPECT_EQ(percent(1), "100.0 %");
    EXPECT_EQ(percent(0.9999), "over 99.9 %");
    EXPECT_EQ(percent(0.0001), "under 0.1 %");
    EXPECT_EQ(one_line("abcdef", 5), "ab...");
    EXPECT_EQ(one_line("ééé", 3), "ééé");
}

}  // namespace
}  // namespace stator::report
