#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "stator/worker/fake_engine.h"
#include "stator/worker/fake_transfer.h"
#include "stator/worker/links_fixture.h"

namespace stator::worker {
namespace {

using namespace std::chrono_literals;
using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::Leg;
using protocol::Role;
using requests::StreamId;

constexpr const char* kLayout = "fake:kv";

std::shared_ptr<GenerateRequest> request(Leg leg, std::size_t tokens = 9) {
    auto q = std::make_shared<GenerateRequest>();
    q->leg = leg;
    for (std::size_t i = 0; i < tokens; ++i) q->prompt.push_back(static_cast<std::uint32_t>(i));
    q->max_tokens = 4;
    return q;
}

std::shared_ptr<Handoff> kv_of(const GenerateRequest& q) {
    auto h = std::make_shared<Handoff>();
    h->tokens = static_cast<std::uint32_t>(q.prompt.size() - 1);
    h->id.fill(1);
    h->layout = kLayout;
    h->content = protocol::kv_content(std::span(q.prompt).first(h->tokens), q.cache_salt);
    for (std::uint32_t at = 0; at < h->tokens; at += 2) {
        h->parts.push_back({at, std::min(2U, h->tokens - at), at * 10ULL, 20});
    }
    h->bytes = h->tokens * 20ULL;
    return h;
}

std::shared_ptr<GenerateRequest> decode_leg() {
    auto q = request(Leg::kDecode);
    q->handoff = kv_of(*q);
    return q;
}

/// Adds an item of three tokens at the end of the prompt.
protocol::MediaItem& add_media(GenerateRequest& q, std::uint8_t name) {
    protocol::MediaItem item;
    item.digest.fill(name);
    item.position = static_cast<std::uint32_t>(q.prompt.size());
    item.tokens = 3;
    auto h = std::make_shared<Handoff>();
    h->kind = Handoff::Kind::kEmbeddings;
    h->id.fill(static_cast<std::uint8_t>(100 + name));
    h->layout = "f32:8:x";
    h->content = item.digest;
    h->tokens = 2;
    h->bytes = 64;
    h->pieces = {{.text = {5}, .rows = 0}, {.text = {}, .rows = 2}};
    item.embeddings = h;
    q.prompt.insert(q.prompt.end(), 3, 0x8000'0000);
    q.media.push_back(std::move(item));
    return q.media.back();
}

/// With an engine and a transfer plane that do what the test says.
class WorkerLegsTest : public LinksFixture {
  protected:
    std::shared_ptr<MemoryLink> start(std::vector<Role> roles = {Role::kAggregated},
                                      bool transfer = true) {
        auto state = state_of(&engine);
        state.info.roles = std::move(roles);
        state.info.card.kv_layout = kLayout;
        make_station(std::move(state));
        if (transfer) station->transfer = plane;
        return connect();
    }
    void cancel(MemoryLink& link, StreamId id) {
        on_loop([&] {
            link.client().cancel(id, Clock::real().now());
            link.pump();
        });
    }
    /// How the request ended at the client.
    Error refusal(MemoryLink& link, StreamId id) {
        EXPECT_TRUE(link.wait_end(id));
        const auto end = link.stream(id).end;
        return end && end->error ? *end->error : Error{};
    }
    Error refusal_of(MemoryLink& link, const std::shared_ptr<GenerateRequest>& q) {
        return refusal(link, open(link, q));
    }
    double handoffs(const std::string& kind, const std::string& outcome) {
        std::istringstream text(registry.render());
        const std::string wanted =
            "stator_worker_handoffs_total{kind=\"" + kind + "\",outcome=\"" + outcome + "\"} ";
        for (std::string line; std::getline(text, line);) {
            if (line.starts_with(wanted)) return std::stod(line.substr(wanted.size()));
        }
        return 0;
    }

    std::shared_ptr<FakeTransfer> plane = std::make_shared<FakeTransfer>();
    FakeEngine engine;
};

// ---- decode legs

TEST_F(WorkerLegsTest, ADecodeLegGetsItsKvBeforeTheEngineGetsIt) {
    const auto link = start();
    auto q = decode_leg();
    q->deadline = Deadline::after(Clock::real().now(), 1h);
    const auto id = open(*link, q);
    ASSERT_TRUE(plane->wait_open(1));
    EXPECT_EQ(engine.submitted(), 0U);
    EXPECT_EQ(station->open.count(), 1U);
    auto claim = plane->next();
    EXPECT_EQ(claim.what->id, q->handoff->id);
    EXPECT_TRUE(claim.options.parts.empty()) << "all";
    EXPECT_LE(claim.options.deadline.left(Clock::real().now()), station->claim_within);
    claim.done(FakeTransfer::bytes_of(claim.what));
    ASSERT_TRUE(engine.wait_submitted(1));
    const auto submitted = engine.last();
    ASSERT_TRUE(submitted.request.kv);
    EXPECT_EQ(submitted.request.kv->what->id, q->handoff->id);
    EXPECT_EQ(submitted.request.leg, Leg::kDecode);
    EXPECT_EQ(submitted.request.prompt, q->prompt);
    FakeEngine::end(submitted, FinishReason::kLength);
    ASSERT_TRUE(link->wait_end(id));
    EXPECT_EQ(link->stream(id).tokens, std::vector<protocol::TokenId>{7});
    EXPECT_EQ(handoffs("kv", "claimed"), 1.0);
    EXPECT_TRUE(plane->released().empty());
}

TEST_F(WorkerLegsTest, ARequestsOwnDeadlineIsItsClaims) {
    const auto link = start();
    auto q = decode_leg();
    q->deadline = Deadline::after(Clock::real().now(), 1s);
    open(*link, q);
    ASSERT_TRUE(plane->wait_open(1));
    EXPECT_LE(plane->next().options.deadline.left(Clock::real().now()), 1s);
}

TEST_F(WorkerLegsTest, OnlyWhatTheEngineHasNotIsClaimed) {
    const auto link = start();
    engine.cached = 3;  // one part whole, half of the second
    open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(1));
    EXPECT_THAT(plane->next().options.parts, testing::ElementsAre(1, 2, 3));

    engine.cached = 8;
    open(*link, decode_leg());
    ASSERT_TRUE(engine.wait_submitted(1));
    EXPECT_FALSE(engine.last().request.kv);
    EXPECT_EQ(plane->released().size(), 1U);
    EXPECT_EQ(plane->claims(), 1U);
    EXPECT_EQ(handoffs("kv", "cached"), 1.0);
}

TEST_F(WorkerLegsTest, KvThatDoesNotComeIsComputedAgain) {
    const auto link = start();
    const auto id = open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(1));
    plane->fail(ErrorCode::kNotFound);
    ASSERT_TRUE(engine.wait_submitted(1));
    EXPECT_FALSE(engine.last().request.kv);
    FakeEngine::end(engine.last(), FinishReason::kLength);
    ASSERT_TRUE(link->wait_end(id));
    EXPECT_FALSE(link->stream(id).end->error) << "the client never hears of it";
    EXPECT_EQ(handoffs("kv", "not_found"), 1.0);
}

TEST_F(WorkerLegsTest, KvOfSomethingElseIsNotTaken) {
    const auto link = start();
    std::size_t n = 0;
    const auto mismatched = [&](auto change) {
        auto q = decode_leg();
        auto h = std::make_shared<Handoff>(*q->handoff);
        change(*q, *h);
        q->handoff = h;
        open(*link, q);
        ++n;
        EXPECT_TRUE(engine.wait_submitted(n));
        EXPECT_FALSE(engine.last().request.kv);
        EXPECT_EQ(plane->released().size(), n);
    };
    mismatched([](auto&, auto& h) { h.layout = "other"; });
    mismatched([](auto&, auto& h) { h.content[3] ^= 1; });
    mismatched([](auto& q, auto&) { q.cache_salt = 5; });
    mismatched([](auto& q, auto&) { q.prompt[2] = 99; });
    mismatched([](auto& q, auto&) { q.prompt.push_back(3); });
    EXPECT_EQ(plane->claims(), 0U);
    EXPECT_EQ(handoffs("kv", "mismatch"), 5.0);
}

TEST_F(WorkerLegsTest, ACancelTakesTheClaimBack) {
    const auto link = start();
    const auto id = open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(1));
    cancel(*link, id);
    EXPECT_TRUE(plane->wait_cancels(1));
    EXPECT_TRUE(wait_nothing_open());
    on_loop([] {});
    EXPECT_EQ(engine.submitted(), 0U);
    EXPECT_EQ(link->stream(id).ends, 0);
}

TEST_F(WorkerLegsTest, AnAnswerThatCrossesTheCancelIsNoRequest) {
    const auto link = start();
    const auto id = open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(1));
    auto claim = plane->next();  // the cancel comes too late for it
    cancel(*link, id);
    claim.done(FakeTransfer::bytes_of(claim.what));
    on_loop([] {});
    on_loop([] {});
    EXPECT_EQ(engine.submitted(), 0U);
    EXPECT_TRUE(wait_nothing_open());
}

TEST_F(WorkerLegsTest, ALostLinkTakesItsClaimsBack) {
    const auto link = start();
    open(*link, decode_leg());
    open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(2));
    on_loop([&] { link->cut(); });
    EXPECT_TRUE(plane->wait_cancels(2));
    EXPECT_TRUE(wait_nothing_open());
    EXPECT_EQ(engine.submitted(), 0U);
}

TEST_F(WorkerLegsTest, ADrainsEndTakesClaimsBackAndSaysSo) {
    const auto link = start();
    const auto id = open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(1));
    station->open.close();
    Error why;
    why.code = ErrorCode::kUnavailable;
    why.message = "this worker stops";
    why.retryable = true;
    for (const auto& l : station->links()) l->end_all(why);
    EXPECT_TRUE(refusal(*link, id).retryable);
    EXPECT_TRUE(plane->wait_cancels(1));
    EXPECT_TRUE(wait_nothing_open());
    EXPECT_EQ(engine.submitted(), 0U);
}

TEST_F(WorkerLegsTest, AnEngineThatRefusesAfterTheClaimIsHeard) {
    const auto link = start();
    const auto id = open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(1));
    engine.refuse = error(ErrorCode::kOverloaded, "full").value();
    plane->succeed();
    const Error why = refusal(*link, id);
    EXPECT_EQ(why.code, ErrorCode::kOverloaded);
    EXPECT_TRUE(why.retryable);
    EXPECT_TRUE(wait_nothing_open());
}

TEST_F(WorkerLegsTest, NoMoreAreClaimedForThanTheEngineWouldTake) {
    const auto link = start();
    for (int i = 0; i < 8; ++i) open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(8));
    const Error why = refusal_of(*link, decode_leg());
    EXPECT_EQ(why.code, ErrorCode::kOverloaded);
    EXPECT_TRUE(why.retryable);
    EXPECT_GT(why.retry_after_ms, 0U);
    EXPECT_EQ(plane->claims(), 8U) << "another rank may still claim it";
    plane->succeed();
    ASSERT_TRUE(engine.wait_submitted(1));
    on_loop([] {});
    open(*link, decode_leg());
    ASSERT_TRUE(plane->wait_open(8));
}

TEST_F(WorkerLegsTest, WithoutAPlaneTheDecodeLegComputesItsPrompt) {
    const auto link = start({Role::kDecode}, false);
    open(*link, decode_leg());
    ASSERT_TRUE(engine.wait_submitted(1));
    EXPECT_FALSE(engine.last().request.kv);
    EXPECT_EQ(handoffs("kv", "no_transfer"), 1.0);
}

// ---- media

TEST_F(WorkerLegsTest, AllMediaAreClaimedAtOnceAndAreThereForTheEngine) {
    const auto link = start();
    for (const Leg leg : {Leg::kWhole, Leg::kPrefill}) {
        const std::size_t before = engine.submitted();
        auto q = request(leg);
        for (const std::uint8_t name : {1, 2, 3}) add_media(*q, name);
        open(*link, q);
        ASSERT_TRUE(plane->wait_open(3));
        EXPECT_EQ(engine.submitted(), before);
        for (int i = 0; i < 3; ++i) plane->succeed();
        ASSERT_TRUE(engine.wait_submitted(before + 1));
        const auto got = engine.last().request;
        ASSERT_EQ(got.media.size(), 3U);
        for (std::size_t i = 0; i < 3; ++i) {
            ASSERT_TRUE(got.media[i].arrived);
            EXPECT_EQ(got.media[i].arrived->what->id, q->media[i].embeddings->id);
        }
    }
    EXPECT_EQ(handoffs("embeddings", "claimed"), 6.0);
}

TEST_F(WorkerLegsTest, OnePictureInTwoPlacesIsClaimedOnce) {
    const auto link = start();
    auto q = request(Leg::kWhole);
    add_media(*q, 1);
    add_media(*q, 2);
    add_media(*q, 1);
    open(*link, q);
    ASSERT_TRUE(plane->wait_open(2));
    plane->succeed();
    plane->succeed();
    ASSERT_TRUE(engine.wait_submitted(1));
    const auto got = engine.last().request;
    EXPECT_EQ(got.media[0].arrived, got.media[2].arrived);
    EXPECT_NE(got.media[0].arrived, got.media[1].arrived);
}

TEST_F(WorkerLegsTest, AnItemThatDoesNotComeEndsTheRequest) {
    const auto link = start();
    auto q = request(Leg::kWhole);
    for (const std::uint8_t name : {1, 2, 3}) add_media(*q, name);
    const auto id = open(*link, q);
    ASSERT_TRUE(plane->wait_open(3));
    plane->succeed();
    plane->fail(ErrorCode::kDataLoss);
    const Error why = refusal(*link, id);
    EXPECT_EQ(why.code, ErrorCode::kUnavailable);
    EXPECT_EQ(why.param, "media");
    EXPECT_TRUE(why.retryable);
    EXPECT_TRUE(plane->wait_open(0)) << "the others are taken back";
    EXPECT_TRUE(wait_nothing_open());
    EXPECT_EQ(engine.submitted(), 0U);
    EXPECT_EQ(handoffs("embeddings", "data_loss"), 1.0);
    EXPECT_EQ(link->stream(id).ends, 1);
}

TEST_F(WorkerLegsTest, AClaimThatTakesTooLongForTheRequestIsItsDeadline) {
    const auto link = start();
    auto q = request(Leg::kWhole);
    add_media(*q, 1);
    q->deadline = Deadline::after(Clock::real().now(), 1ms);
    const auto id = open(*link, q);
    ASSERT_TRUE(plane->wait_open(1));
    // At the worker it is what was left, from when the request came.
    const auto arrived = Clock::real().now();
    while (!Deadline::after(arrived, 10ms).reached(Clock::real().now())) on_loop([] {});
    on_loop([&] {
        // The claim's end comes on some thread.
        plane->fail(ErrorCode::kDeadlineExceeded);
    });
    EXPECT_EQ(refusal(*link, id).code, ErrorCode::kDeadlineExceeded);
}

TEST_F(WorkerLegsTest, MediaThatWereNotEncodedOrAreOthersAreRefused) {
    const auto link = start();
    auto q = request(Leg::kWhole);
    add_media(*q, 1).embeddings.reset();
    Error why = refusal_of(*link, q);
    EXPECT_EQ(why.code, ErrorCode::kUnavailable);
    EXPECT_TRUE(why.retryable);
    EXPECT_EQ(why.param, "media");
    q = request(Leg::kWhole);
    add_media(*q, 1).digest.fill(9);
    why = refusal_of(*link, q);
    EXPECT_EQ(why.code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(why.param, "media");
    q = request(Leg::kWhole);
    add_media(*q, 1).tokens = 2;
    EXPECT_EQ(refusal_of(*link, q).code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(plane->claims(), 0U);
}

TEST_F(WorkerLegsTest, ADecodeLegNeedsItsMediaOnlyWithoutKv) {
    const auto link = start();
    auto q = request(Leg::kDecode);
    add_media(*q, 1);
    add_media(*q, 2);
    q->prompt.push_back(3);
    q->handoff = kv_of(*q);
    open(*link, q);
    ASSERT_TRUE(plane->wait_open(1));
    plane->succeed();
    ASSERT_TRUE(engine.wait_submitted(1));
    EXPECT_TRUE(engine.last().request.kv);
    EXPECT_FALSE(engine.last().request.media[0].arrived);

    open(*link, q);
    ASSERT_TRUE(plane->wait_open(1));
    plane->fail(ErrorCode::kUnavailable);
    ASSERT_TRUE(plane->wait_open(2));
    plane->succeed();
    plane->succeed();
    ASSERT_TRUE(engine.wait_submitted(2));
    EXPECT_FALSE(engine.last().request.kv);
    EXPECT_TRUE(engine.last().request.media[1].arrived);

    // Its prefill leg has used them.
    auto used = std::make_shared<GenerateRequest>(*q);
    for (auto& item : used->media) item.embeddings.reset();
    const auto id = open(*link, used);
    ASSERT_TRUE(plane->wait_open(1));
    plane->fail(ErrorCode::kUnavailable);
    const Error why = refusal(*link, id);
    EXPECT_EQ(why.param, "media");
    EXPECT_TRUE(why.retryable);
}

TEST_F(WorkerLegsTest, CancelWhileMediaCome) {
    const auto link = start();
    auto q = request(Leg::kWhole);
    add_media(*q, 1);
    add_media(*q, 2);
    const auto id = open(*link, q);
    ASSERT_TRUE(plane->wait_open(2));
    plane->succeed();
    cancel(*link, id);
    EXPECT_TRUE(plane->wait_open(0));
    EXPECT_TRUE(wait_nothing_open());
    EXPECT_EQ(engine.submitted(), 0U);
}

TEST_F(WorkerLegsTest, WithoutAPlaneThereAreNoMedia) {
    const auto link = start({Role::kAggregated}, false);
    auto q = request(Leg::kWhole);
    add_media(*q, 1);
    const Error why = refusal_of(*link, q);
    // Not the client's fault: another rank may take it.
    EXPECT_EQ(why.code, ErrorCode::kUnavailable);
    EXPECT_TRUE(why.retryable);
    EXPECT_EQ(why.param, "");
}

// ---- roles

std::shared_ptr<GenerateRequest> encode_leg() {
    auto q = request(Leg::kEncode, 0);
    protocol::MediaItem item;
    auto c = std::make_shared<protocol::MediaContent>();
    c->width = 2;
    c->height = 1;
    c->pixels = "rgbRGB";
    item.content = c;
    q->media.push_back(std::move(item));
    return q;
}

TEST_F(WorkerLegsTest, ALegNeedsARoleThatComputesIt) {
    const std::vector<std::pair<Role, std::vector<Leg>>> all{
        {Role::kAggregated, {Leg::kWhole, Leg::kPrefill, Leg::kDecode}},
        {Role::kPrefill, {Leg::kPrefill}},
        {Role::kDecode, {Leg::kWhole, Leg::kDecode}},
        {Role::kEncode, {Leg::kEncode}}};
    std::size_t taken = 0;
    for (const auto& [role, legs] : all) {
        const auto link = start({role});
        for (const Leg leg : {Leg::kWhole, Leg::kPrefill, Leg::kDecode, Leg::kEncode}) {
            const auto q = leg == Leg::kEncode ? encode_leg() : request(leg);
            if (std::ranges::find(legs, leg) != legs.end()) {
                open(*link, q);
                ASSERT_TRUE(engine.wait_submitted(++taken));
                EXPECT_EQ(engine.last().request.leg, leg);
                continue;
            }
            const Error why = refusal_of(*link, q);
            EXPECT_EQ(why.code, ErrorCode::kUnsupported);
            EXPECT_EQ(why.param, "leg");
            EXPECT_FALSE(why.retryable);
        }
        on_loop([&] { link->cut(); });
        links.clear();
    }
    EXPECT_EQ(engine.submitted(), 7U);
}

TEST_F(WorkerLegsTest, ALegThatHandsOffNeedsAPlane) {
    const auto link = start({Role::kPrefill, Role::kEncode}, false);
    EXPECT_EQ(refusal_of(*link, request(Leg::kPrefill)).param, "leg");
    EXPECT_EQ(refusal_of(*link, encode_leg()).param, "leg");
}

// ---- handoffs made here

TEST_F(WorkerLegsTest, AnEncodeLegsContentReachesTheEngineAndItsHandoffTheClient) {
    const auto link = start({Role::kEncode});
    const auto id = open(*link, encode_leg());
    ASSERT_TRUE(engine.wait_submitted(1));
    ASSERT_TRUE(engine.last().request.media[0].content);
    EXPECT_EQ(engine.last().request.media[0].content->pixels, "rgbRGB");
    auto h = std::make_shared<Handoff>();
    h->kind = Handoff::Kind::kEmbeddings;
    h->tokens = 4;
    h->pieces = {{.text = {}, .rows = 4}};
    FakeEngine::end(engine.last(), FinishReason::kHandoff, h);
    ASSERT_TRUE(link->wait_end(id));
    const auto end = link->stream(id).end;
    EXPECT_EQ(end->finish, FinishReason::kHandoff);
    ASSERT_TRUE(end->handoff);
    EXPECT_EQ(end->handoff->pieces, h->pieces);
    EXPECT_TRUE(plane->released().empty());
}

TEST_F(WorkerLegsTest, AHandoffNobodyWantsAnyMoreIsReleased) {
    const auto link = start();
    const auto q = request(Leg::kPrefill);
    // Cancelled while the engine was at it.
    const auto early = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(1));
    cancel(*link, early);
    ASSERT_TRUE(engine.wait_cancelled(1));
    FakeEngine::end(engine.last(), FinishReason::kHandoff, kv_of(*q));
    ASSERT_TRUE(plane->wait_released(1));
    // Cancelled when the end was on the way to the client.
    const auto late = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(2));
    on_loop([&] {
        FakeEngine::end(engine.last(), FinishReason::kHandoff, kv_of(*q));
        link->client().cancel(late, Clock::real().now());
        // Behind the step, and before its bytes are at the client.
        loop.post([&] { link->pump(); });
    });
    ASSERT_TRUE(plane->wait_released(2));
    EXPECT_TRUE(wait_nothing_open());
    EXPECT_EQ(handoffs("kv", "released"), 2.0);
    // And one that is wanted is not.
    const auto good = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(3));
    FakeEngine::end(engine.last(), FinishReason::kHandoff, kv_of(*q));
    ASSERT_TRUE(link->wait_end(good));
    EXPECT_TRUE(link->stream(good).end->handoff);
    EXPECT_EQ(plane->released().size(), 2U);
}

TEST_F(WorkerLegsTest, ALostLinksHandoffsAreReleased) {
    const auto link = start();
    const auto q = request(Leg::kPrefill);
    const auto told = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(1));
    FakeEngine::end(engine.last(), FinishReason::kHandoff, kv_of(*q));
    ASSERT_TRUE(link->wait_end(told));
    open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(2));
    const auto running = engine.last();
    open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(3));
    on_loop([&] {
        // In the inbox when the link goes.
        FakeEngine::end(engine.last(), FinishReason::kHandoff, kv_of(*q));
        link->cut();
    });
    EXPECT_TRUE(plane->wait_released(2));
    FakeEngine::end(running, FinishReason::kHandoff, kv_of(*q));
    EXPECT_TRUE(plane->wait_released(3)) << "the engine was not done when the link went";
}

TEST_F(WorkerLegsTest, AHandoffOfALegThatEndedOtherwiseIsReleased) {
    const auto link = start();
    const auto q = request(Leg::kPrefill);
    const auto id = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(1));
    FakeEngine::end(engine.last(), FinishReason::kCancelled, kv_of(*q));
    ASSERT_TRUE(link->wait_end(id));
    EXPECT_TRUE(plane->wait_released(1));
}

TEST_F(WorkerLegsTest, AnUnsoundHandoffIsAnErrorAndReleased) {
    const auto link = start();
    const auto q = request(Leg::kPrefill);
    const auto id = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(1));
    const auto h = kv_of(*q);
    h->tokens += 1;
    FakeEngine::end(engine.last(), FinishReason::kHandoff, h);
    EXPECT_EQ(refusal(*link, id).code, ErrorCode::kInternal);
    EXPECT_TRUE(plane->wait_released(1));
}

// ---- KV that engines move among themselves

std::shared_ptr<Handoff> object_of(const GenerateRequest& q) {
    auto h = kv_of(q);
    h->parts.clear();
    h->bytes = 0;
    h->object = R"({"remote_host":"h"})";
    return h;
}

TEST_F(WorkerLegsTest, AnEnginesObjectIsPassedOnAndNothingIsClaimed) {
    engine.moves_kv_by("fake/own");
    for (const bool with_plane : {false, true}) {
        const auto link = start({Role::kDecode}, with_plane);
        const std::size_t before = engine.submitted();
        auto q = decode_leg();
        q->handoff = object_of(*q);
        open(*link, q);
        ASSERT_TRUE(engine.wait_submitted(before + 1));
        const auto got = engine.last().request;
        ASSERT_TRUE(got.handoff);
        EXPECT_EQ(got.handoff->object, q->handoff->object);
        EXPECT_FALSE(got.kv);
        EXPECT_EQ(handoffs("kv", "passed_on"), with_plane ? 2.0 : 1.0);
    }
    EXPECT_EQ(plane->claims(), 0U);
}

TEST_F(WorkerLegsTest, AnEnginesObjectOfSomethingElseIsNotPassedOn) {
    engine.moves_kv_by("fake/own");
    const auto link = start();
    std::size_t n = 0;
    const auto dropped = [&](auto change) {
        auto q = decode_leg();
        auto h = object_of(*q);
        change(*q, *h);
        q->handoff = h;
        open(*link, q);
        ++n;
        EXPECT_TRUE(engine.wait_submitted(n));
        EXPECT_FALSE(engine.last().request.handoff);
    };
    dropped([](auto&, auto& h) { h.layout = "fake:kv/2"; });
    dropped([](auto&, auto& h) { h.content[3] ^= 1; });
    dropped([](auto& q, auto&) { q.cache_salt = 5; });
    dropped([](auto& q, auto&) { q.prompt[2] = 99; });
    dropped([](auto& q, auto&) { q.prompt.push_back(3); });
    engine.moves_kv_by("");
    dropped([](auto&, auto&) {});
    EXPECT_EQ(handoffs("kv", "mismatch"), 6.0);
    EXPECT_EQ(plane->claims(), 0U);
}

TEST_F(WorkerLegsTest, AnEnginesObjectIsReleasedByItsEngine) {
    engine.moves_kv_by("fake/own");
    const auto link = start({Role::kPrefill}, false);
    const auto q = request(Leg::kPrefill);
    const auto good = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(1));
    FakeEngine::end(engine.last(), FinishReason::kHandoff, object_of(*q));
    ASSERT_TRUE(link->wait_end(good));
    ASSERT_TRUE(link->stream(good).end->handoff);
    EXPECT_EQ(link->stream(good).end->handoff->object, object_of(*q)->object);
    // Cancelled while the engine was at it.
    const auto cancelled = open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(2));
    cancel(*link, cancelled);
    ASSERT_TRUE(engine.wait_cancelled(1));
    FakeEngine::end(engine.last(), FinishReason::kHandoff, object_of(*q));
    ASSERT_TRUE(engine.wait_released(1));
    // With the link goes what its client may not have heard of, and what comes later.
    open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(3));
    const auto running = engine.last();
    on_loop([&] { link->cut(); });
    EXPECT_TRUE(engine.wait_released(2));
    FakeEngine::end(running, FinishReason::kHandoff, object_of(*q));
    EXPECT_TRUE(engine.wait_released(3));
    EXPECT_TRUE(plane->released().empty());
}

TEST_F(WorkerLegsTest, EmbeddingsThatAnEngineKeepsGoWithTheirPixels) {
    engine.keeps_media();
    const auto link = start({Role::kAggregated, Role::kEncode}, false);
    // A leg that encodes needs no plane.
    const auto encode = encode_leg();
    open(*link, encode);
    ASSERT_TRUE(engine.wait_submitted(1));
    EXPECT_EQ(engine.last().request.media[0].content->pixels, encode->media[0].content->pixels);
    auto q = request(Leg::kWhole);
    auto& item = add_media(*q, 1);
    auto h = std::make_shared<Handoff>(*item.embeddings);
    h->object = "{}";
    h->bytes = 0;
    item.embeddings = h;
    item.content = encode->media[0].content;
    open(*link, q);
    ASSERT_TRUE(engine.wait_submitted(2));
    const auto got = engine.last().request;
    EXPECT_EQ(got.media[0].embeddings->object, "{}");
    EXPECT_EQ(*got.media[0].content, *item.content);
    // Those of others are to be made again.
    q = request(Leg::kWhole);
    add_media(*q, 1);
    EXPECT_EQ(refusal_of(*link, q).param, "media");
    EXPECT_EQ(plane->claims(), 0U);
}

TEST_F(WorkerLegsTest, AnEngineThatClaimsEmbeddingsTakesNoneOfAnEnginesOwn) {
    const auto link = start();
    auto q = request(Leg::kWhole);
    auto& item = add_media(*q, 1);
    auto h = std::make_shared<Handoff>(*item.embeddings);
    h->object = "{}";
    h->bytes = 0;
    item.embeddings = h;
    EXPECT_EQ(refusal_of(*link, q).param, "media");
    EXPECT_EQ(engine.submitted(), 0U);
}

TEST_F(WorkerLegsTest, AnEngineThatMovesItsKvEncodesNothingWithoutAPlane) {
    engine.moves_kv_by("fake/own");
    const auto link = start({Role::kPrefill, Role::kEncode}, false);
    EXPECT_EQ(refusal_of(*link, encode_leg()).param, "leg");
}

TEST_F(WorkerLegsTest, ReportsSayWhatLegsHaveLeft) {
    plane->set_usage({.unclaimed = 3, .unclaimed_bytes = 500, .budget_bytes = 9000});
    const auto link = start();
    ASSERT_TRUE(link->wait([](const auto& s) { return !s.loads.empty(); }));
    const auto load = link->seen().loads.back().load;
    EXPECT_EQ(load.unclaimed_handoffs, 3U);
    EXPECT_EQ(load.unclaimed_bytes, 500U);
    EXPECT_EQ(load.unclaimed_limit, 9000U);
}

TEST(HandedOff, KeepsTheYoungestThatHaveNotExpired) {
    HandedOff all;
    TimePoint now{1};
    const auto make = [&](std::chrono::seconds lease) {
        auto h = std::make_shared<Handoff>();
        h->expires = Deadline::after(now, lease);
        return h;
    };
    for (std::uint32_t i = 1; i <= HandedOff::kMost + 10; ++i) all.add(i, make(30s), now);
    EXPECT_FALSE(all.take(10));
    EXPECT_TRUE(all.take(11));
    EXPECT_FALSE(all.take(11));
    now = now + 20s;
    all.add(5000, make(30s), now);
    now = now + 10s;
    EXPECT_EQ(all.take_all(now).size(), 1U);
    EXPECT_TRUE(all.take_all(now).empty());
}

}  // namespace
}  // namespace stator::worker
