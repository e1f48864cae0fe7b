#include "stator/report/collector.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "stator/report/render.h"
#include "stator/report/synthetic_run_fixture.h"

namespace stator::report {
namespace {

RequestRecord ok_record(double intended, double ttft, std::vector<float>& gaps) {
    RequestRecord r;
    r.intended = r.sent = intended;
    r.first_token = intended + ttft;
    r.end = std::accumulate(gaps.begin(), gaps.end(), r.first_token);
    r.output_tokens = static_cast<std::uint32_t>(gaps.size() + 1);
    r.input_tokens = 100;
    r.gaps = gaps;
    return r;
}

CollectorOptions with_slo(Slo slo) {
    CollectorOptions options;
    options.slo = slo;
    return options;
}

Report report_of(const RequestRecord& record, Slo slo) {
    Collector collector(with_slo(slo));
    collector.add(record);
    return collector.finish(record.end, false);
}

TEST(Collector, DefinitionsOnOneRequest) {
    std::vector<float> gaps{0.25f, 0.5f, 0.75f};
    RequestRecord r = ok_record(1.0, 0.5, gaps);
    r.sent = 1.125;
    r.cached_tokens = 25;
    const Report report = report_of(r, {});
    EXPECT_EQ(report.ttft.mean, 500);
    EXPECT_EQ(report.e2e.mean, 2000);
    EXPECT_EQ(report.tpot.mean, 500);
    EXPECT_EQ(report.itl.count, 3u);
    EXPECT_EQ(report.itl.max, 750);
    EXPECT_EQ(report.lateness.mean, 125);
    EXPECT_EQ(report.cached_ratio, 0.25);
    EXPECT_EQ(report.seconds, 3.0);
    EXPECT_DOUBLE_EQ(report.output_rate, 4 / 3.0);
    EXPECT_DOUBLE_EQ(report.total_rate, 104 / 3.0);
    EXPECT_DOUBLE_EQ(report.mean_in_flight, 1.875 / 3.0);
}

TEST(Collector, OneTokenHasNoTpot) {
    std::vector<float> none;
    const Report report = report_of(ok_record(0, 0.1, none), {});
    EXPECT_EQ(report.tpot.count, 0u);
    EXPECT_EQ(report.itl.count, 0u);
    EXPECT_EQ(report.e2e.count, 1u);
}

TEST(Collector, GoodputNeedsEveryLimit) {
    std::vector<float> gaps{0.25f, 0.25f};
    const RequestRecord r = ok_record(0, 0.5, gaps);
    const auto good = [&](Slo slo) { return report_of(r, slo).good_share == 1.0; };
    EXPECT_TRUE(good({}));
    EXPECT_TRUE(good({.ttft_ms = 500, .itl_ms = 250, .e2e_ms = 1000}));
    EXPECT_FALSE(good({.ttft_ms = 499, .itl_ms = 250, .e2e_ms = 1000}));
    EXPECT_FALSE(good({.ttft_ms = 500, .itl_ms = 249, .e2e_ms = 1000}));
    EXPECT_FALSE(good({.ttft_ms = 500, .itl_ms = 250, .e2e_ms = 999}));
}

TEST(Collector, ItlRuleChoosesMeanOrNinetyNinthPercentile) {
    std::vector<float> gaps(100, 0.001f);
    gaps[3] = 0.5f;
    const auto share = [&](ItlRule rule) {
        return report_of(ok_record(0, 0.1, gaps), {.itl_ms = 10, .itl_rule = rule}).good_share;
    };
    EXPECT_EQ(share(ItlRule::kMean), 1.0);
    EXPECT_EQ(share(ItlRule::kP99), 1.0);  // one in a hundred may be over
    gaps[7] = 0.5f;
    EXPECT_EQ(share(ItlRule::kMean), 0.0);
    EXPECT_EQ(share(ItlRule::kP99), 0.0);
    gaps.assign(100, 0.001f);
    gaps[3] = gaps[7] = 0.05f;
    EXPECT_EQ(share(ItlRule::kMean), 1.0);
    EXPECT_EQ(share(ItlRule::kP99), 0.0);
}

TEST(Collector, UnfinishedRequestsCountOnlyWhereTheyAlreadyMiss) {
    Collector collector(with_slo({.ttft_ms = 1000}));
    std::vector<float> gaps{0.25f};
    collector.add(ok_record(0, 0.5, gaps));
    RequestRecord waiting;
    waiting.outcome = Outcome::kUnfinished;
    waiting.intended = waiting.sent = 9.5;
    waiting.end = 10;
    collector.add(waiting);
    EXPECT_EQ(collector.finish(10, true).good_share, 1.0);
    waiting.intended = waiting.sent = 8.5;
    collector.add(waiting);
    const Report report = collector.finish(10, true);
    EXPECT_EQ(report.good_share, 0.5);
    EXPECT_EQ(report.count(Outcome::kUnfinished), 2u);
    EXPECT_EQ(report.failed(), 0u);
    EXPECT_TRUE(report.partial);
}

TEST(Collector, ReasonsAreBoundedAndNothingIsLost) {
    Collector collector({});
    for (int i = 0; i < 1000; ++i) {
        RequestRecord r;
        r.outcome = i % 2 == 0 ? Outcome::kHttpError : Outcome::kReset;
        r.reason = "reason " + std::to_string(i / 4);
        collector.add(r);
    }
    const Report report = collector.finish(1, false);
    EXPECT_LE(report.reasons.size(), Report::kMaxReasons);
    EXPECT_EQ(report.failed(), 1000u);
    std::uint64_t sum = 0;
    for (const ReasonCount& r : report.reasons) sum += r.count;
    EXPECT_EQ(sum, 1000u);
    EXPECT_EQ(report.reasons[0].reason, "other reasons");
}

TEST(Collector, LongAndMalformedReasonsAreKeptShortAndWhole) {
    RequestRecord r;
    r.outcome = Outcome::kBadAnswer;
    r.reason = std::string(79, 'x') + "\xc3\xa9";  // é across the cut
    Collector collector({});
    collector.add(r);
    r.reason = "bad \xff byte";
    collector.add(r);
    const Report report = collector.finish(1, false);
    EXPECT_EQ(report.reasons[1].reason, std::string(79, 'x'));
    EXPECT_EQ(report.reasons[0].reason, "bad \xef\xbf\xbd byte");
}

TEST(Collector, ImpossibleTimesAreFailuresNotLatencies) {
    std::vector<float> gaps{0.25f};
    const double nan = std::numeric_limits<double>::quiet_NaN();
    Collector collector({});
    for (const double wrong : {nan, std::numeric_limits<double>::infinity(), 0.0}) {
        RequestRecord r = ok_record(1, 0.5, gaps);
        r.end = wrong;
        collector.add(r);
    }
    const Report report = collector.finish(nan, false);
    EXPECT_EQ(report.count(Outcome::kBadAnswer), 3u);
    ASSERT_EQ(report.reasons.size(), 1u);
    EXPECT_EQ(report.reasons[0].reason, "impossible times");
    EXPECT_EQ(report.ttft.count, 0u);
}

TEST(Collector, OddGapsDoNoHarm) {
    const float infinite = std::numeric_limits<float>::infinity();
    std::vector<float> gaps{infinite, -1.0f, std::numeric_limits<float>::quiet_NaN()};
    RequestRecord r = ok_record(0, 0.5, gaps);
    r.end = 2;
    const Report report = report_of(r, {});
    EXPECT_EQ(report.itl.count, 3u);
    EXPECT_TRUE(std::isfinite(report.itl.mean));
    EXPECT_TRUE(parse_report(to_json(report)).has_value());
}

TEST(Collector, SampleIsUniformAndBounded) {
    std::vector<float> none;
    Collector collector({});
    for (int i = 0; i < 50'000; ++i) collector.add(ok_record(i, 0.01, none));
    const Report report = collector.finish(50'000, false);
    ASSERT_EQ(report.samples.size(), Report::kMaxSamples);
    double sum = 0;
    std::set<double> distinct;
    for (const SamplePoint& s : report.samples) {
        sum += s.start;
        distinct.insert(s.start);
    }
    EXPECT_EQ(distinct.size(), Report::kMaxSamples);
    // Standard deviation of the mean: 50,000 / sqrt(12 * 1,000) = 456.
    EXPECT_NEAR(sum / Report::kMaxSamples, 25'000, 4 * 456);
    EXPECT_TRUE(std::ranges::is_sorted(report.samples, {}, &SamplePoint::start));
}

TEST(Collector, SeriesStayBoundedAndInOrder) {
    Collector collector({});
    for (int i = 0; i < 10'000; ++i) collector.note("workers", "", i, i * 2.0);
    for (int i = 0; i < 100; ++i) collector.note("s" + std::to_string(i), "", 0, 0);
    const Report report = collector.finish(1, false);
    ASSERT_EQ(report.series.size(), Report::kMaxSeries);
    const auto& points = report.series[0].points;
    EXPECT_LE(points.size(), Report::kMaxSeriesPoints);
    EXPECT_GT(points.size(), Report::kMaxSeriesPoints / 2 - 1);
    EXPECT_EQ(points.front().time, 0);
    EXPECT_EQ(points.back().time, 9'999);
    for (const SeriesPoint& p : points) EXPECT_EQ(p.value, 2 * p.time);
    EXPECT_TRUE(std::ranges::is_sorted(points, {}, &SeriesPoint::time));
    EXPECT_EQ(report.warnings.size(), 1u);
}

TEST(Collector, WorkersAreSummedAndLateOnesCut) {
    CollectorOptions options;
    options.per_worker = true;
    Collector collector(options);
    std::vector<float> gaps{0.25f};
    for (std::uint32_t worker = 0; worker < 100; ++worker) {
        for (std::uint32_t n = 0; n <= worker; ++n) {
            RequestRecord r = ok_record(0, 0.5, gaps);
            r.worker = worker;
            r.cached_tokens = 50;
            collector.add(r);
        }
    }
    RequestRecord far = ok_record(0, 0.5, gaps);
    far.worker = 4'000'000'000;
    collector.add(far);
    const Report report = collector.finish(1, false);
    EXPECT_EQ(report.workers.workers, 100u);
    EXPECT_EQ(report.workers.requests, (Spread{1, 50.5, 100}));
    EXPECT_EQ(report.workers.cached_ratio, (Spread{0.5, 0.5, 0.5}));
    ASSERT_EQ(report.workers.rows.size(), Report::kMaxWorkerRows);
    EXPECT_EQ(report.workers.rows.front().worker, 100 - Report::kMaxWorkerRows);
    EXPECT_EQ(report.workers.rows.back().requests, 100u);
    ASSERT_EQ(report.warnings.size(), 1u);
    EXPECT_THAT(report.warnings[0], testing::HasSubstr("workers numbered 65536 or above"));
}

TEST(Collector, AgreesWithFiguresTakenFromTheRecordsThemselves) {
    EXPECT_TRUE(rc::check([] {
        SyntheticRun run;
        run.rate = *rc::gen::inRange(1, 40);
        run.seconds = *rc::gen::inRange(5, 60);
        run.failure_share = 0.1;
        run.seed = *rc::gen::arbitrary<std::uint32_t>();
        CollectorOptions options;
        options.slo = {.ttft_ms = 300, .itl_ms = 20};
        Collector collector(options);
        const SyntheticRecords made = synthetic_records(run);
        double end = run.seconds;
        double ok = 0;
        double good = 0;
        double ended = 0;
        std::uint64_t tokens = 0;
        std::uint64_t all_tokens = 0;
        std::vector<double> ttft;
        for (const RequestRecord& r : made.records) {
            collector.add(r);
            end = std::max(end, r.end);
            ++ended;
            all_tokens += r.output_tokens;
            if (r.outcome != Outcome::kOk) continue;
            ++ok;
            tokens += r.output_tokens;
            ttft.push_back((r.first_token - r.intended) * 1000);
            const double mean_gap = (r.end - r.first_token) / std::max(1u, r.output_tokens - 1);
            if (ttft.back() <= 300 && mean_gap * 1000 <= 20) ++good;
        }
        const Report report = collector.finish(run.seconds, false);
        RC_ASSERT(report.seconds == end);
        RC_ASSERT(report.achieved_rate == ok / end);
        RC_ASSERT(report.goodput == good / end);
        RC_ASSERT(ended == 0 || report.good_share == good / ended);
        RC_ASSERT(report.output_tokens == tokens);
        RC_ASSERT(report.ttft.count == ttft.size());
        std::uint64_t offered = 0;
        std::uint64_t completed = 0;
        std::uint64_t failed = 0;
        std::uint64_t over_time = 0;
        for (const Interval& i : report.timeline.intervals) {
            offered += i.offered;
            completed += i.completed;
            failed += i.failed;
            over_time += i.output_tokens;
        }
        RC_ASSERT(offered == made.records.size());
        RC_ASSERT(completed == report.count(Outcome::kOk));
        RC_ASSERT(failed == report.failed());
        RC_ASSERT(over_time == all_tokens);
        RC_ASSERT(report.timeline.intervals.size() <= Report::kMaxIntervals);
    }));
}

TEST(Collector, WarnsOfAQueueThatGrowsAndOfALateGenerator) {
    SyntheticRun run{.rate = 60, .seconds = 60, .workers = 2};
    Report report = synthetic_report(run, {});
    ASSERT_EQ(report.warnings.size(), 1u);
    EXPECT_THAT(report.warnings[0], testing::HasSubstr("did not keep up"));
    run.rate = 5;
    EXPECT_TRUE(synthetic_report(run, {}).warnings.empty());

    Collector late({});
    std::vector<float> gaps{0.01f};
    RequestRecord r = ok_record(0, 0.5, gaps);
    r.sent = 0.2;
    late.add(r);
    EXPECT_THAT(late.finish(1, false).warnings,
                testing::ElementsAre(testing::HasSubstr("the load generator itself was slow")));
}

TEST(Collector, SnapshotFollowsTheRun) {
    Collector collector({});
    EXPECT_EQ(collector.snapshot().ended, 0u);
    for (const RequestRecord& r : synthetic_records({.rate = 20, .seconds = 30}).records) {
        collector.add(r);
    }
    const Snapshot s = collector.snapshot();
    const Report report = collector.finish(30, false);
    EXPECT_EQ(s.ok, report.count(Outcome::kOk));
    EXPECT_EQ(s.ttft_p99_ms, report.ttft.p99);
    EXPECT_EQ(s.itl_mean_ms, report.itl.mean);
    EXPECT_GT(s.recent_output_rate, 0);
}

TEST(Collector, FactsAreReplacedByKey) {
    CollectorOptions options;
    options.facts = {{"model", "?"}, {"seed", "1"}};
    Collector collector(options);
    collector.set_fact("model", "Qwen3-8B");
    collector.set_fact("version", "2");
    EXPECT_EQ(collector.finish(1, false).facts,
              (std::vector<Fact>{{"model", "Qwen3-8B"}, {"seed", "1"}, {"version", "2"}}));
}

}  // namespace
}  // namespace stator::report
