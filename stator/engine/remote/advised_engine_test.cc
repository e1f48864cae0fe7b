#include "stator/engine/remote/advised_engine.h"

#include <deque>
#include <thread>

#include "stator/engine/remote/pool_fixture.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;
using routing::Advice;

/// A shared router that answers when the test says so.
class ToldRouter final : public routing::RouterClient {
  public:
    struct Said {
        std::vector<std::string> first_tokens;
        std::vector<std::string> released;
    };
    void reserve(const std::string& pool, const protocol::GenerateRequest& request,
                 Done done) override {
        EXPECT_EQ(pool, protocol::pool_id(echo_card()));
        EXPECT_EQ(request.prompt.size(), 5U);
        const std::scoped_lock lock(mutex_);
        asked_.push_back(std::move(done));
        changed_.notify_all();
    }
    void first_token(const std::string& booking, std::optional<std::uint32_t> /*cached*/) override {
        const std::scoped_lock lock(mutex_);
        said_.first_tokens.push_back(booking);
    }
    void release(const std::string& booking) override {
        const std::scoped_lock lock(mutex_);
        said_.released.push_back(booking);
        changed_.notify_all();
    }
    /// To who asked first, on a thread of its own.
    void answer(Result<Advice> advice) {
        Done done;
        {
            std::unique_lock lock(mutex_);
            ASSERT_TRUE(changed_.wait_for(lock, 10s, [&] { return !asked_.empty(); }));
            done = std::move(asked_.front());
            asked_.pop_front();
        }
        std::thread([&] { done(std::move(advice)); }).join();
    }
    bool wait_released(std::size_t n) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 10s, [&] { return said_.released.size() >= n; });
    }
    Said said() {
        const std::scoped_lock lock(mutex_);
        return said_;
    }
    std::size_t asked() {
        const std::scoped_lock lock(mutex_);
        return asked_.size();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Done> asked_;
    Said said_;
};

class AdvisedEngineTest : public PoolFixture {
  protected:
    ~AdvisedEngineTest() override { advised_.reset(); }
    void start_advised(std::size_t ready) {
        start(ready);
        advised_ = make_advised_engine(protocol::pool_id(echo_card()), std::move(engine_), router_,
                                       loops_);
    }
    std::uint64_t decoded(std::size_t worker) {
        return workers_[worker]->engine().forward_pass_metrics().decode_tokens;
    }

    std::shared_ptr<ToldRouter> router_ = std::make_shared<ToldRouter>();
    std::unique_ptr<Engine> advised_;
};

TEST_F(AdvisedEngineTest, RequestsGoWhereTheRouterSaysAndAreReleased) {
    add("a", {.max_running = 100});
    add("b", {.max_running = 100});
    start_advised(2);
    for (std::uint64_t i = 1; i <= 20; ++i) {
        ASSERT_TRUE(advised_->submit(request(i, 10), sink_));
        router_->answer(Advice{"b", 0, "booking-" + std::to_string(i)});
    }
    for (std::uint64_t i = 1; i <= 20; ++i) expect_whole(i, 10);
    EXPECT_EQ(decoded(0), 0U);
    EXPECT_GT(decoded(1), 100U);
    ASSERT_TRUE(router_->wait_released(20));
    EXPECT_EQ(router_->said().first_tokens.size(), 20U);
}

TEST_F(AdvisedEngineTest, WithoutAnAnswerThePoolChooses) {
    add("a");
    start_advised(1);
    ASSERT_TRUE(advised_->submit(request(1, 5), sink_));
    router_->answer(error(ErrorCode::kDeadlineExceeded, "no answer"));
    expect_whole(1, 5);
    EXPECT_TRUE(router_->said().released.empty());
    // Advice for a worker that nobody knows here is worth no more; but its booking ends.
    ASSERT_TRUE(advised_->submit(request(2, 5), sink_));
    router_->answer(Advice{"elsewhere", 0, "gone"});
    expect_whole(2, 5);
    ASSERT_TRUE(router_->wait_released(1));
}

TEST_F(AdvisedEngineTest, AFullWorkersAdviceGoesElsewhere) {
    add("a", {.max_running = 1, .max_waiting = 1, .step = 1h});
    add("b", {.max_running = 4});
    start_advised(2);
    ASSERT_TRUE(workers_[0]->engine().submit(request(901, 5), sink_));
    ASSERT_TRUE(workers_[0]->engine().submit(request(902, 5), sink_));
    ASSERT_TRUE(advised_->submit(request(1, 5), sink_));
    router_->answer(Advice{"a", 0, "x"});
    expect_whole(1, 5);
    ASSERT_TRUE(router_->wait_released(1));
}

TEST_F(AdvisedEngineTest, CancelledWhileItIsAskedForItEndsAtOnce) {
    add("a");
    start_advised(1);
    ASSERT_TRUE(advised_->submit(request(1, 5), sink_));
    advised_->cancel(RequestId(1));
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_EQ(sink_->of(1).end->finish, FinishReason::kCancelled);
    router_->answer(Advice{"a", 0, "late"});
    ASSERT_TRUE(router_->wait_released(1));
    EXPECT_EQ(sink_->of(1).ends, 1);
    // And one that runs is the engine's to end.
    ASSERT_TRUE(advised_->submit(request(2, 50'000), sink_));
    router_->answer(Advice{"a", 0, "second"});
    ASSERT_TRUE(sink_->wait_tokens(2, 1));
    advised_->cancel(RequestId(2));
    ASSERT_TRUE(sink_->wait_end(2));
    ASSERT_TRUE(router_->wait_released(2));
}

TEST_F(AdvisedEngineTest, HandoffsOfARequestThatDoesNotReachTheRanksAreReleased) {
    add("a");
    start_advised(1);
    const auto with_media = [this](std::uint64_t id) {
        auto r = request(id, 5);
        r.media.emplace_back().embeddings = std::make_shared<protocol::Handoff>();
        return r;
    };
    const auto released = [this] { return metric("stator_pool_handoffs_released_total"); };
    ASSERT_TRUE(advised_->submit(with_media(1), sink_));
    advised_->cancel(RequestId(1));
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_EQ(released(), 1);
    router_->answer(Advice{"a", 0, "late"});
    advised_->stop(Deadline::at({}));
    EXPECT_FALSE(advised_->submit(with_media(2), sink_));
    EXPECT_EQ(released(), 2);
}

TEST_F(AdvisedEngineTest, WhatNamesItsWorkerIsNotAskedFor) {
    add("a");
    start_advised(1);
    auto r = request(1, 5);
    r.hints = std::make_shared<protocol::RouteHints>();
    r.hints->worker = "a";
    ASSERT_TRUE(advised_->submit(std::move(r), sink_));
    expect_whole(1, 5);
    EXPECT_EQ(router_->asked(), 0U);
}

TEST_F(AdvisedEngineTest, StopEndsWhatIsAskedFor) {
    add("a");
    start_advised(1);
    ASSERT_TRUE(advised_->submit(request(1, 5), sink_));
    advised_->stop(Deadline::after(Clock::real().now(), 50ms));
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_FALSE(advised_->submit(request(2, 5), sink_));
    router_->answer(Advice{"a", 0, "late"});
    ASSERT_TRUE(router_->wait_released(1));
}

TEST_F(AdvisedEngineTest, CancelsAndAnswersFromManyThreads) {
    add("a", {.max_running = 100});
    start_advised(1);
    constexpr std::uint64_t kRequests = 200;
    std::thread submits([&] {
        for (std::uint64_t i = 1; i <= kRequests; ++i) {
            EXPECT_TRUE(advised_->submit(request(i, 3), sink_));
        }
    });
    std::thread answers([&] {
        for (std::uint64_t i = 1; i <= kRequests; ++i) router_->answer(Advice{"a", 0, "x"});
    });
    std::thread cancels([&] {
        for (std::uint64_t i = 1; i <= kRequests; i += 3) advised_->cancel(RequestId(i));
    });
    for (auto* t : {&submits, &answers, &cancels}) t->join();
    for (std::uint64_t i = 1; i <= kRequests; ++i) {
        ASSERT_TRUE(sink_->wait_end(i)) << i;
        EXPECT_EQ(sink_->of(i).ends, 1);
    }
    ASSERT_TRUE(router_->wait_released(kRequests));
    EXPECT_EQ(router_->said().released.size(), kRequests);
}

}  // namespace
}  // namespace stator::engine
