#include "stator/router/explanation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/router/router.h"

namespace stator::router {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

RankDescription rank(std::string name) {
    RankDescription d;
    d.name = std::move(name);
    d.prefill = {0.01, 1e-4, 0};
    return d;
}

TEST(Explanation, SaysWhatEachRankWouldTakeAndWhyNot) {
    PolicyOptions options;
    options.error_band = 0;
    Router router(options);
    router.add_rank(rank("a/0"));
    router.add_rank(rank("b/0"));
    RankDescription old = rank("c/0");
    old.taints = {"gpu=old"};
    router.add_rank(old);
    const Overlap overlap{1, 100, 100};
    RouteRequest r;
    r.prompt_tokens = 2000;
    r.overlaps = {&overlap, 1};
    const Explanation e = router.explain(r, 0ns);
    EXPECT_EQ(router.bookings(), 0U);
    // 400 tokens to compute, and three tenths of their time for whoever comes next.
    EXPECT_EQ(
        to_json(e, 2),
        R"({"policy":"expected-ttft","prompt_tokens":2000,"chosen":{"worker":"b/0",)"
        R"("predicted_ttft_ms":50.0,"queue_ms":0.0,"prefill_ms":50.0,"onboarding_ms":0.0,)"
        R"("encode_ms":0.0,"adapter_load_ms":0.0,"handoff_ms":0.0,"harm_to_others_ms":15.0,)"
        R"("cached_tokens":1600,"cost_ms":65.0},"uncertainty_ms":13.463,"kept_for_session":false,)"
        R"("fallbacks":["a/0"],"ranks":[{"worker":"b/0","predicted_ttft_ms":50.0,"queue_ms":0.0,)"
        R"("prefill_ms":50.0,"onboarding_ms":0.0,"encode_ms":0.0,"adapter_load_ms":0.0,)"
        R"("handoff_ms":0.0,"harm_to_others_ms":15.0,"cached_tokens":1600,"cost_ms":65.0},)"
        R"({"worker":"a/0","predicted_ttft_ms":210.0,"queue_ms":0.0,"prefill_ms":210.0,)"
        R"("onboarding_ms":0.0,"encode_ms":0.0,"adapter_load_ms":0.0,"handoff_ms":0.0,)"
        R"("harm_to_others_ms":63.0,"cached_tokens":0,"cost_ms":273.0}],"ranks_left_out":1})");
    EXPECT_THAT(to_json(e), HasSubstr(R"({"worker":"c/0","excluded":"taint gpu=old"})"));
}

TEST(Explanation, IsWhatBookingThenDoes) {
    Router router({}, 5);
    for (int i = 0; i < 8; ++i) router.add_rank(rank("w" + std::to_string(i)));
    RouteRequest r;
    r.prompt_tokens = 1000;
    for (int i = 0; i < 50; ++i) {
        const Explanation e = router.explain(r, 0ns);
        const auto d = router.book(r, 0ns);
        ASSERT_TRUE(e.chosen && d);
        EXPECT_EQ(e.chosen->candidate.rank, d->chosen.rank);
        EXPECT_EQ(e.chosen->candidate.ttft_s(), d->chosen.ttft_s());
    }
}

TEST(Explanation, RefusalsAreExplainedToo) {
    Router router;
    RankDescription closed = rank("w");
    closed.open = false;
    router.add_rank(closed);
    RouteRequest r;
    r.prompt_tokens = 10;
    EXPECT_EQ(to_json(router.explain(r, 0ns)),
              R"({"policy":"expected-ttft","prompt_tokens":10,"chosen":null,)"
              R"("refused":"no worker is ready","refusal":"unavailable","fallbacks":[],)"
              R"("ranks":[{"worker":"w","excluded":"takes no requests"}]})");
}

}  // namespace
}  // namespace stator::router
