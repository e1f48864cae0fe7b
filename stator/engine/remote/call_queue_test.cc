#include <algorithm>

#include "stator/engine/remote/pool_fixture.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;

/// A worker runs one request and has one that waits; the others wait at the router.
class CallQueueTest : public PoolFixture {
  protected:
    void start_one(PoolQueueOptions queue = {},
                   EchoOptions echo = {.max_running = 1, .max_waiting = 100, .step = 2ms}) {
        add("a", echo);
        start(1, with(std::move(queue)));
    }
    static PoolEngineOptions with(PoolQueueOptions queue) {
        PoolEngineOptions options;
        options.queue = std::move(queue);
        return options;
    }
    protocol::GenerateRequest of(std::uint64_t id, std::uint32_t tokens, std::int32_t priority,
                                 std::string tenant = "") {
        auto r = request(id, tokens);
        r.priority = priority;
        r.tenant = std::move(tenant);
        return r;
    }
    /// Two that keep the worker busy.
    void occupy(std::uint32_t tokens = 200) {
        ASSERT_TRUE(engine_->submit(request(901, tokens), sink_));
        ASSERT_TRUE(engine_->submit(request(902, tokens), sink_));
        ASSERT_TRUE(sink_->wait_tokens(901, 1));
    }
    bool wait_queued(double n) {
        return TestWorker::eventually([&] { return metric("stator_router_queue_requests") == n; });
    }
    std::vector<std::uint64_t> begun_after_occupiers() {
        auto ids = sink_->begun();
        std::erase_if(ids, [](auto id) { return id > 900; });
        return ids;
    }
};

TEST_F(CallQueueTest, NobodyWaitsWhereThereIsRoom) {
    start_one({}, {.max_running = 64, .max_waiting = 64, .step = 1ms});
    for (std::uint64_t i = 1; i <= 64; ++i) ASSERT_TRUE(engine_->submit(request(i, 20), sink_));
    for (std::uint64_t i = 1; i <= 64; ++i) expect_whole(i, 20);
    EXPECT_EQ(metric("stator_router_queue_seconds_count"), 0);
}

TEST_F(CallQueueTest, ClassesGoOneAfterTheOther) {
    start_one();
    occupy();
    for (std::uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(engine_->submit(of(i, 5, -1), sink_));
    for (std::uint64_t i = 4; i <= 6; ++i) ASSERT_TRUE(engine_->submit(of(i, 5, 0), sink_));
    for (std::uint64_t i = 7; i <= 9; ++i) ASSERT_TRUE(engine_->submit(of(i, 5, 3), sink_));
    EXPECT_EQ(metric("stator_router_queue_requests", "class=\"batch\""), 3);
    EXPECT_EQ(metric("stator_router_queue_requests", "class=\"interactive\""), 3);
    for (std::uint64_t i = 1; i <= 9; ++i) expect_whole(i, 5);
    EXPECT_EQ(begun_after_occupiers(), (std::vector<std::uint64_t>{7, 8, 9, 4, 5, 6, 1, 2, 3}));
    EXPECT_EQ(metric("stator_router_queue_seconds_count"), 9);
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    EXPECT_TRUE(workers_[0]->engine_is_empty());
}

TEST_F(CallQueueTest, AFloodOfOneTenantDoesNotHoldUpAnother) {
    start_one({.weights = {{"paying", 2.0}}});
    occupy();
    std::uint64_t id = 0;
    for (int i = 0; i < 60; ++i) ASSERT_TRUE(engine_->submit(of(++id, 5, 0, "flood"), sink_));
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(engine_->submit(of(++id, 5, 0, "light"), sink_));
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(engine_->submit(of(++id, 5, 0, "paying"), sink_));
    for (std::uint64_t i = 1; i <= id; ++i) expect_whole(i, 5);
    const auto begun = begun_after_occupiers();
    ASSERT_EQ(begun.size(), 90U);
    const auto among_first = [&](std::size_t n, std::uint64_t from, std::uint64_t to) {
        return std::ranges::count_if(begun.begin(), begun.begin() + static_cast<long>(n),
                                     [&](auto i) { return i >= from && i <= to; });
    };
    // Of four turns two are the paying one's.
    EXPECT_NEAR(among_first(40, 61, 70), 10, 1);
    EXPECT_NEAR(among_first(40, 71, 90), 20, 2);
    EXPECT_NEAR(among_first(20, 1, 60), 5, 2);
}

TEST_F(CallQueueTest, DeadlinesAndCancelsEndThoseThatWaitAtOnce) {
    start_one({}, {.max_running = 1, .max_waiting = 100, .step = 1h});
    ASSERT_TRUE(engine_->submit(request(901, 10), sink_));
    ASSERT_TRUE(engine_->submit(request(902, 10), sink_));
    auto expiring = request(1, 5);
    expiring.deadline = Deadline::after(Clock::real().now(), 80ms);
    ASSERT_TRUE(engine_->submit(expiring, sink_));
    ASSERT_TRUE(engine_->submit(request(2, 5), sink_));
    ASSERT_TRUE(wait_queued(2));
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_EQ(sink_->of(1).end->finish, FinishReason::kCancelled);
    EXPECT_EQ(metric("stator_router_queue_refusals_total", "expired"), 1);
    engine_->cancel(RequestId(2));
    ASSERT_TRUE(sink_->wait_end(2));
    EXPECT_EQ(sink_->of(2).end->finish, FinishReason::kCancelled);
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    auto late = request(3, 5);
    late.deadline = Deadline::after(Clock::real().now(), -1ms);
    const auto refused = engine_->submit(late, sink_);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kDeadlineExceeded);
}

TEST_F(CallQueueTest, AFullQueueRefusesAndMoreUrgentOnesPushOut) {
    start_one({.most_requests = 3, .most_per_tenant = 2},
              {.max_running = 1, .max_waiting = 100, .step = 1h});
    ASSERT_TRUE(engine_->submit(request(901, 10), sink_));
    ASSERT_TRUE(engine_->submit(request(902, 10), sink_));
    ASSERT_TRUE(engine_->submit(of(1, 5, 0, "x"), sink_));
    ASSERT_TRUE(engine_->submit(of(2, 5, 0, "x"), sink_));
    const auto tenants_part = engine_->submit(of(3, 5, 0, "x"), sink_);
    ASSERT_FALSE(tenants_part);
    EXPECT_EQ(tenants_part.error().code, ErrorCode::kOverloaded);
    EXPECT_GT(tenants_part.error().retry_after_ms, 0U);
    ASSERT_TRUE(engine_->submit(of(4, 5, -1, "y"), sink_));
    const auto full = engine_->submit(of(5, 5, -1, "z"), sink_);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
    ASSERT_TRUE(engine_->submit(of(6, 5, 1, "z"), sink_));
    ASSERT_TRUE(sink_->wait_end(4));
    const auto end = *sink_->of(4).end;
    EXPECT_EQ(end.finish, FinishReason::kError);
    EXPECT_EQ(end.error->code, ErrorCode::kOverloaded);
    EXPECT_GT(end.error->retry_after_ms, 0U);
    EXPECT_EQ(metric("stator_router_queue_refusals_total", "full"), 2);
    EXPECT_EQ(metric("stator_router_queue_refusals_total", "displaced"), 1);
    EXPECT_EQ(metric("stator_router_queue_requests"), 3);
}

TEST_F(CallQueueTest, NewBoundsHoldForThoseThatComeNext) {
    start_one({.most_requests = 10}, {.max_running = 1, .max_waiting = 100, .step = 1h});
    ASSERT_TRUE(engine_->submit(request(901, 10), sink_));
    ASSERT_TRUE(engine_->submit(request(902, 10), sink_));
    for (std::uint64_t i = 1; i <= 6; ++i) ASSERT_TRUE(engine_->submit(request(i, 5), sink_));
    engine_->set_queue({.most_requests = 4});
    EXPECT_EQ(metric("stator_router_queue_requests"), 6) << "they stay";
    const auto full = engine_->submit(request(7, 5), sink_);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
    engine_->set_queue({.most_requests = 20, .most_per_tenant = 6});
    EXPECT_FALSE(engine_->submit(request(8, 5), sink_)) << "the tenant's part";
    engine_->set_queue({.most_requests = 20});
    EXPECT_TRUE(engine_->submit(request(9, 5), sink_));
    EXPECT_EQ(metric("stator_router_queue_requests"), 7);
}

TEST_F(CallQueueTest, NewWeightsShareOutThoseThatWaitAlready) {
    start_one({.weights = {{"b", 100.0}}});
    occupy();
    std::uint64_t id = 0;
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(engine_->submit(of(++id, 5, 0, "a"), sink_));
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(engine_->submit(of(++id, 5, 0, "b"), sink_));
    engine_->set_queue({.weights = {{"a", 3.0}}});
    for (std::uint64_t i = 1; i <= id; ++i) expect_whole(i, 5);
    const auto begun = begun_after_occupiers();
    ASSERT_EQ(begun.size(), 40U);
    const auto of_a =
        std::ranges::count_if(begun.begin(), begun.begin() + 20, [](auto i) { return i <= 20; });
    EXPECT_NEAR(of_a, 15, 2);
}

TEST_F(CallQueueTest, ALongerHoldLetsThoseGoThatWait) {
    start_one({.hold = {.queue_s = 0.2}}, {.max_running = 64, .max_waiting = 64, .step = 1h});
    auto heavy = request(1, 3);
    heavy.prompt.assign(50'000, 7);
    ASSERT_TRUE(engine_->submit(heavy, sink_));
    ASSERT_TRUE(engine_->submit(request(2, 3), sink_));
    EXPECT_EQ(metric("stator_router_queue_requests"), 1);
    engine_->set_queue({.hold = {.queue_s = 1000}});
    EXPECT_TRUE(wait_queued(0));
}

/// Where none may wait any more, those that do are served.
TEST_F(CallQueueTest, AQueueThatIsSwitchedOffEmpties) {
    start_one();
    occupy(20);
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(engine_->submit(request(i, 3), sink_));
    engine_->set_queue({.most_requests = 0});
    for (std::uint64_t i = 1; i <= 20; ++i) expect_whole(i, 3);
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    // To the worker's own queue.
    for (std::uint64_t i = 21; i <= 40; ++i) ASSERT_TRUE(engine_->submit(request(i, 3), sink_));
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    for (std::uint64_t i = 21; i <= 40; ++i) expect_whole(i, 3);
}

TEST_F(CallQueueTest, OptionsChangeWhileRequestsComeAndGo) {
    start_one({}, {.max_running = 4, .max_waiting = 64, .step = 500us});
    std::atomic<bool> done{false};
    std::thread changing([&] {
        for (std::size_t i = 0; !done.load(); ++i) {
            engine_->set_queue({.most_requests = i % 3 == 0 ? 0 : 20 + i % 100,
                                .hold = {.queue_s = i % 2 == 0 ? 0.0 : 1.0},
                                .promote_after_s = static_cast<double>(i % 5) * 0.01,
                                .weights = {{"t" + std::to_string(i % 4), 2.0}}});
            std::this_thread::sleep_for(200us);
        }
    });
    std::vector<std::uint64_t> accepted;
    for (std::uint64_t i = 1; i <= 400; ++i) {
        if (engine_->submit(
                of(i, 5, static_cast<std::int32_t>(i % 3) - 1, "t" + std::to_string(i % 4)),
                sink_)) {
            accepted.push_back(i);
        }
        if (i % 8 == 0) std::this_thread::sleep_for(2ms);
    }
    for (const std::uint64_t i : accepted) {
        ASSERT_TRUE(sink_->wait_end(i)) << i;
        EXPECT_EQ(sink_->of(i).ends, 1) << i;
    }
    done = true;
    changing.join();
    EXPECT_GT(accepted.size(), 50U);
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    EXPECT_TRUE(workers_[0]->engine_is_empty());
}

TEST_F(CallQueueTest, WhoWaitsGoesToAWorkerThatCameLater) {
    start_one({}, {.max_running = 1, .max_waiting = 100, .step = 1h});
    ASSERT_TRUE(engine_->submit(request(901, 10), sink_));
    ASSERT_TRUE(engine_->submit(request(902, 10), sink_));
    for (std::uint64_t i = 1; i <= 8; ++i) ASSERT_TRUE(engine_->submit(request(i, 5), sink_));
    EXPECT_EQ(metric("stator_router_queue_requests"), 8);
    // Its address was not known before: another worker takes a's place there.
    workers_[0]->kill();
    workers_.push_back(std::make_unique<TestWorker>(
        "b", path("a"), EchoOptions{.max_running = 2, .max_waiting = 100, .step = 1ms}));
    for (std::uint64_t i = 1; i <= 8; ++i) expect_whole(i, 5);
    expect_whole(901, 10);
    expect_whole(902, 10);
}

TEST_F(CallQueueTest, MuchPrefillBeforeItIsWaitedForHere) {
    start_one({.hold = {.queue_s = 0.2}}, {.max_running = 64, .max_waiting = 64, .step = 300ms});
    auto heavy = request(1, 3);
    heavy.prompt.assign(50'000, 7);
    ASSERT_TRUE(engine_->submit(heavy, sink_));
    ASSERT_TRUE(engine_->submit(request(2, 3), sink_));
    EXPECT_EQ(metric("stator_router_queue_requests"), 1);
    // With its first token the rank is free.
    expect_whole(2, 3);
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_EQ(metric("stator_router_queue_seconds_count"), 1);
}

TEST_F(CallQueueTest, StopEndsThoseThatWait) {
    start_one({}, {.max_running = 1, .max_waiting = 100, .step = 1ms});
    for (std::uint64_t i = 1; i <= 200; ++i) {
        ASSERT_TRUE(engine_->submit(request(i, 50'000), sink_));
    }
    EXPECT_EQ(metric("stator_router_queue_requests"), 198);
    engine_->stop(Deadline::after(Clock::real().now(), 50ms));
    for (std::uint64_t i = 1; i <= 200; ++i) {
        EXPECT_EQ(sink_->of(i).ends, 1) << i;
        EXPECT_EQ(sink_->of(i).after_end, 0) << i;
    }
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    EXPECT_TRUE(workers_[0]->engine_is_empty());
}

TEST_F(CallQueueTest, WithinAGraceTheQueueIsServed) {
    start_one();
    occupy(20);
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(engine_->submit(request(i, 3), sink_));
    engine_->stop(Deadline::after(Clock::real().now(), 10s));
    for (std::uint64_t i = 1; i <= 20; ++i) expect_whole(i, 3);
}

/// From several threads at once: cancels, deadlines, a worker that dies, a queue that overflows.
TEST_F(CallQueueTest, NothingIsLostOrDoneTwice) {
    add("a", {.max_running = 4, .max_waiting = 64, .step = 500us});
    add("b", {.max_running = 4, .max_waiting = 64, .step = 500us});
    PoolEngineOptions options = with({.most_requests = 60, .most_per_tenant = 40});
    options.max_migrations = 50;
    options.wait_for_worker = 20s;
    start(2, std::move(options));
    constexpr std::uint64_t kEach = 150;
    constexpr std::uint64_t kThreads = 3;
    std::vector<std::vector<std::uint64_t>> accepted(kThreads);
    std::vector<std::thread> submitters;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
        submitters.emplace_back([&, t] {
            for (std::uint64_t i = 1; i <= kEach; ++i) {
                const std::uint64_t id = t * 1000 + i;
                auto r = of(id, 20, static_cast<std::int32_t>(i % 3) - 1,
                            "tenant-" + std::to_string(i % 7));
                if (i % 11 == 0) r.deadline = Deadline::after(Clock::real().now(), 15ms);
                if (engine_->submit(r, sink_)) accepted[t].push_back(id);
                if (i % 5 == 0) engine_->cancel(RequestId(id));
                if (i % 4 == 0) std::this_thread::sleep_for(3ms);
            }
        });
    }
    std::this_thread::sleep_for(60ms);
    workers_[0]->kill();
    workers_[0] = std::make_unique<TestWorker>(
        "a", path("a"), EchoOptions{.max_running = 4, .max_waiting = 64, .step = 500us});
    for (auto& s : submitters) s.join();
    std::size_t whole = 0;
    for (const auto& ids : accepted) {
        for (const std::uint64_t id : ids) {
            ASSERT_TRUE(sink_->wait_end(id)) << id;
            const auto seen = sink_->of(id);
            EXPECT_EQ(seen.ends, 1) << id;
            EXPECT_EQ(seen.after_end, 0) << id;
            EXPECT_EQ(seen.tokens, expected(id, static_cast<std::uint32_t>(seen.tokens.size())));
            if (seen.end->finish == FinishReason::kLength) ++whole;
        }
    }
    EXPECT_GT(whole, 50U);
    EXPECT_EQ(metric("stator_router_queue_requests"), 0);
    EXPECT_TRUE(workers_[0]->engine_is_empty());
    EXPECT_TRUE(workers_[1]->engine_is_empty());
    // No booking is left behind.
    ASSERT_TRUE(engine_->submit(request(5001, 5), sink_));
    expect_whole(5001, 5);
}

}  // namespace
}  // namespace stator::engine
