#include "stator/engine/remote/pool_engine.h"

#include "stator/engine/remote/pool_fixture.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;

using PoolEngineTest = PoolFixture;

TEST_F(PoolEngineTest, RequestsAreSpreadAndComeBackWhole) {
    add("a", {.max_running = 100});
    add("b", {.max_running = 100});
    routing::PoolRouterOptions routing;
    routing.policy.policy = router::Policy::kLeastLoaded;
    PoolEngineOptions options;
    options.router = std::make_shared<routing::PoolRouter>(routing, echo_card(), nullptr, registry_,
                                                           Clock::real());
    start(2, std::move(options));
    for (std::uint64_t i = 1; i <= 100; ++i) ASSERT_TRUE(engine_->submit(request(i, 40), sink_));
    for (std::uint64_t i = 1; i <= 100; ++i) expect_whole(i, 40);
    EXPECT_GT(workers_[0]->engine().forward_pass_metrics().decode_tokens, 1000U);
    EXPECT_GT(workers_[1]->engine().forward_pass_metrics().decode_tokens, 1000U);
}

TEST_F(PoolEngineTest, StreamsOfAWorkerThatDiesGoOnExactly) {
    add("a");
    add("b");
    start(2);
    for (std::uint64_t i = 1; i <= 40; ++i) ASSERT_TRUE(engine_->submit(request(i, 300), sink_));
    for (std::uint64_t i = 1; i <= 40; ++i) ASSERT_TRUE(sink_->wait_tokens(i, 10));
    workers_[0]->kill();
    for (std::uint64_t i = 1; i <= 40; ++i) expect_whole(i, 300);
    EXPECT_GE(metric("stator_pool_migrations_total"), 10);
    EXPECT_GE(metric("stator_fleet_transitions_total", "to=\"gone\""), 1);
}

TEST_F(PoolEngineTest, AWorkerRestartedOnItsAddressIsANewOneAtOnce) {
    add("a");
    start(1);
    const auto before = fleet_->view()->pools.at(0).ready.at(0);
    ASSERT_TRUE(engine_->submit(request(1, 500), sink_));
    ASSERT_TRUE(sink_->wait_tokens(1, 10));
    workers_[0]->kill();
    workers_[0] = std::make_unique<TestWorker>("a", path("a"), EchoOptions{.step = 1ms});
    expect_whole(1, 500);
    const auto after = fleet_->view()->pools.at(0).ready.at(0);
    EXPECT_NE(after->id(), before->id());
    EXPECT_NE(after->info()->incarnation, before->info()->incarnation);
    EXPECT_EQ(before->state(), fleet::MemberState::kGone);
}

TEST_F(PoolEngineTest, AFullWorkersRefusalGoesElsewhereAndAllFullIsOverloaded) {
    add("a", {.max_running = 1, .max_waiting = 1, .step = 1h});
    add("b", {.max_running = 1, .max_waiting = 1, .step = 1h});
    PoolEngineOptions options;
    options.queue.most_requests = 0;
    start(2, std::move(options));
    // Another client fills one of them; this one learns of it by a refusal or a report.
    ASSERT_TRUE(workers_[0]->engine().submit(request(901, 5), sink_));
    ASSERT_TRUE(workers_[0]->engine().submit(request(902, 5), sink_));
    ASSERT_TRUE(engine_->submit(request(1, 5), sink_));
    ASSERT_TRUE(engine_->submit(request(2, 5), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] {
        const auto load = workers_[1]->engine().load();
        return load.running + load.waiting == 2;
    }));
    auto refused = engine_->submit(request(3, 5), sink_);
    if (refused) {
        ASSERT_TRUE(sink_->wait_end(3));
        EXPECT_EQ(sink_->of(3).end->error->code, ErrorCode::kOverloaded);
    } else {
        EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
        EXPECT_GT(refused.error().retry_after_ms, 0U);
    }
}

TEST_F(PoolEngineTest, ADrainingWorkerFinishesAndNewRequestsGoElsewhere) {
    add("a", {.max_running = 64, .step = 1ms});
    add("b", {.max_running = 64, .step = 1ms});
    start(2);
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(engine_->submit(request(i, 200), sink_));
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(sink_->wait_tokens(i, 1));
    std::thread drain([&] { workers_[0]->drain(10s); });
    for (std::uint64_t i = 21; i <= 60; ++i) {
        ASSERT_TRUE(engine_->submit(request(i, 20), sink_));
    }
    for (std::uint64_t i = 1; i <= 20; ++i) expect_whole(i, 200);
    for (std::uint64_t i = 21; i <= 60; ++i) expect_whole(i, 20);
    drain.join();
    EXPECT_EQ(metric("stator_pool_migrations_total"), 0);
}

TEST_F(PoolEngineTest, WhereNoWorkerIsReadyARequestWaitsAndThenFails) {
    add("a");
    start(1, {.pool = {}, .card = {}, .wait_for_worker = 200ms, .max_waiting = 2});
    workers_[0]->kill();
    ASSERT_TRUE(wait_ready(0));
    ASSERT_TRUE(engine_->submit(request(1, 5), sink_));
    ASSERT_TRUE(engine_->submit(request(2, 5), sink_));
    ASSERT_TRUE(
        TestWorker::eventually([&] { return metric("stator_pool_waiting_requests") == 2; }));
    const auto third = engine_->submit(request(3, 5), sink_);
    ASSERT_FALSE(third);
    EXPECT_EQ(third.error().code, ErrorCode::kUnavailable);
    for (const std::uint64_t id : {1, 2}) {
        ASSERT_TRUE(sink_->wait_end(id));
        const auto end = *sink_->of(id).end;
        EXPECT_EQ(end.finish, FinishReason::kError);
        EXPECT_EQ(end.error->code, ErrorCode::kUnavailable);
        EXPECT_TRUE(end.error->retryable);
        EXPECT_GT(end.error->retry_after_ms, 0U);
        EXPECT_NE(end.error->message.find("tiny"), std::string::npos);
    }
    EXPECT_EQ(metric("stator_pool_waiting_requests"), 0);
}

TEST_F(PoolEngineTest, CancelAndDeadlineHoldWhileWaitingAndWhileRunning) {
    add("a", {.step = 5ms});
    start(1, {.pool = {}, .card = {}, .wait_for_worker = 10s});
    ASSERT_TRUE(engine_->submit(request(1, 50'000), sink_));
    ASSERT_TRUE(sink_->wait_tokens(1, 2));
    engine_->cancel(RequestId(1));
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_EQ(sink_->of(1).end->finish, FinishReason::kCancelled);
    EXPECT_TRUE(workers_[0]->engine_is_empty());
    auto expiring = request(2, 50'000);
    expiring.deadline = Deadline::after(Clock::real().now(), 60ms);
    ASSERT_TRUE(engine_->submit(expiring, sink_));
    ASSERT_TRUE(sink_->wait_end(2));
    EXPECT_EQ(sink_->of(2).end->finish, FinishReason::kCancelled);

    workers_[0]->kill();
    ASSERT_TRUE(wait_ready(0));
    ASSERT_TRUE(engine_->submit(request(3, 5), sink_));
    engine_->cancel(RequestId(3));
    ASSERT_TRUE(sink_->wait_end(3));
    EXPECT_EQ(sink_->of(3).end->finish, FinishReason::kCancelled);
    auto late = request(4, 5);
    late.deadline = Deadline::after(Clock::real().now(), 60ms);
    ASSERT_TRUE(engine_->submit(late, sink_));
    ASSERT_TRUE(sink_->wait_end(4));
    EXPECT_EQ(sink_->of(4).end->finish, FinishReason::kCancelled);
}

TEST_F(PoolEngineTest, AFrozenWorkerLosesItsStreams) {
    options_.link.ping_every = 50ms;
    options_.link.silent_after = 150ms;
    options_.link.lost_after = 500ms;
    add("a");
    add("b");
    start(2);
    for (std::uint64_t i = 1; i <= 10; ++i) ASSERT_TRUE(engine_->submit(request(i, 1500), sink_));
    for (std::uint64_t i = 1; i <= 10; ++i) ASSERT_TRUE(sink_->wait_tokens(i, 5));
    workers_[0]->freeze();
    for (std::uint64_t i = 1; i <= 10; ++i) expect_whole(i, 1500);
    EXPECT_GE(metric("stator_fleet_transitions_total", "to=\"suspect\""), 1);
    EXPECT_GE(metric("stator_pool_migrations_total"), 1);
    workers_[0]->thaw();
    EXPECT_TRUE(wait_ready(2));
    EXPECT_TRUE(workers_[0]->engine_is_empty());
}

TEST_F(PoolEngineTest, AHungEngineLosesItsStreamsToACanary) {
    options_.canary_after = 100ms;
    options_.canary_within = 200ms;
    add("hung", {.step = 1h});
    start(1, {.pool = {}, .card = {}, .wait_for_worker = 20s});
    ASSERT_TRUE(engine_->submit(request(1, 50), sink_));
    ASSERT_TRUE(
        TestWorker::eventually([&] { return metric("stator_fleet_canaries_lost_total") >= 1; }));
    EXPECT_FALSE(sink_->of(1).end);
    ASSERT_TRUE(wait_ready(0));
    EXPECT_EQ(fleet_->view()->workers.at(0).state, fleet::MemberState::kSuspect);
    // The worker's machine is replaced; the request, still waiting, goes on there.
    workers_[0]->kill();
    workers_[0] = std::make_unique<TestWorker>("hung", path("hung"), EchoOptions{.step = 1ms});
    expect_whole(1, 50);
}

TEST_F(PoolEngineTest, TwoAddressesOfOneWorkerCountOnce) {
    add("a");
    std::filesystem::create_symlink(path("a"), path("alias"));
    know("alias");
    start(1);
    ASSERT_TRUE(TestWorker::eventually([&] {
        for (const auto& w : fleet_->view()->workers) {
            if (w.reason.find("linked already") != std::string::npos) return true;
        }
        return false;
    }));
    EXPECT_EQ(fleet_->view()->pools.at(0).workers, 1U);
    ASSERT_TRUE(engine_->submit(request(1, 20), sink_));
    expect_whole(1, 20);
}

TEST_F(PoolEngineTest, PoolsOfOneNameAreNeverMixed) {
    add("old");
    add("new", {.step = 1ms}, echo_card('f'));
    start(1);
    ASSERT_TRUE(TestWorker::eventually([&] { return fleet_->view()->pools.size() == 2; }));
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(engine_->submit(request(i, 10), sink_));
    for (std::uint64_t i = 1; i <= 20; ++i) expect_whole(i, 10);
    EXPECT_EQ(workers_[1]->engine().forward_pass_metrics().decode_tokens, 0U);
    const auto view = fleet_->view();
    EXPECT_LT(view->pools[0].opened, view->pools[1].opened);
}

TEST_F(PoolEngineTest, StopEndsEverythingOnce) {
    add("a", {.max_running = 8, .max_waiting = 1000, .step = 1ms});
    start(1);
    for (std::uint64_t i = 1; i <= 200; ++i) {
        ASSERT_TRUE(engine_->submit(request(i, 50'000), sink_));
    }
    ASSERT_TRUE(sink_->wait_tokens(1, 1));
    engine_->stop(Deadline::after(Clock::real().now(), 50ms));
    for (std::uint64_t i = 1; i <= 200; ++i) {
        const auto seen = sink_->of(i);
        EXPECT_EQ(seen.ends, 1) << i;
        EXPECT_EQ(seen.after_end, 0) << i;
    }
    const auto late = engine_->submit(request(999, 5), sink_);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(workers_[0]->engine_is_empty());
}

TEST_F(PoolEngineTest, WhatCanBeSeenAtOnceIsRefusedAtOnce) {
    add("a");
    start(1);
    const auto refused = engine_->submit(request(1, 100'000), sink_);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(PoolEngineTest, RandomCancelsLossesAndRestartsLeaveNothingBehind) {
    add("a", {.max_running = 32, .step = 500us});
    add("b", {.max_running = 32, .step = 500us});
    start(2, {.pool = {}, .card = {}, .max_migrations = 50, .wait_for_worker = 20s});
    constexpr std::uint64_t kRequests = 300;
    std::thread submitter([&] {
        for (std::uint64_t i = 1; i <= kRequests; ++i) {
            while (!engine_->submit(request(i, 100), sink_)) std::this_thread::sleep_for(2ms);
            if (i % 5 == 0) engine_->cancel(RequestId(i));
            std::this_thread::sleep_for(1ms);
        }
    });
    for (int round = 0; round < 6; ++round) {
        std::this_thread::sleep_for(60ms);
        const std::size_t victim = round % 2;
        const std::string name = victim == 0 ? "a" : "b";
        workers_[victim]->kill();
        workers_[victim] = std::make_unique<TestWorker>(
            name, path(name), EchoOptions{.max_running = 32, .step = 500us});
    }
    submitter.join();
    for (std::uint64_t i = 1; i <= kRequests; ++i) {
        if (i % 5 != 0) {
            expect_whole(i, 100);
            continue;
        }
        ASSERT_TRUE(sink_->wait_end(i)) << i;
        const auto seen = sink_->of(i);
        EXPECT_EQ(seen.ends, 1);
        EXPECT_EQ(seen.after_end, 0);
        EXPECT_EQ(seen.tokens, expected(i, static_cast<std::uint32_t>(seen.tokens.size())));
    }
    EXPECT_GE(metric("stator_pool_migrations_total"), 1);
}

}  // namespace
}  // namespace stator::engine
