#include <gmock/gmock.h>
#include <rapidcheck.h>

#include "stator/codec/json.h"
#include "stator/report/render.h"
#include "stator/report/synthetic_run_fixture.h"

namespace stator::report {
namespace {

using testing::HasSubstr;

Report small_report() {
    Report r;
    r.name = "one";
    r.facts = {{"model", "m\"<1>"}};
    r.partial = true;
    r.seconds = 2.5;
    r.slo = {.ttft_ms = 500, .itl_rule = ItlRule::kP99};
    r.requests = 3;
    r.outcomes = {{Outcome::kOk, 2}, {Outcome::kRefused, 1}};
    r.reasons = {{Outcome::kRefused, "http 429", 1}};
    r.ttft = {2, 10.5, 1, 20, 10.5, 19, 19.5, 19.9, 19.99, {{0, 1}, {1, 20}}};
    r.offered_rate = 1.2;
    r.achieved_rate = 0.8;
    r.output_tokens = 7;
    r.timeline = {0.25, {{2, 2, 1, 7, 0.5, 2, 10, 20}}};
    r.samples = {{0.125, 10, 4, 5, 1, 2}};
    r.series = {{"workers", "", "", {{0, 1}, {1, 2.5}}}};
    r.workers = {1, {1, 1, 1}, {7, 7, 7}, {0.4, 0.4, 0.4}, {{0, 3, 1, 10, 4, 7}}};
    r.warnings = {"Odd."};
    return r;
}

/// The format others read: a change here needs a new version or must leave old readers alone.
constexpr std::string_view kGolden =
    R"({"format":"stator-report","version":1,"name":"one","facts":[{"key":"model",)"
    R"("value":"m\"<1>"}],"partial":true,"seconds":2.5,"slo":{"ttft_ms":500.0,"itl_ms":null,)"
    R"("itl_rule":"p99","e2e_ms":null},"requests":3,"outcomes":[{"outcome":"ok","count":2},)"
    R"({"outcome":"refused","count":1}],"reasons":[{"outcome":"refused","reason":"http 429",)"
    R"("count":1}],"offered_rate":1.2,"achieved_rate":0.8,"goodput":0.0,"good_share":0.0,)"
    R"("output_rate":0.0,"total_rate":0.0,"mean_in_flight":0.0,"input_tokens":0,)"
    R"("cached_tokens":0,"output_tokens":7,"lost_output_tokens":0,"cached_ratio":0.0,)"
    R"("ttft_ms":{"count":2,"mean":10.5,"min":1.0,"max":20.0,"p50":10.5,"p90":19.0,)"
    R"("p95":19.5,"p99":19.9,"p999":19.99,"quantiles":[[0.0,1.0],[1.0,20.0]]},)"
    R"("itl_ms":{"count":0,"mean":0.0,"min":0.0,"max":0.0,"p50":0.0,"p90":0.0,"p95":0.0,)"
    R"("p99":0.0,"p999":0.0,"quantiles":[]},"tpot_ms":{"count":0,"mean":0.0,"min":0.0,)"
    R"("max":0.0,"p50":0.0,"p90":0.0,"p95":0.0,"p99":0.0,"p999":0.0,"quantiles":[]},)"
    R"("e2e_ms":{"count":0,"mean":0.0,"min":0.0,"max":0.0,"p50":0.0,"p90":0.0,"p95":0.0,)"
    R"("p99":0.0,"p999":0.0,"quantiles":[]},"lateness_ms":{"count":0,"mean":0.0,"min":0.0,)"
    R"("max":0.0,"p50":0.0,"p90":0.0,"p95":0.0,"p99":0.0,"p999":0.0,"quantiles":[]},)"
    R"("timeline":{"interval_seconds":0.25,"intervals":[{"offered":2,"completed":2,"failed":1,)"
    R"("output_tokens":7,"in_flight":0.5,"ttft_count":2,"ttft_p50_ms":10.0,)"
    R"("ttft_p99_ms":20.0}]},"samples":[[0.125,10,4,5,1.0,2.0]],"series":[{"name":"workers",)"
    R"("curve":"","unit":"","points":[[0.0,1.0],[1.0,2.5]]}],"remarks":[],"workers":{"workers":1,"requests":{"min":1.0,)"
    R"("mean":1.0,"max":1.0},"output_tokens":{"min":7.0,"mean":7.0,"max":7.0},)"
    R"("cached_ratio":{"min":0.4,"mean":0.4,"max":0.4},"rows":[{"worker":0,"requests":3,)"
    R"("failed":1,"input_tokens":10,"cached_tokens":4,"output_tokens":7}]},)"
    R"("warnings":["Odd."]})"
    "\n";

TEST(ReportJson, IsTheFormatOthersRead) { EXPECT_EQ(to_json(small_report()), kGolden); }

TEST(ReportJson, ReadsBackEqual) {
    const auto back = parse_report(kGolden);
    ASSERT_TRUE(back.has_value()) << back.error().message;
    EXPECT_EQ(*back, small_report());
}

TEST(ReportJson, AnyRunReadsBackEqualAndWritesTheSameBytes) {
    EXPECT_TRUE(rc::check([] {
        SyntheticRun run;
        run.rate = *rc::gen::inRange(1, 50);
        run.seconds = *rc::gen::inRange(1, 30);
        run.failure_share = 0.05;
        run.seed = *rc::gen::arbitrary<std::uint32_t>();
        CollectorOptions options;
        options.per_worker = *rc::gen::arbitrary<bool>();
        options.slo.e2e_ms = 3000.1;
        const Report report = synthetic_report(run, options);
        const std::string json = to_json(report);
        RC_ASSERT(json == to_json(synthetic_report(run, options)));
        const auto back = parse_report(json);
        RC_ASSERT(back.has_value());
        RC_ASSERT(*back == report);
        RC_ASSERT(to_json(*back) == json);
    }));
}

TEST(ReportJson, MendsTextThatIsNoUtf8) {
    Report r;
    r.name = "\xff";
    r.warnings = {"a\xc3"};
    const auto back = parse_report(to_json(r));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(back->name, "\xef\xbf\xbd");
    EXPECT_EQ(back->warnings[0], "a\xef\xbf\xbd");
}

TEST(ReportJson, NamesWhatIsWrong) {
    const auto fault = [](std::string_view from, std::string_view to) {
        std::string json(kGolden);
        json.replace(json.find(from), from.size(), to);
        const auto back = parse_report(json);
        return back ? "read" : back.error().message;
    };
    EXPECT_THAT(fault(R"("seconds":2.5)", R"("seconds":"2.5")"),
                HasSubstr("seconds must be a number"));
    EXPECT_THAT(fault(R"("requests":3)", R"("requests":-3)"), HasSubstr("requests must be an int"));
    EXPECT_THAT(fault(R"("outcome":"refused")", R"("outcome":"shy")"),
                HasSubstr("outcomes[1].outcome is none of the names"));
    EXPECT_THAT(fault(R"("p50":10.5)", R"("p50":[])"), HasSubstr("ttft_ms.p50 must be"));
    EXPECT_THAT(fault("[0.125,10,", "[0.125,4294967296,"), HasSubstr("samples[0].input_tokens"));
    EXPECT_THAT(fault(R"("facts":[)", R"("facts":[7,)"), HasSubstr("facts[0] must be an object"));
    EXPECT_THAT(fault(R"("slo":{)", R"("slo":7,"x":{)"), HasSubstr("slo must be an object"));
    EXPECT_THAT(fault(R"(["Odd."])", R"("Odd.")"), HasSubstr("warnings must be an array"));
    EXPECT_THAT(fault(R"("version":1)", R"("version":2)"), HasSubstr("newer"));
    EXPECT_THAT(fault("stator-report", "other"), HasSubstr("no report"));
    EXPECT_THAT(parse_report("{").error().message, testing::Not(testing::IsEmpty()));
}

TEST(ReportJson, BoundsHoldWhenReading) {
    std::string many;
    for (std::size_t i = 0; i <= Report::kMaxIntervals; ++i) many += "{},";
    many.pop_back();
    const auto back = parse_report(R"({"format":"stator-report","version":1,"timeline":)"
                                   R"({"intervals":[)" +
                                   many + "]}}");
    ASSERT_FALSE(back.has_value());
    EXPECT_THAT(back.error().message, HasSubstr("timeline.intervals holds 257 values"));
}

TEST(ReportJson, PassesOverWhatItDoesNotKnowAndMisses) {
    const auto back = parse_report(R"({"format":"stator-report","version":1,"new":[1],)"
                                   R"("samples":[[1.5,2]]})");
    ASSERT_TRUE(back.has_value());
    ASSERT_EQ(back->samples.size(), 1u);
    EXPECT_EQ(back->samples[0].input_tokens, 2u);
    EXPECT_EQ(back->samples[0].ttft_ms, 0);
}

}  // namespace
}  // namespace stator::report
