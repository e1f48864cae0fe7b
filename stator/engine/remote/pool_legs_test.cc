#include "stator/engine/remote/legs_fixture.h"

// Requests whose parts are computed by different ranks, through the pool engine.
namespace stator::engine {
namespace {

using protocol::FinishReason;
using protocol::Leg;
using protocol::Role;
using router::Disaggregation;

using PoolLegsTest = LegsFixture;

TEST_F(PoolLegsTest, APromptIsComputedOnOneRankAndItsOutputOnAnother) {
    LegWorker& p = add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    start(Disaggregation::kAlways);
    for (std::uint64_t i = 1; i <= 50; ++i) ASSERT_TRUE(engine_->submit(request(i, 20), sink_));
    for (std::uint64_t i = 1; i <= 50; ++i) expect_whole(i, 20);
    EXPECT_EQ(p.opened(Leg::kPrefill), 50);
    EXPECT_EQ(d.opened(Leg::kDecode), 50);
    EXPECT_EQ(d.opened(Leg::kWhole), 0);
    EXPECT_EQ(d.recomputed(), 0);
    EXPECT_EQ(world_.counts().claimed, 50);
    EXPECT_EQ(metric("stator_pool_split_requests_total"), 50);
    EXPECT_EQ(metric("stator_pool_handoffs_released_total"), 0);
}

TEST_F(PoolLegsTest, KvThatAnEngineKeepsIsReleasedWhereItIs) {
    LegWorker& p = add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    p.move_own_kv();
    start(Disaggregation::kAlways);
    for (std::uint64_t i = 1; i <= 10; ++i) ASSERT_TRUE(engine_->submit(request(i, 20), sink_));
    for (std::uint64_t i = 1; i <= 10; ++i) expect_whole(i, 20);
    EXPECT_EQ(p.opened(Leg::kPrefill), 10);
    EXPECT_EQ(d.opened(Leg::kDecode), 10);
    EXPECT_EQ(world_.counts().claimed, 10);
    EXPECT_EQ(p.released(), 0);
    // The engine that decodes can't load it.
    d.fail(ErrorCode::kInternal, 1);
    ASSERT_TRUE(engine_->submit(request(11, 20), sink_));
    expect_whole(11, 20);
    EXPECT_EQ(d.opened(Leg::kWhole), 1);
    EXPECT_TRUE(TestWorker::eventually([&] { return p.released() == 1; }));
    // The client leaves while it waits for it.
    d.hold(true);
    ASSERT_TRUE(engine_->submit(request(12, 20), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] { return d.running() == 1; }));
    engine_->cancel(RequestId(12));
    ASSERT_TRUE(sink_->wait_end(12));
    EXPECT_TRUE(TestWorker::eventually([&] { return p.released() == 2; }));
    EXPECT_EQ(metric("stator_pool_handoffs_released_total"), 2);
    expect_settled();
}

TEST_F(PoolLegsTest, AnEarlyHandoffThatIsLostIsWaitedForNoLonger) {
    LegWorker& p = add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    p.move_own_kv();
    d.hold(true);
    start(Disaggregation::kAlways);
    for (std::uint64_t i = 1; i <= 10; ++i) ASSERT_TRUE(engine_->submit(request(i, 20), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] { return d.opened(Leg::kDecode) == 10; }));
    p.lose_handoffs();
    ASSERT_TRUE(TestWorker::eventually([&] { return d.opened(Leg::kWhole) == 10; }));
    EXPECT_EQ(d.running(), 10U) << "the legs that waited in vain are cancelled";
    d.hold(false);
    for (std::uint64_t i = 1; i <= 10; ++i) expect_whole(i, 20);
    EXPECT_EQ(metric("stator_pool_handoffs_given_up_total"), 10);
    EXPECT_EQ(metric("stator_pool_migrations_total"), 0);
    // The client's own fault is told, and tried nowhere else.
    d.hold(true);
    ASSERT_TRUE(engine_->submit(request(11, 20), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] { return d.opened(Leg::kDecode) == 11; }));
    p.lose_handoffs(ErrorCode::kInvalidArgument);
    ASSERT_TRUE(sink_->wait_end(11));
    EXPECT_EQ(sink_->of(11).end->error->code, ErrorCode::kInvalidArgument);
}

TEST_F(PoolLegsTest, NeverMeansWholeOnTheDecodeRank) {
    LegWorker& p = add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    start(Disaggregation::kNever);
    ASSERT_TRUE(engine_->submit(request(1, 20), sink_));
    expect_whole(1, 20);
    EXPECT_EQ(p.opened(Leg::kPrefill), 0);
    EXPECT_EQ(d.opened(Leg::kWhole), 1);
}

TEST_F(PoolLegsTest, AFailingPrefillRankCostsTheClientNothing) {
    for (const ErrorCode code : {ErrorCode::kOverloaded, ErrorCode::kInternal}) {
        engine_.reset();
        workers_.clear();
        LegWorker& p = add("p", {Role::kPrefill});
        LegWorker& d = add("d", {Role::kDecode});
        p.fail(code, 1000);
        start(Disaggregation::kAlways);
        for (std::uint64_t i = 1; i <= 10; ++i) {
            const std::uint64_t id = i + 100 * static_cast<std::uint64_t>(code);
            ASSERT_TRUE(engine_->submit(request(id, 20), sink_));
            expect_whole(id, 20);
        }
        EXPECT_EQ(d.opened(Leg::kWhole), 10);
    }
}

TEST_F(PoolLegsTest, ALostPrefillRankIsReplacedByAnother) {
    LegWorker& a = add("a", {Role::kPrefill});
    LegWorker& b = add("b", {Role::kPrefill});
    add("d", {Role::kDecode});
    a.hold(true);
    b.hold(true);
    start(Disaggregation::kAlways);
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(engine_->submit(request(i, 20), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] { return a.running() + b.running() == 20; }));
    a.kill();
    refresh();
    b.hold(false);
    for (std::uint64_t i = 1; i <= 20; ++i) expect_whole(i, 20);
    expect_settled();
}

TEST_F(PoolLegsTest, ALostDecodeRanksRequestsGoOnElsewhere) {
    add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    LegWorker& e = add("e", {Role::kDecode});
    start(Disaggregation::kAlways);
    for (std::uint64_t i = 1; i <= 20; ++i) {
        ASSERT_TRUE(engine_->submit(request(i, 50'000), sink_));
    }
    for (std::uint64_t i = 1; i <= 20; ++i) ASSERT_TRUE(sink_->wait_tokens(i, 3));
    ASSERT_GT(d.opened(Leg::kDecode), 0);
    const int others = e.opened(Leg::kDecode);
    d.kill();
    refresh();
    ASSERT_TRUE(TestWorker::eventually([&] { return e.opened(Leg::kWhole) == 20 - others; }));
    for (std::uint64_t i = 1; i <= 20; ++i) engine_->cancel(RequestId(i));
    for (std::uint64_t i = 1; i <= 20; ++i) {
        ASSERT_TRUE(sink_->wait_end(i));
        const auto seen = sink_->of(i);
        const auto prompt = request(i, 1).prompt;
        for (std::size_t t = 0; t < seen.tokens.size(); ++t) {
            ASSERT_EQ(seen.tokens[t], prompt[t % prompt.size()]) << i << " " << t;
        }
        EXPECT_EQ(seen.ends, 1);
    }
    expect_settled();
}

TEST_F(PoolLegsTest, ADecodeLegThatIsRefusedKeepsItsHandoff) {
    add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    start(Disaggregation::kAlways);
    d.fail(ErrorCode::kOverloaded, 1);
    ASSERT_TRUE(engine_->submit(request(1, 20), sink_));
    expect_whole(1, 20);
    EXPECT_EQ(d.opened(Leg::kDecode), 2);
    EXPECT_EQ(world_.counts().claimed, 1);
    EXPECT_EQ(world_.counts().made, 1);
}

TEST_F(PoolLegsTest, WhereNobodyDecodesInTimeThePromptIsComputedAgain) {
    add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    LegWorker& a = add("a", {Role::kAggregated});
    d.hold(true);
    start(Disaggregation::kAlways);
    ASSERT_TRUE(engine_->submit(request(1, 20), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] { return d.opened(Leg::kDecode) == 1; }));
    d.kill();
    refresh();
    expect_whole(1, 20);
    EXPECT_EQ(a.opened(Leg::kWhole), 1);
    EXPECT_EQ(world_.counts().released, 1);
}

TEST_F(PoolLegsTest, AHandoffWhoseLeaseIsNearlyOverIsNotSent) {
    world_.lease = 500ms;
    add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    d.fail(ErrorCode::kOverloaded, 1);
    start(Disaggregation::kAlways);
    ASSERT_TRUE(engine_->submit(request(1, 20), sink_));
    expect_whole(1, 20);
    // Refused once; then there was too little left of it.
    EXPECT_EQ(d.opened(Leg::kDecode), 1);
    EXPECT_EQ(d.opened(Leg::kWhole), 1);
    EXPECT_EQ(world_.counts().released, 1);
    EXPECT_EQ(metric("stator_pool_handoffs_given_up_total"), 1);
}

TEST_F(PoolLegsTest, ACancelledRequestsHandoffIsReleased) {
    add("p", {Role::kPrefill});
    LegWorker& d = add("d", {Role::kDecode});
    d.hold(true);
    start(Disaggregation::kAlways);
    ASSERT_TRUE(engine_->submit(request(1, 20), sink_));
    ASSERT_TRUE(TestWorker::eventually([&] { return d.opened(Leg::kDecode) == 1; }));
    engine_->cancel(RequestId(1));
    ASSERT_TRUE(sink_->wait_end(1));
    EXPECT_EQ(sink_->of(1).end->finish, FinishReason::kCancelled);
    EXPECT_EQ(world_.counts().released, 1);
    EXPECT_TRUE(TestWorker::eventually([&] { return d.running() == 0; }));
}

TEST_F(PoolLegsTest, AnEncodeLegGivesItsSubmitterTheEmbeddings) {
    LegWorker& e = add("e", {Role::kEncode});
    LegWorker& f = add("f", {Role::kEncode});
    add("a", {Role::kAggregated});
    start(Disaggregation::kConditional);
    for (std::uint64_t i = 1; i <= 10; ++i) {
        ASSERT_TRUE(engine_->submit(encode_request(i, 7), sink_));
        ASSERT_TRUE(sink_->wait_end(i));
        const auto end = *sink_->of(i).end;
        ASSERT_EQ(end.finish, FinishReason::kHandoff);
        ASSERT_TRUE(end.handoff);
        EXPECT_EQ(end.handoff->pieces.at(0).rows, LegWorker::kRows);
        engine_->cancel(RequestId(i));
        world_.release(*end.handoff);
    }
    // All of them where the first one was.
    EXPECT_EQ(std::max(e.opened(Leg::kEncode), f.opened(Leg::kEncode)), 10);
}

TEST_F(PoolLegsTest, MediaGoToTheFirstLegAndAreEncodedAgainAfterALoss) {
    LegWorker& e = add("e", {Role::kEncode});
    LegWorker& a = add("a", {Role::kAggregated});
    LegWorker& b = add("b", {Role::kAggregated});
    start(Disaggregation::kConditional);
    auto r = request(1, 50'000);
    for (std::uint8_t item = 1; item <= 2; ++item) r.media.push_back(media_item(item));
    r.media[0].embeddings = world_.make(protocol::Handoff::Kind::kEmbeddings, LegWorker::kRows);
    ASSERT_TRUE(engine_->submit(r, sink_));
    ASSERT_TRUE(sink_->wait_tokens(1, 3));
    EXPECT_EQ(e.opened(Leg::kEncode), 1);  // the one that had none
    LegWorker& first = a.opened(Leg::kWhole) > 0 ? a : b;
    LegWorker& second = &first == &a ? b : a;
    first.kill();
    refresh();
    ASSERT_TRUE(TestWorker::eventually([&] { return second.opened(Leg::kWhole) == 1; }));
    EXPECT_EQ(e.opened(Leg::kEncode), 3);
    engine_->cancel(RequestId(1));
    ASSERT_TRUE(sink_->wait_end(1));
    expect_settled();
}

TEST_F(PoolLegsTest, EmbeddingsThatAreGoneAreMadeAgain) {
    LegWorker& e = add("e", {Role::kEncode});
    add("p", {Role::kPrefill});
    add("d", {Role::kDecode});
    start(Disaggregation::kAlways);
    auto r = request(1, 20);
    r.media.push_back(media_item(1));
    r.media[0].embeddings = world_.make(protocol::Handoff::Kind::kEmbeddings, LegWorker::kRows);
    EXPECT_TRUE(world_.claim(*r.media[0].embeddings));  // by somebody else
    ASSERT_TRUE(engine_->submit(r, sink_));
    expect_whole(1, 20);
    EXPECT_EQ(e.opened(Leg::kEncode), 1);
    expect_settled();
}

TEST_F(PoolLegsTest, ARequestThatIsRefusedAtOnceLeavesNoHandoffs) {
    add("a", {Role::kAggregated});
    start(Disaggregation::kConditional);
    auto r = request(1, 200'000);
    r.media.push_back(media_item(1));
    r.media[0].embeddings = world_.make(protocol::Handoff::Kind::kEmbeddings, LegWorker::kRows);
    EXPECT_FALSE(engine_->submit(r, sink_));
    EXPECT_EQ(world_.counts().released, 1);
    auto encode = encode_request(2, 1);
    encode.media[0].content = nullptr;
    EXPECT_EQ(engine_->submit(encode, sink_).error().code, ErrorCode::kInvalidArgument);
    auto prefill = request(3, 5);
    prefill.leg = Leg::kPrefill;
    EXPECT_EQ(engine_->submit(prefill, sink_).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(PoolLegsTest, ItsLoadIsThatOfTheRanksThatGenerate) {
    add("p", {Role::kPrefill});
    add("d", {Role::kDecode});
    add("e", {Role::kEncode});
    add("w", {Role::kAggregated, Role::kEncode});
    start(Disaggregation::kAlways);
    EXPECT_EQ(engine_->load().running_limit, 128U);
}

TEST_F(PoolLegsTest, LossesAndCancelsAtRandomLeaveNothingBehind) {
    for (int i = 0; i < 3; ++i) add("p" + std::to_string(i), {Role::kPrefill});
    for (int i = 0; i < 3; ++i) add("d" + std::to_string(i), {Role::kDecode});
    add("e", {Role::kEncode});
    start(Disaggregation::kAlways, {.pool = {}, .card = {}, .max_migrations = 50});
    constexpr std::uint64_t kRequests = 300;
    std::thread submitter([&] {
        for (std::uint64_t i = 1; i <= kRequests; ++i) {
            auto r = request(i, 100);
            if (i % 3 == 0) r.media.push_back(media_item(static_cast<std::uint8_t>(i % 7)));
            while (!engine_->submit(r, sink_)) std::this_thread::sleep_for(1ms);
            if (i % 5 == 0) engine_->cancel(RequestId(i));
            std::this_thread::sleep_for(500us);
        }
    });
    for (int round = 0; round < 8; ++round) {
        std::this_thread::sleep_for(15ms);
        const std::size_t victim = round % 6;
        const auto dying = workers_[victim];
        const auto info = dying->info();
        dying->fail(round % 2 == 0 ? ErrorCode::kOverloaded : ErrorCode::kInternal, 3);
        std::this_thread::sleep_for(3ms);
        dying->kill();
        workers_[victim] = std::make_shared<LegWorker>(info->name, info->roles, dying->loop(),
                                                       world_, 100 + static_cast<unsigned>(round));
        refresh();
    }
    submitter.join();
    for (std::uint64_t i = 1; i <= kRequests; ++i) {
        if (i % 5 != 0) {
            expect_whole(i, 100);
            continue;
        }
        ASSERT_TRUE(sink_->wait_end(i)) << i;
        EXPECT_EQ(sink_->of(i).ends, 1);
        EXPECT_EQ(sink_->of(i).after_end, 0);
    }
    // A leg that ended at the moment at which its request was cancelled leaves one to expire.
    EXPECT_LE(world_.counts().unsettled, static_cast<int>(kRequests / 5));
    EXPECT_TRUE(TestWorker::eventually([&] {
        for (const auto& w : workers_) {
            if (w->running() != 0) return false;
        }
        return true;
    }));
}

}  // namespace
}  // namespace stator::engine
