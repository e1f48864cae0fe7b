#include "stator/worker/worker_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "stator/engine/echo/echo_engine.h"
#include "stator/worker/links_fixture.h"

namespace stator::worker {
namespace {

using namespace std::chrono_literals;
using protocol::FinishReason;
using requests::StreamId;

class WorkerLinkTest : public LinksFixture {
  protected:
    void stop_engine() override {
        if (engine) engine->stop(Deadline::at({}));
    }
    void make(engine::EchoOptions options, bool loading = false) {
        engine = engine::make_echo_engine(options);
        auto state = state_of(loading ? nullptr : engine.get());
        auto artifacts = std::make_shared<ArtifactStore>();
        artifact = artifacts->add("chat-template", "hello").sha256;
        state.artifacts = artifacts;
        make_station(std::move(state));
    }
    using LinksFixture::open;
    StreamId open(MemoryLink& link, std::vector<protocol::TokenId> prompt, std::uint32_t max_tokens,
                  const std::function<void(protocol::GenerateRequest&)>& change = {},
                  std::uint32_t rank = 0) {
        auto request = std::make_shared<protocol::GenerateRequest>();
        request->prompt = std::move(prompt);
        request->max_tokens = max_tokens;
        if (change) change(*request);
        return open(link, request, rank);
    }

    std::unique_ptr<engine::Engine> engine;
    std::string artifact;
};

TEST_F(WorkerLinkTest, TokensOfManyStreamsComeWholeAndInOrder) {
    make({.max_running = 64, .max_waiting = 1000});
    const auto a = connect();
    const auto b = connect();
    std::vector<std::pair<MemoryLink*, StreamId>> streams;
    for (std::uint32_t i = 0; i < 100; ++i) {
        auto* link = i % 2 == 0 ? a.get() : b.get();
        streams.emplace_back(link, open(*link, {i, i + 1, i + 2}, 1 + i));
    }
    for (std::uint32_t i = 0; i < 100; ++i) {
        const auto [link, id] = streams[i];
        ASSERT_TRUE(link->wait_end(id));
        const auto stream = link->stream(id);
        EXPECT_EQ(stream.ends, 1);
        EXPECT_EQ(stream.end->finish, FinishReason::kLength);
        ASSERT_EQ(stream.tokens.size(), 1 + i);
        for (std::uint32_t k = 0; k <= i; ++k) EXPECT_EQ(stream.tokens[k], i + k % 3);
    }
}

TEST_F(WorkerLinkTest, AStepOfManyStreamsIsOneWrite) {
    make({.max_running = 64, .step = 2ms});
    const auto link = connect();
    std::vector<StreamId> ids;
    for (std::uint32_t i = 0; i < 32; ++i) ids.push_back(open(*link, {i}, 50));
    for (const StreamId id : ids) ASSERT_TRUE(link->wait_end(id));
    const auto steps = engine->forward_pass_metrics().steps;
    std::uint64_t sends = 0;
    on_loop([&] { sends = link->sends(); });
    EXPECT_LE(sends, steps + 40) << "of 1,600 tokens";
}

TEST_F(WorkerLinkTest, ARefusalComesBehindTheLoad) {
    make({.max_running = 1, .max_waiting = 1, .step = 1h});
    const auto link = connect();
    open(*link, {1}, 5);
    open(*link, {1}, 5);
    const auto refused = open(*link, {1}, 5);
    ASSERT_TRUE(link->wait_end(refused));
    const auto seen = link->seen();
    const auto& end = seen.streams.at(refused.value).end;
    ASSERT_TRUE(end->error);
    EXPECT_EQ(end->error->code, ErrorCode::kOverloaded);
    EXPECT_TRUE(end->error->retryable);
    EXPECT_GT(end->error->retry_after_ms, 0U);
    ASSERT_GE(seen.order.size(), 2U);
    EXPECT_EQ(seen.order[seen.order.size() - 2], 'L');
    EXPECT_EQ(seen.loads.back().load.running + seen.loads.back().load.waiting, 2U);
    EXPECT_EQ(seen.loads.back().booking, 3U);
}

TEST_F(WorkerLinkTest, RefusesWhatCannotBe) {
    make({.step = 1h});
    const auto link = connect();
    const auto no_rank = open(*link, {1}, 5, {}, 1);
    const auto hot = open(*link, {1}, 5, [](auto& r) { r.sampling.temperature = 9.0F; });
    const auto too_long = open(*link, {1}, 200'000);
    for (const StreamId id : {no_rank, hot, too_long}) {
        ASSERT_TRUE(link->wait_end(id));
        EXPECT_EQ(link->stream(id).end->error->code, ErrorCode::kInvalidArgument);
        EXPECT_FALSE(link->stream(id).end->error->retryable);
    }
    station->open.close();
    const auto draining = open(*link, {1}, 5);
    ASSERT_TRUE(link->wait_end(draining));
    EXPECT_EQ(link->stream(draining).end->error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(link->stream(draining).end->error->retryable);
    EXPECT_EQ(engine->load().running + engine->load().waiting, 0U);
}

TEST_F(WorkerLinkTest, LoadingRefusesRetryably) {
    make({}, true);
    const auto link = connect();
    const auto id = open(*link, {1}, 5);
    ASSERT_TRUE(link->wait_end(id));
    EXPECT_EQ(link->stream(id).end->error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(link->stream(id).end->error->retryable);
}

TEST_F(WorkerLinkTest, ACancelReachesTheEngine) {
    make({.step = 1ms});
    const auto link = connect();
    const auto id = open(*link, {1}, 100'000);
    ASSERT_TRUE(link->wait_tokens(id, 3));
    on_loop([&] {
        link->client().cancel(id, Clock::real().now());
        link->pump();
    });
    EXPECT_TRUE(wait_nothing_open());
    EXPECT_EQ(engine->load().running, 0U);
    EXPECT_EQ(link->stream(id).ends, 0);
}

TEST_F(WorkerLinkTest, ALostLinkTakesItsRequestsWithIt) {
    make({.max_running = 16, .max_waiting = 2000, .step = 1ms});
    const auto lost = connect();
    const auto other = connect();
    for (int i = 0; i < 1000; ++i) open(*lost, {1}, 100'000);
    const auto stays = open(*other, {5}, 4);
    on_loop([&] { lost->cut(); });
    ASSERT_TRUE(other->wait_end(stays));
    EXPECT_EQ(other->stream(stays).tokens.size(), 4U);
    EXPECT_TRUE(wait_nothing_open());
    engine->stop(Deadline::at(Clock::real().now() + 10s));
    EXPECT_EQ(engine->load().running + engine->load().waiting, 0U);
    EXPECT_EQ(station->links().size(), 1U);
}

TEST_F(WorkerLinkTest, ADeadlineTravels) {
    make({.step = 1h});
    const auto link = connect();
    const auto id = open(*link, {1}, 5,
                         [](auto& r) { r.deadline = Deadline::after(Clock::real().now(), 30ms); });
    ASSERT_TRUE(link->wait_end(id));
    EXPECT_EQ(link->stream(id).end->finish, FinishReason::kCancelled);
}

TEST_F(WorkerLinkTest, AResumedRequestGoesOnAtItsPosition) {
    make({});
    const auto link = connect();
    const auto id = open(*link, {7, 8, 9, 7, 8}, 3, [](auto& r) { r.resumed_tokens = 2; });
    ASSERT_TRUE(link->wait_end(id));
    EXPECT_THAT(link->stream(id).tokens, testing::ElementsAre(9, 7, 8));
    EXPECT_EQ(link->stream(id).end->prompt_tokens, 3U);
}

TEST_F(WorkerLinkTest, ArtifactsAreThereByDigestAndNothingElseIs) {
    make({});
    const auto link = connect();
    std::uint64_t good = 0;
    std::uint64_t unknown = 0;
    std::uint64_t snapshot = 0;
    on_loop([&] {
        using requests::Fetch;
        const TimePoint now = Clock::real().now();
        Fetch fetch;
        fetch.sha256 = artifact;
        good = link->client().fetch(fetch, now).value();
        fetch.sha256 = std::string(64, 'b');
        unknown = link->client().fetch(fetch, now).value();
        fetch = {};
        fetch.kind = Fetch::Kind::kSnapshot;
        fetch.topic = "kv";
        snapshot = link->client().fetch(fetch, now).value();
        link->pump();
    });
    ASSERT_TRUE(link->wait([](const auto& s) { return s.fetched.size() == 3; }));
    const auto seen = link->seen();
    ASSERT_TRUE(seen.fetched.at(good)) << seen.fetched.at(good).error().message;
    EXPECT_EQ(*seen.fetched.at(good), "hello");
    EXPECT_EQ(seen.fetched.at(unknown).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(seen.fetched.at(snapshot).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace stator::worker
