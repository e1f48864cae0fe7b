#include <gtest/gtest.h>

#include <atomic>
#include <string_view>
#include <thread>

#include "stator/engine/mock/faults.h"
#include "stator/engine/mock/live/mock_fixture.h"

namespace stator::engine {
namespace {

mock::FaultPlan faults(std::string_view text) {
    const auto all = mock::parse_faults(text);
    EXPECT_TRUE(all);
    return mock::FaultPlan(*all, 0);
}

TEST(MockFaults, AHangHoldsEverythingUpAndThenGoesOn) {
    MockHost host;
    MockOptions o = quick(10);
    o.faults = faults("hang@100ms+2s");
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    const TimePoint start = Clock::real().now();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 300), sink));
    sink->wait_ends(1);
    EXPECT_GE(sink->of(1).ended - start, 200ms);
    EXPECT_EQ(sink->of(1).tokens, alone(make_request(1, {1}, 300)));
}

TEST(MockFaults, AHungEngineCanBeStopped) {
    MockHost host;
    MockOptions o = quick(1);
    o.faults = faults("hang@0s+10h");
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    auto r = make_request(1, {1}, 5);
    r.deadline = Deadline::at(Clock::real().now());
    ASSERT_TRUE(engine->submit(r, sink));
    EXPECT_TRUE(engine->healthy());
    engine->stop(Deadline::after(Clock::real().now(), 10ms));
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kCancelled);
    EXPECT_TRUE(sink->of(1).tokens.empty());
    EXPECT_LT(host.stats().turns, 20U);  // it slept all the while
}

TEST(MockFaults, SlowStepsTakeLonger) {
    MockHost host;
    MockOptions o = quick(1);
    o.faults = faults("slow@0s+1h:x20");
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    const TimePoint start = Clock::real().now();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 5), sink));
    sink->wait_ends(1);
    EXPECT_GE(sink->of(1).ended - start, 100ms);
}

TEST(MockFaults, ACrashEndsWhatIsThere) {
    MockHost host;
    MockOptions o = quick(1);
    o.faults = faults("crash@20ms");
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 500), sink));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kError);
    EXPECT_FALSE(engine->healthy());
    EXPECT_EQ(engine->submit(make_request(2, {1}, 5), sink).error().code, ErrorCode::kUnavailable);
}

TEST(MockFaults, ACrashWithAnEarOfItsOwnIsSilent) {
    MockHost host;
    MockOptions o = quick(1);
    o.faults = faults("crash@20ms");
    std::atomic<int> crashes{0};
    o.crash = [&] {
        ++crashes;
        crashes.notify_all();
    };
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 500), sink));
    crashes.wait(0);
    EXPECT_EQ(sink->of(1).ends, 0);
    EXPECT_FALSE(engine->healthy());
    engine->stop(Deadline::never());
    EXPECT_EQ(sink->of(1).ends, 1);
    EXPECT_EQ(crashes, 1);
}

TEST(MockFaults, DroppedEventsLeaveGaps) {
    MockHost host;
    MockOptions o = quick();
    o.faults = faults("drop-events@0s+1h:0.5");
    Listener listener;
    auto engine = make_mock_engine(host, o, listener.sink());
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, prompt_of(1, 200), 200), sink));
    sink->wait_ends(1);
    engine->stop(Deadline::never());
    EXPECT_GT(listener.gaps(), 10U);
    EXPECT_GT(listener.size(), 10U);
}

TEST(MockFaults, LostEventsLeaveNoGaps) {
    MockHost host;
    MockOptions o = quick();
    o.faults = faults("lose-events@0s+1h:0.5");
    Listener listener;
    auto engine = make_mock_engine(host, o, listener.sink());
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, prompt_of(1, 200), 200), sink));
    sink->wait_ends(1);
    engine->stop(Deadline::never());
    EXPECT_EQ(listener.gaps(), 0U);
    EXPECT_GT(listener.size(), 10U);
    EXPECT_LT(listener.size(), 90U);  // of a hundred blocks
}

TEST(MockFaults, AnotherTemplateFindsNothingOfBefore) {
    MockHost host;
    MockOptions o = quick();
    o.faults = faults("wrong-template@10s+500h");
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, prompt_of(1, 200), 1), sink));
    sink->wait_ends(1);
    ASSERT_TRUE(engine->submit(make_request(2, prompt_of(1, 200), 1), sink));
    sink->wait_ends(2);
    EXPECT_EQ(sink->of(2).last->cached_tokens, 196U);
    std::this_thread::sleep_for(150ms);  // 15 s of the engine's clock
    ASSERT_TRUE(engine->submit(make_request(3, prompt_of(1, 200), 1), sink));
    sink->wait_ends(3);
    EXPECT_EQ(sink->of(3).last->cached_tokens, 0U);
    ASSERT_TRUE(engine->submit(make_request(4, prompt_of(1, 200), 1), sink));
    sink->wait_ends(4);
    EXPECT_EQ(sink->of(4).last->cached_tokens, 196U);
}

TEST(MockFaults, WrongTokensAreWrongWhileItLasts) {
    MockHost host;
    MockOptions o = quick(10);
    o.faults = faults("wrong-tokens@100ms+100ms");
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 400), sink));
    sink->wait_ends(1);
    const auto right = alone(make_request(1, {1}, 400));
    const auto got = sink->of(1).tokens;
    ASSERT_EQ(got.size(), right.size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < got.size(); ++i) wrong += got[i] != right[i] ? 1 : 0;
    EXPECT_GT(wrong, 80U);
    EXPECT_LT(wrong, 120U);
    EXPECT_EQ(got.back(), right.back());
}

}  // namespace
}  // namespace stator::engine
