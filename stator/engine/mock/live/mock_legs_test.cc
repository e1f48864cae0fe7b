#include <gtest/gtest.h>

#include "stator/engine/memory_handoffs_fixture.h"
#include "stator/engine/mock/live/mock_engine.h"
#include "stator/engine/mock/live/mock_fixture.h"

namespace stator::engine {
namespace {

using protocol::Handoff;
using protocol::HandoffBytes;
using protocol::Leg;

/// An engine for each leg, and what they leave to each other.
class MockLegs : public testing::Test {
  protected:
    MockLegs() {
        MockOptions o = quick();
        o.core.kv_bytes_per_token = 64;
        o.handoffs.store = store;
        o.handoffs.encodes = true;
        o.handoffs.embedding_width = 16;
        first = make_mock_engine(host, o, {});
        second = make_mock_engine(host, o, {});
    }

    Collector::Seen run(Engine& engine, GenerateRequest r) {
        const auto id = r.id.value;
        EXPECT_TRUE(engine.submit(std::move(r), sink));
        sink->wait_ends(++ended);
        return sink->of(id);
    }
    Collector::Seen prefill(GenerateRequest r) {
        r.id = RequestId(++last_id);
        r.leg = Leg::kPrefill;
        return run(*first, std::move(r));
    }
    Collector::Seen decode(GenerateRequest r, std::shared_ptr<const HandoffBytes> kv) {
        r.id = RequestId(++last_id);
        r.leg = Leg::kDecode;
        r.kv = std::move(kv);
        return run(*second, std::move(r));
    }

    MockHost host;
    std::shared_ptr<MemoryHandoffs> store = std::make_shared<MemoryHandoffs>();
    std::unique_ptr<Engine> first;
    std::unique_ptr<Engine> second;
    std::shared_ptr<Collector> sink = std::make_shared<Collector>();
    std::uint64_t last_id = 0;
    int ended = 0;
};

TEST_F(MockLegs, TogetherGiveTheTextOfTheWholeRequest) {
    std::uint64_t imported = 0;
    for (std::uint32_t n = 2; n < 30; ++n) {
        auto r = make_request(1000 + n, prompt_of(n * 100, n), 9);
        r.sampling.seed = n;
        r.cache_salt = n % 3;
        r.resumed_tokens = n % 2;
        const auto left = prefill(r);
        ASSERT_EQ(left.last->finish, FinishReason::kHandoff);
        EXPECT_TRUE(left.tokens.empty());
        ASSERT_TRUE(left.last->handoff);
        EXPECT_EQ(left.last->handoff->tokens, n - 1);
        EXPECT_EQ(left.last->handoff->bytes, (n - 1) * 64U);
        EXPECT_EQ(left.last->prompt_tokens, n - n % 2);
        const auto got = decode(r, store->claim(left.last->handoff));
        EXPECT_EQ(got.tokens, alone(r));
        EXPECT_EQ(got.last->cached_tokens, 0U);
        imported += n - 1;
    }
    EXPECT_EQ(first->load().kv_used_tokens, 0U);
    EXPECT_EQ(first->forward_pass_metrics().exported_tokens, imported);
    EXPECT_EQ(second->forward_pass_metrics().imported_tokens, imported);
    EXPECT_EQ(second->forward_pass_metrics().prefill_tokens, 28U);
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 0U);
}

TEST_F(MockLegs, PartsThatAreCachedNeedNotCome) {
    auto r = make_request(1, prompt_of(0, 300), 3);
    decode(r, nullptr);
    EXPECT_EQ(second->cached_prefix_tokens(r), 296U);
    EXPECT_EQ(first->cached_prefix_tokens(r), 0U);
    const auto left = prefill(r);
    ASSERT_EQ(left.last->handoff->parts.size(), 3U);
    const auto got = decode(r, store->claim(left.last->handoff, {false, false, true}));
    EXPECT_EQ(got.tokens, alone(r));
    EXPECT_EQ(got.last->cached_tokens, 296U);
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 0U);
    // Nothing is cached of this one, so that the first part is missed.
    r.cache_salt = 1;
    const auto again = prefill(r);
    const auto computed = decode(r, store->claim(again.last->handoff, {false, true, true}));
    EXPECT_EQ(computed.tokens, alone(r));
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 1U);
}

TEST_F(MockLegs, AMixUpIsSeenAndComputedInstead) {
    const auto r = make_request(1, prompt_of(0, 40), 5);
    auto other = r;
    other.prompt[3] = 999;
    const auto mine = store->claim(prefill(r).last->handoff);
    const auto theirs = store->claim(prefill(other).last->handoff);
    const auto want = alone(r);
    EXPECT_EQ(decode(r, theirs).tokens, want);
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 1U);
    // Said to be this prompt's, and isn't: the bytes tell.
    auto mixed = std::make_shared<HandoffBytes>(*theirs);
    mixed->what = mine->what;
    auto salted = r;
    salted.cache_salt = 5;
    EXPECT_EQ(decode(salted, mine).tokens.size(), 5U);
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 2U);
    EXPECT_EQ(decode(r, mixed).tokens, want);
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 3U);
    EXPECT_EQ(decode(r, mine).tokens, want);
    EXPECT_EQ(second->forward_pass_metrics().refused_imports, 3U);
}

protocol::MediaItem picture(std::uint8_t name, std::uint32_t width, std::uint32_t height,
                            std::uint32_t frames = 1) {
    protocol::MediaItem item;
    item.digest.fill(name);
    auto content = std::make_shared<protocol::MediaContent>();
    content->width = width;
    content->height = height;
    content->frames = frames;
    item.content = content;
    return item;
}

TEST_F(MockLegs, AnEncodeLegLeavesRowsAndTheWholeRequestNeedsThem) {
    GenerateRequest encode = make_request(++last_id, {}, 1);
    encode.leg = Leg::kEncode;
    encode.media = {picture(7, 56, 56, 3)};
    const auto left = run(*first, encode);
    ASSERT_EQ(left.last->finish, FinishReason::kHandoff);
    const Handoff& what = *left.last->handoff;
    EXPECT_EQ(what.kind, Handoff::Kind::kEmbeddings);
    EXPECT_EQ(what.tokens, 12U);
    EXPECT_EQ(what.bytes, 12U * 16 * 4);
    EXPECT_EQ(what.pieces, std::vector<protocol::MediaPiece>(3, {{}, 4}));

    auto whole = make_request(++last_id, prompt_of(0, 6), 3);
    protocol::MediaItem item = encode.media[0];
    item.position = 2;
    item.tokens = 12;
    for (std::uint32_t i = 0; i < 12; ++i) {
        whole.prompt.insert(whole.prompt.begin() + 2 + i, tokens::media_token(item.digest, i));
    }
    whole.media = {item};
    const auto refused = second->submit(whole, sink);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
    EXPECT_EQ(refused.error().param, "media");
    EXPECT_TRUE(refused.error().retryable);
    whole.media[0].arrived = store->claim(left.last->handoff);
    EXPECT_EQ(run(*second, whole).tokens.size(), 3U);
    whole.media[0].digest[0] = 8;
    EXPECT_FALSE(second->submit(whole, sink));
    // A decode leg whose KV came needs no pictures; one that has to compute its prompt does.
    whole.media = {item};
    whole.leg = Leg::kDecode;
    EXPECT_FALSE(second->submit(whole, sink));
}

TEST_F(MockLegs, WhatCanNotBeDoneIsRefused) {
    auto engine = make_mock_engine(host, quick(), {});
    auto r = make_request(1, prompt_of(0, 9), 3);
    r.leg = Leg::kPrefill;
    EXPECT_EQ(engine->submit(r, sink).error().code, ErrorCode::kUnsupported);
    r.leg = Leg::kEncode;
    EXPECT_EQ(engine->submit(r, sink).error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(first->submit(r, sink).error().param, "media");
    r.leg = Leg::kPrefill;
    r.prompt.resize(1);
    EXPECT_EQ(first->submit(r, sink).error().code, ErrorCode::kUnsupported);

    MockOptions o = quick();
    o.handoffs.store = std::make_shared<MemoryHandoffs>(100);
    first = make_mock_engine(host, o, {});
    const auto full = prefill(make_request(1, prompt_of(0, 9), 3));
    EXPECT_EQ(full.last->finish, FinishReason::kError);
    EXPECT_EQ(full.last->error->code, ErrorCode::kOverloaded);
    EXPECT_TRUE(full.last->error->retryable);
    EXPECT_EQ(first->load().kv_used_tokens, 0U);
}

}  // namespace
}  // namespace stator::engine
